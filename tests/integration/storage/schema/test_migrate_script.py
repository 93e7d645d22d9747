"""The printed SQL: run by a person's own tools, it makes the same schema as migrate does."""

from __future__ import annotations

import os
import re
from typing import LiteralString

import psycopg
import pytest
from hypothesis import given, settings
from psycopg import sql

from backfill.storage.connection import connect
from backfill.storage.grants import grants_script
from backfill.storage.schema import state as schema_module
from backfill.storage.schema import steps
from backfill.storage.schema.migrate import MigrationReport, migrate
from backfill.storage.schema.script import migration_script
from backfill.storage.schema.state import read_state
from backfill.storage.schema.steps import migrations, newest
from contract.catalog import catalogue, contract, differences
from contract.scripts import run_script, statements
from contract.snapshot import Snapshot, snapshot
from preloaded import run_shell

from strategies import schema_names

SCHEMA = "graphile_worker"


def printed(*words: str, dsn: str | None = None) -> str:
    """What `backfill migrate` prints with these words."""
    where = [] if dsn is None else ["--dsn", dsn]
    done = run_shell("migrate", *words, *where, env=without_database())
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refusal(*words: str) -> str:
    """The error of `backfill migrate` with these words."""
    done = run_shell("migrate", *words, env=without_database())
    assert done.returncode != 0
    assert done.stdout == ""
    return done.stderr


def without_database() -> dict[str, str]:
    """The environment without DATABASE_URL, which would name a database to ask."""
    return {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}


async def up(dsn: str, schema: str = SCHEMA) -> MigrationReport:
    """Migrate on a connection of its own."""
    async with await connect(dsn) as connection:
        return await migrate(connection, schema=schema)


async def missing(dsn: str, schema: str = SCHEMA) -> str:
    """The script for what this database lacks."""
    async with await connect(dsn) as connection:
        return migration_script(schema, await read_state(connection, schema))


async def test_the_script_for_an_empty_database(empty_dsn: str, fresh: Snapshot) -> None:
    """Printed without any database: it makes what migrate makes, and migrate then has nothing to do."""
    run_script(empty_dsn, printed("--sql"))
    assert snapshot(empty_dsn, SCHEMA) == fresh
    assert differences(catalogue(empty_dsn, SCHEMA), contract()) == []
    assert (await up(empty_dsn)).applied == ()


def test_the_script_asks_an_empty_database(empty_dsn: str, fresh: Snapshot) -> None:
    """Printed with one to look at, it is the same script.

    Looking changes nothing, an existing empty schema is taken.
    """
    script = printed("--sql", dsn=empty_dsn)
    assert script == printed("--sql")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        assert connection.execute("select count(*) from pg_namespace where nspname = 'graphile_worker'").fetchone() == (
            0,
        )
        connection.execute("create schema graphile_worker")
    run_script(empty_dsn, printed("--sql", dsn=empty_dsn))
    assert snapshot(empty_dsn, SCHEMA) == fresh


def test_the_script_for_an_empty_database_refuses_another(dsn: str, node_dsn: str) -> None:
    """Where the schema is there already, it stops at once, changes nothing and says what to print."""
    for there in (dsn, node_dsn):
        before = snapshot(there, SCHEMA, ledger=False)
        with pytest.raises(AssertionError, match="the schema is there already: `backfill migrate --sql` with --dsn"):
            run_script(there, printed("--sql"))
        assert snapshot(there, SCHEMA, ledger=False) == before


def test_nothing_to_print(dsn: str) -> None:
    """Where nothing is missing the script is a remark, and does nothing."""
    script = printed("--sql", dsn=dsn)
    assert script == f"-- schema 'graphile_worker' is up to date: migration {newest()}\n"
    run_script(dsn, script)


@pytest.mark.parametrize("last", range(1, newest()))
async def test_the_script_for_an_earlier_state(
    shared_dsn: str, fresh: Snapshot, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """It brings what a schema lacks, whatever that is: the result is what migrate makes of it."""
    everything, name = migrations(), f"since_{last}"
    with monkeypatch.context() as patch:
        patch.setattr(steps, "migrations", lambda: everything[:last])
        patch.setattr(schema_module, "migrations", lambda: everything[:last])
        await up(shared_dsn, name)
    run_script(shared_dsn, await missing(shared_dsn, name))
    assert snapshot(shared_dsn, name) == fresh
    assert (await up(shared_dsn, name)).applied == ()


async def test_an_index_that_was_interrupted_is_in_the_script(dsn: str, fresh: Snapshot) -> None:
    """An invalid index is dropped by the script before it is made."""
    [step] = [step for step in migrations() if step.index == "backfill_jobs_locked"]
    with psycopg.connect(dsn) as writer, psycopg.connect(dsn, autocommit=True) as builder:
        builder.execute("drop index graphile_worker.backfill_jobs_locked")
        builder.execute("delete from graphile_worker.backfill_migrations where id = %s", (step.number,))
        writer.execute("select graphile_worker.add_job('t')")
        builder.execute("set statement_timeout = '100ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            builder.execute(step.sql(SCHEMA))
        writer.rollback()
    run_script(dsn, await missing(dsn))
    assert snapshot(dsn, SCHEMA) == fresh


async def test_the_script_for_graphile_workers_schema(node_dsn: str, server_dsn: str, node_template: str) -> None:
    """On a schema that Graphile Worker made, the script does what migrate does there, and leaves theirs alone."""
    theirs = snapshot(node_dsn, SCHEMA, ledger=False)
    script = printed("--sql", dsn=node_dsn)
    assert snapshot(node_dsn, SCHEMA, ledger=False) == theirs
    run_script(node_dsn, script)
    by_script = snapshot(node_dsn, SCHEMA)
    with psycopg.connect(node_dsn, autocommit=True) as connection:
        drop_ours(connection)
    await up(node_dsn)
    assert snapshot(node_dsn, SCHEMA) == by_script


def drop_ours(connection: psycopg.Connection) -> None:
    """Undo all that ours has added to another program's schema."""
    ours: LiteralString = """
        select 'drop index ' || oid::regclass from pg_class where relname like 'backfill\\_jobs\\_%'
        union all
        select 'drop table ' || oid::regclass || ' cascade' from pg_class
        where relname like 'backfill\\_%' and relkind in ('r', 'p') and not relispartition
        union all
        select 'drop routine if exists ' || oid::regprocedure || ' cascade' from pg_proc
        where proname like 'backfill\\_%' and proname <> 'backfill_add'
        union all
        select 'drop function if exists ' || oid::regprocedure from pg_proc where proname = 'backfill_add'"""
    for (statement,) in connection.execute(ours).fetchall():
        connection.execute(statement)


def test_too_old_a_graphile_worker_gets_no_script(node_dsn: str) -> None:
    """What migrate refuses is not printed either."""
    with psycopg.connect(node_dsn, autocommit=True) as connection:
        connection.execute("delete from graphile_worker.migrations where id > 16")
    assert "has Graphile Worker's migration 16; backfill needs 19" in refusal("--sql", "--dsn", node_dsn)
    with psycopg.connect(node_dsn, autocommit=True) as connection:
        connection.execute("insert into graphile_worker.migrations (id, breaking) values (20, true)")
    assert "migration 20, which is breaking" in refusal("--sql", "--dsn", node_dsn)


@settings(max_examples=settings.default.max_examples // 4)
@given(name=schema_names.filter(lambda name: not re.fullmatch("[a-z_]+", name)))
def test_any_name_can_stand_in_the_script(shared_dsn: str, fresh: Snapshot, name: str) -> None:
    """Whatever the schema is called, the script makes it, statement by statement, as migrate would."""
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        for statement in statements(migration_script(name)):
            connection.execute(statement)
        assert snapshot(shared_dsn, name) == fresh
        connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(name)))


@pytest.mark.parametrize(
    "name",
    ['we"ird', "it's; drop schema public; --", ":x :'y' :\"z\"", "$function$", "back\\slash", "new\nline", "Ünï 🐍"],
)
def test_odd_names_in_the_script_as_it_is_printed(shared_dsn: str, fresh: Snapshot, name: str) -> None:
    """psql, too, takes the name for what it is."""
    run_script(shared_dsn, migration_script(name))
    assert snapshot(shared_dsn, name) == fresh


def test_an_odd_name_on_the_command_line() -> None:
    """The shell prints the same script under that name."""
    assert printed("--sql", "--schema", 'we"ird') == migration_script('we"ird')


def test_each_statement_of_the_script_ends() -> None:
    """The script is whole transactions of whole statements, and tells the contract's listeners once."""
    found = list(statements(migration_script()))
    assert (found[0], found[-1]) == ("begin", "commit")
    assert sum("worker:migrate" in statement for statement in found) == 1


def test_grants_are_printed_alone_or_after_the_script() -> None:
    """`--grants` prints what the role needs, without a database.

    With `--sql` both come, in the order in which they run.
    """
    grants = grants_script("producer", "web", "jobs")
    assert printed("--grants", "producer", "--role", "web", "--schema", "jobs") == grants
    both = printed("--sql", "--grants", "producer", "--role", "web", "--schema", "jobs")
    assert both == f"{migration_script('jobs')}\n{grants}"


def test_options_that_do_not_go_together() -> None:
    """Each wrong pair of options is an error that names it."""
    assert "--grants: name the role too" in refusal("--grants", "producer")
    assert "--role: it names the role of --grants" in refusal("--role", "web")
    assert "--json" in refusal("--sql", "--json")
