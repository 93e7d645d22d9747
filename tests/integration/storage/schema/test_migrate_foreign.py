"""Migrations on a database that Graphile Worker or the Rust engine set up.

Their schema is left alone, and ours stands beside it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import LiteralString, cast

import psycopg
import pytest

from backfill import BackfillClient, JobSpec, NewJob, Queue, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.errors import SchemaMissingError, SchemaVersionError
from backfill.storage.connection import connect
from backfill.storage.schema import state as schema_module
from backfill.storage.schema import steps
from backfill.storage.schema.migrate import MigrationReport, migrate
from backfill.storage.schema.state import check_schema
from backfill.storage.schema.steps import migrations, newest
from contract.catalog import catalogue, contract, differences
from contract.snapshot import Snapshot, snapshot

from places import TESTS
from plugins.schemas import install
from reading import rows, value

SCHEMA = "graphile_worker"
OURS = r"(\{schema\}\.)?backfill_\w+.*"
FOUNDATION = [step.number for step in migrations() if step.foundation]


async def up(dsn: str, schema: str = SCHEMA) -> MigrationReport:
    """Migrate on a connection of its own."""
    async with await connect(dsn) as connection:
        return await migrate(connection, schema=schema)


def assert_left_alone(before: Snapshot, after: Snapshot) -> None:
    """All that was there is unchanged but for autovacuum's settings, and all that is new is called backfill_*."""
    for part, entries in before.items():
        for name, text in entries.items():
            now = after[part][name]
            if part == "storage":
                now = ", ".join(option for option in now.split(", ") if not option.startswith("autovacuum_"))
            assert (part, name, now) == (part, name, text)
        for name in after[part].keys() - entries.keys():
            if part == "indexes":  # the catalogue leaves out the names of indexes; they have a part of their own
                assert re.search(r" ON (ONLY )?\{schema\}\.(_private_jobs|backfill_\w+) ", name), name
            else:
                assert re.fullmatch(OURS, name, re.DOTALL), (part, name)


def run_file(dsn: str, path: Path) -> None:
    """Run the statements of a file."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(cast("LiteralString", path.read_text(encoding="utf-8")))


@pytest.fixture
def rust_dsn(node_dsn: str) -> str:
    """A DSN of a database that the Rust engine has set up."""
    run_file(node_dsn, TESTS / "contract" / "rust_engine.sql")
    return node_dsn


@pytest.mark.parametrize("whose", ["node_dsn", "rust_dsn"])
async def test_their_schema_is_left_alone(whose: str, request: pytest.FixtureRequest) -> None:
    """Tables, functions with their bodies, views, indexes, grants.

    Only backfill_* and autovacuum's settings come to it.
    """
    dsn: str = request.getfixturevalue(whose)
    before = snapshot(dsn, SCHEMA, ledger=False)
    report = await up(dsn)
    assert (report.foundation, report.version) == ("foreign", newest())
    after = snapshot(dsn, SCHEMA, ledger=False)
    assert_left_alone(before, after)
    assert after != before
    if whose == "node_dsn":
        assert differences(catalogue(dsn, SCHEMA), contract()) == []
    assert (await up(dsn)).applied == ()
    assert snapshot(dsn, SCHEMA, ledger=False) == after
    skipped = await rows(dsn, "select id from graphile_worker.backfill_migrations where skipped order by id")
    assert [number for (number,) in skipped] == FOUNDATION


async def test_theirs_and_ours_differ_only_inside(node_dsn: str, fresh: Snapshot) -> None:
    """On their schema our indexes, tables and settings are what they are on a fresh one of ours."""
    await up(node_dsn)
    found = snapshot(node_dsn, SCHEMA)
    for part in (
        "columns",
        "kinds",
        "constraints",
        "constraint names",
        "indexes",
        "index names",
        "column order",
        "sequences",
    ):
        assert found[part] == fresh[part], part
    assert {name: text.replace("fillfactor=70", "").strip(", ") for name, text in fresh["storage"].items()} == found[
        "storage"
    ]


@pytest.mark.parametrize("last", range(FOUNDATION[-1] + 1, newest()))
async def test_every_earlier_state_of_ours_on_theirs(node_dsn: str, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """From where an older version of ours stopped on their schema, the rest follows, and theirs is left alone."""
    before, everything = snapshot(node_dsn, SCHEMA, ledger=False), migrations()
    with monkeypatch.context() as patch:
        patch.setattr(steps, "migrations", lambda: everything[:last])
        patch.setattr(schema_module, "migrations", lambda: everything[:last])
        assert (await up(node_dsn)).version == last
    report = await up(node_dsn)
    assert (report.applied, report.foundation) == (tuple(range(last + 1, newest() + 1)), "foreign")
    assert_left_alone(before, snapshot(node_dsn, SCHEMA, ledger=False))


async def test_twenty_at_once_on_theirs(node_dsn: str) -> None:
    """Each migration is made by one of twenty, whichever it is."""
    reports = await asyncio.gather(*(up(node_dsn) for _ in range(20)))
    assert sorted(number for report in reports for number in report.applied) == list(range(1, newest() + 1))


async def test_graphile_worker_leaves_ours_alone(dsn: str, node_modules: Path) -> None:
    """Its own migrate finds nothing to do on a schema that we made, nor on one that both have a part in."""
    before = snapshot(dsn, SCHEMA)
    await asyncio.to_thread(install, node_modules, dsn)
    assert snapshot(dsn, SCHEMA) == before


@pytest.mark.parametrize("whose", ["node_dsn", "rust_dsn"])
async def test_our_statements_work_with_what_they_find(whose: str, request: pytest.FixtureRequest) -> None:
    """Jobs are enqueued by each way there is and run, on their tables and through their functions."""
    dsn: str = request.getfixturevalue(whose)
    await up(dsn)
    seen: list[int] = []
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("note")
    async def note(number: int) -> None:
        seen.append(number)

    async with BackfillClient(dsn) as client:
        await client.enqueue(note.job(1))
        await client.enqueue(note.job(2), job_key="one")
        await client.enqueue(note.job(3), job_key="one", queue=Queue.serial("line"))
        await client.enqueue_bulk(note.job(number) for number in range(10, 20))
        keyed = [(20, "two"), (21, "two"), (22, "three")]
        await client.enqueue_bulk(NewJob("note", number, JobSpec(job_key=key)) for number, key in keyed)
        runner = WorkerRunner(WorkerConfig(dsn), tasks)
        await runner.process_available_jobs()
    assert sorted(seen) == [1, 3, *range(10, 20), 21, 22]
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 0


def older(dsn: str, node_modules: Path, last: int) -> None:
    """A database on which Graphile Worker's migrations end with `last`, as one of its older versions left it."""
    with psycopg.connect(dsn) as connection:
        connection.execute("create schema graphile_worker")
        connection.execute(
            "create table graphile_worker.migrations (id int primary key, ts timestamptz default now() not null)"
        )
        for number in range(1, last + 1):
            text = (node_modules / "graphile-worker" / "sql" / f"{number:06}.sql").read_text(encoding="utf-8")
            connection.execute(cast("LiteralString", text.replace(":GRAPHILE_WORKER_SCHEMA", "graphile_worker")))
            connection.execute("insert into graphile_worker.migrations (id) values (%s)", (number,))


@pytest.mark.parametrize("last", [1, 10, 11, 18])
async def test_an_older_graphile_worker_is_refused_with_the_way_out(
    empty_dsn: str, node_modules: Path, last: int
) -> None:
    """Both numbers are named, nothing is changed, and after what the error asks for migrating goes through."""
    older(empty_dsn, node_modules, last)
    before = snapshot_of_old(empty_dsn)
    with pytest.raises(SchemaVersionError, match=rf"migration {last}; backfill needs 19: start graphile-worker 0.17"):
        await up(empty_dsn)
    assert snapshot_of_old(empty_dsn) == before
    async with await connect(empty_dsn) as connection:
        with pytest.raises(SchemaMissingError, match="backfill migrate --schema graphile_worker"):
            await check_schema(connection, SCHEMA)
    await asyncio.to_thread(install, node_modules, empty_dsn)
    assert (await up(empty_dsn)).foundation == "foreign"
    assert differences(catalogue(empty_dsn, SCHEMA), contract()) == []


def snapshot_of_old(dsn: str) -> list[tuple[str, str]]:
    """Every relation and function of the schema."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            """select relname, relkind::text from pg_class where relnamespace = 'graphile_worker'::regnamespace
               union all select proname, prosrc from pg_proc where pronamespace = 'graphile_worker'::regnamespace
               order by 1, 2"""
        ).fetchall()


@pytest.mark.parametrize(
    "table",
    [
        "create table app.migrations (version text primary key, applied boolean)",
        "create table app.migrations (id text primary key); insert into app.migrations values ('first')",
        "create table app.migrations (id serial primary key, name text); insert into app.migrations values (40)",
    ],
)
async def test_a_schema_of_something_else_is_not_taken_over(empty_dsn: str, table: str) -> None:
    """A table of migrations that is no queue's: one error says so, and nothing is made."""
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute("create schema app")
        for statement in table.split("; "):
            connection.execute(cast("LiteralString", statement))
        with pytest.raises(SchemaVersionError, match="'app' has a table `migrations` that is not Graphile Worker's"):
            await up(empty_dsn, "app")
        made = connection.execute("select count(*) from pg_class where relname like 'backfill%'").fetchone()
        assert made == (0,)


async def test_a_newer_one_of_theirs_is_refused_untouched(node_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """A breaking migration that we do not know: refused before anything of ours is made; others only warn."""
    with psycopg.connect(node_dsn, autocommit=True) as connection:
        connection.execute("insert into graphile_worker.migrations (id, breaking) values (20, true)")
        with pytest.raises(SchemaVersionError, match=r"migration 20, which is breaking.* knows 19"):
            await up(node_dsn)
        assert connection.execute("select to_regclass('graphile_worker.backfill_migrations')").fetchone() == (None,)
        connection.execute("update graphile_worker.migrations set breaking = false where id = 20")
    with caplog.at_level(logging.WARNING, "backfill"):
        assert (await up(node_dsn)).version == newest()
    assert "migration 20; this version of backfill knows 19" in caplog.text
