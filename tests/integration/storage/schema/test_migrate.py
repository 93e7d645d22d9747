"""Migrations on a database of our own: any name, any earlier state, any interruption end in one and the same schema."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest
from hypothesis import given, settings
from psycopg import sql

from backfill import ConfigurationError
from backfill.errors import MigrationError, SchemaVersionError
from backfill.storage.connection import connect
from backfill.storage.schema import state as schema_module
from backfill.storage.schema import steps
from backfill.storage.schema.migrate import MigrationReport, migrate
from backfill.storage.schema.state import check_schema
from backfill.storage.schema.steps import Migration, migrations, newest
from contract.catalog import catalogue, contract, differences
from contract.snapshot import Snapshot, snapshot

from strategies import schema_names

SCHEMA = "graphile_worker"
ODD_NAMES = [
    "Jobs",
    "public",
    'we"ird',
    "it's",
    "Gräphile Wörker 🐍",
    "x" * 63,
    "é" * 31,
    "select",
    "a.b",
    "50% off; drop",
    "back\\slash",
    "new\nline",
    ':"schema"',
    "$1",
    "$function$",
    "$name$ $function1$",
    "create schema",
    "create index concurrently",
    "{schema}",
    " ",
]


async def up(dsn: str, schema: str = SCHEMA, **keywords: timedelta) -> MigrationReport:
    """Migrate on a connection of its own."""
    async with await connect(dsn) as connection:
        return await migrate(connection, schema=schema, **keywords)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[tuple[Migration, ...]], None]]:
    """Have the package know other migrations than it does, as an older or a newer version would."""

    def pretend(there: tuple[Migration, ...]) -> None:
        monkeypatch.setattr(steps, "migrations", lambda: there)
        monkeypatch.setattr(schema_module, "migrations", lambda: there)

    return pretend


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_an_empty_database_comes_to_the_contract(shared_dsn: str, name: str) -> None:
    """Under any name all entries of the contract's catalogue hold, and migrating again changes nothing."""
    report = await up(shared_dsn, name)
    assert (report.applied, report.version) == (tuple(range(1, newest() + 1)), newest())
    assert (report.schema, report.foundation) == (name, "ours")
    assert differences(catalogue(shared_dsn, name), contract()) == []
    before = snapshot(shared_dsn, name)
    assert (await up(shared_dsn, name)).applied == ()
    assert snapshot(shared_dsn, name) == before


@settings(max_examples=settings.default.max_examples // 4)
@given(name=schema_names.filter(lambda name: not re.fullmatch("[a-z_]+", name) and name not in ODD_NAMES))
async def test_any_name_will_do(shared_dsn: str, fresh: Snapshot, name: str) -> None:
    """Whatever the schema is called, it comes out as the one of the usual name does."""
    async with await connect(shared_dsn) as connection:
        await migrate(connection, schema=name)
        assert snapshot(shared_dsn, name) == fresh
        await connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(name)))


async def test_a_role_that_may_remove_jobs_may_free_their_queues_too(
    shared_dsn: str, known: Callable[[tuple[Migration, ...]], None]
) -> None:
    """A producer has no policy, only functions: after an upgrade it removes jobs as before, with its old grants."""
    everything = migrations()
    known(everything[:39])
    await up(shared_dsn, "roles")
    name = f"producer_{os.getpid()}"
    with psycopg.connect(shared_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
        try:
            connection.execute(
                sql.SQL("grant execute on function roles.backfill_remove_job(bigint, text) to {}").format(
                    sql.Identifier(name)
                )
            )
            known(everything)
            await up(shared_dsn, "roles")
            allowed = connection.execute(
                "select has_function_privilege(%s, 'roles.backfill_free_queues(bigint[])', 'execute'), "
                "has_function_privilege(%s, 'roles.backfill_hold_queue(integer, bigint)', 'execute')",
                [name, name],
            ).fetchone()
            assert allowed == (True, False)
        finally:
            connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.mark.parametrize("last", range(1, newest()))
async def test_every_earlier_state_comes_to_the_newest(
    shared_dsn: str, fresh: Snapshot, known: Callable[[tuple[Migration, ...]], None], last: int
) -> None:
    """A schema that an older version left at any of its migrations becomes what a fresh one is."""
    everything, name = migrations(), f"since_{last}"
    known(everything[:last])
    assert (await up(shared_dsn, name)).version == last
    known(everything)
    assert (await up(shared_dsn, name)).applied == tuple(range(last + 1, newest() + 1))
    assert snapshot(shared_dsn, name) == fresh


@pytest.mark.parametrize("index", ["backfill_jobs_serial_scan", "backfill_jobs_serial_head", "backfill_jobs_locked"])
async def test_an_invalid_index_is_made_anew(
    dsn: str, fresh: Snapshot, index: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What an interrupted build left behind is dropped and built again, and the log says so."""
    [step] = [step for step in migrations() if step.index == index]
    with psycopg.connect(dsn) as writer, psycopg.connect(dsn, autocommit=True) as builder:
        builder.execute(sql.SQL("drop index {}").format(sql.Identifier(SCHEMA, index)))
        builder.execute("delete from graphile_worker.backfill_migrations where id = %s", (step.number,))
        writer.execute("select graphile_worker.add_job('t')")
        builder.execute("set statement_timeout = '100ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            builder.execute(step.sql(SCHEMA))
        writer.rollback()
    assert snapshot(dsn, SCHEMA)["index names"][index].endswith(" invalid")
    with caplog.at_level(logging.WARNING, "backfill"):
        assert (await up(dsn)).applied == (step.number,)
    assert f"index {index} of schema 'graphile_worker' is invalid" in caplog.text
    assert snapshot(dsn, SCHEMA) == fresh


async def test_a_function_of_an_older_form_is_made_anew(dsn: str, fresh: Snapshot) -> None:
    """Databases that had the function which tried for ever have today's after the next migration."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        found = connection.execute(
            "select pg_get_functiondef(oid) from pg_proc where proname = 'backfill_bury' and pronargs = 14"
        ).fetchone()
        assert found is not None
        older = re.sub(r"for round in 1\.\.100 loop", "loop", found[0])
        assert older != found[0]
        connection.execute(older)
        connection.execute(
            "delete from graphile_worker.backfill_migrations where name in ('bury_attempts', 'cancelled_ends')"
        )
    assert snapshot(dsn, SCHEMA) != fresh
    assert len((await up(dsn)).applied) == 2
    assert snapshot(dsn, SCHEMA) == fresh


async def test_an_index_that_was_built_but_not_noted_stays(dsn: str) -> None:
    """A migrator that ended between the index and the ledger leaves only the note to be made."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        built = "select oid from pg_class where relname = 'backfill_jobs_locked'"
        before = connection.execute(built).fetchone()
        connection.execute("delete from graphile_worker.backfill_migrations where name = 'locked_index'")
        assert len((await up(dsn)).applied) == 1
        assert connection.execute(built).fetchone() == before


async def test_what_came_before_a_failure_stands(
    shared_dsn: str, fresh: Snapshot, known: Callable[[tuple[Migration, ...]], None]
) -> None:
    """A migration that fails is named by the server's words, what came before it stands, and a repaired one goes on."""
    everything, name = migrations(), "stopped"
    wrong = Migration(8, "wrong", "select 1 / 0", "", False, True, None, False)
    known(everything[:7])
    await up(shared_dsn, name)
    known((*everything[:7], wrong))
    with pytest.raises(MigrationError, match=r"division by zero.*what came before it stands"):
        await up(shared_dsn, name)
    known(everything)
    assert (await up(shared_dsn, name)).version == newest()
    assert snapshot(shared_dsn, name) == fresh


async def test_a_failed_first_migration_leaves_nothing(
    shared_dsn: str, known: Callable[[tuple[Migration, ...]], None]
) -> None:
    """On an empty database all is one transaction: a failure leaves not even the schema."""
    name = "nothing"
    known((*migrations(), Migration(newest() + 1, "wrong", "select 1 / 0", "", False, True, None, False)))
    with pytest.raises(MigrationError, match="division by zero"):
        await up(shared_dsn, name)
    with psycopg.connect(shared_dsn) as connection:
        assert connection.execute("select count(*) from pg_namespace where nspname = 'nothing'").fetchone() == (0,)


@pytest.mark.parametrize(
    ("statement", "numbers"),
    [
        ("insert into graphile_worker.migrations (id, breaking) values (20, false), (23, true)", ("23", "19")),
        (
            """insert into graphile_worker.backfill_migrations (id, name, breaking)
               values (9998, 'x', true), (9999, 'y', false)""",
            ("9998", str(newest())),
        ),
    ],
)
async def test_a_newer_breaking_migration_is_refused(dsn: str, statement: str, numbers: tuple[str, str]) -> None:
    """In either ledger: neither migrating nor connecting goes on, and both numbers are named."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)
    async with await connect(dsn) as connection:
        for refused in (migrate(connection, schema=SCHEMA), check_schema(connection, SCHEMA)):
            with pytest.raises(SchemaVersionError) as caught:
                await refused
            assert all(f" {number}" in str(caught.value) for number in numbers)
            assert "upgrade backfill" in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "warning"),
    [
        (
            "insert into graphile_worker.migrations (id) values (20), (21)",
            "has Graphile Worker's migration 21; this version of backfill knows 19",
        ),
        (
            "insert into graphile_worker.backfill_migrations (id, name, breaking) values (9999, 'x', false)",
            f"has backfill's migration 9999; this version of backfill knows {newest()}",
        ),
    ],
)
async def test_a_newer_migration_that_is_not_breaking_only_warns(
    dsn: str, statement: str, warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In either ledger: one warning with both numbers in each process, however often it connects; the work goes on."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)
    with caplog.at_level(logging.WARNING, "backfill"):
        assert (await up(dsn)).applied == ()
        async with await connect(dsn) as connection:
            await check_schema(connection, SCHEMA)
    assert [record.getMessage() for record in caplog.records] == [
        f"schema 'graphile_worker' {warning}: it is not breaking, so nothing need be done"
    ]


async def test_a_transaction_is_no_place_to_migrate(shared_dsn: str) -> None:
    """A connection that is not in autocommit is refused before anything is done."""
    async with await psycopg.AsyncConnection.connect(shared_dsn) as connection:
        with pytest.raises(ConfigurationError, match="autocommit"):
            await migrate(connection)


async def test_the_session_is_left_as_it_was(shared_dsn: str) -> None:
    """The caller's timeouts are put back, and no lock is kept."""
    async with await connect(shared_dsn) as connection:
        await connection.execute("set lock_timeout = '7s'; set statement_timeout = '11s'")
        await migrate(connection, schema="session")
        settings = await connection.execute(
            "select current_setting('lock_timeout'), current_setting('statement_timeout')"
        )
        assert await settings.fetchone() == ("7s", "11s")
        locks = await connection.execute("select count(*) from pg_locks where locktype = 'advisory'")
        assert await locks.fetchone() == (0,)


async def test_a_reserved_name_is_refused_by_the_server(shared_dsn: str) -> None:
    """What PostgreSQL keeps for itself is one clear error."""
    with pytest.raises(MigrationError, match="pg_"):
        await up(shared_dsn, "pg_mine")
