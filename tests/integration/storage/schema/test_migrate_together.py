"""Many migrators at once, and a queue that is at work meanwhile.

Nobody fails, nobody stands in another's way for long.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from backfill.errors import MigrationError
from backfill.storage.connection import Connection, connect
from backfill.storage.schema import state as schema_module
from backfill.storage.schema import steps
from backfill.storage.schema.migrate import MigrationReport, migrate
from backfill.storage.schema.steps import Migration, migrations, newest
from backfill.storage.statements import render
from contract.catalog import catalogue, contract, differences
from contract.snapshot import Snapshot, snapshot

from plugins.schemas import install
from plugins.waiting import Eventually
from programs import shell
from reading import rows, value

SCHEMA = "graphile_worker"
MANY = 20
Pretend = Callable[[tuple[Migration, ...]], None]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretend]:
    """Have the package know other migrations than it does, as an older or a newer version would."""

    def pretend(there: tuple[Migration, ...]) -> None:
        monkeypatch.setattr(steps, "migrations", lambda: there)
        monkeypatch.setattr(schema_module, "migrations", lambda: there)

    return pretend


async def up(dsn: str, schema: str = SCHEMA, **keywords: timedelta) -> MigrationReport:
    """Migrate on a connection of its own."""
    async with await connect(dsn, application_name="migrator") as connection:
        return await migrate(connection, schema=schema, **keywords)


@asynccontextmanager
async def open_transaction(dsn: str) -> AsyncIterator[Connection]:
    """A transaction that has written to the jobs' table and does not end: indexes made concurrently wait for it."""
    async with await psycopg.AsyncConnection.connect(dsn, application_name="holder") as connection:
        await connection.execute("select graphile_worker.add_job('held')")
        yield connection
        await connection.rollback()


async def slowest_insert(dsn: str, stop: asyncio.Event, started: asyncio.Event) -> float:
    """Add job after job until told to stop: how long the slowest took, in seconds."""
    slowest = 0.0
    async with await connect(dsn, application_name="producer") as connection:
        while not stop.is_set():
            began = time.monotonic()
            await connection.execute("select graphile_worker.add_job('busy', queue_name => 'q')")
            slowest = max(slowest, time.monotonic() - began)
            started.set()
    return slowest


async def test_twenty_connections_on_an_empty_database(empty_dsn: str, fresh: Snapshot) -> None:
    """One of them does it all, the others find it done, and none fails."""
    reports = await asyncio.gather(*(up(empty_dsn) for _ in range(MANY)))
    assert sorted(len(report.applied) for report in reports) == [*[0] * (MANY - 1), newest()]
    assert {report.version for report in reports} == {newest()}
    assert snapshot(empty_dsn, SCHEMA) == fresh


def test_twenty_processes_on_an_empty_database(empty_dsn: str) -> None:
    """The same from the shell: each ends well, and the schema is the contract's."""
    running = [
        subprocess.Popen(
            shell("migrate", "--dsn", empty_dsn), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(MANY)
    ]
    ended = [(process.communicate(timeout=120), process.returncode) for process in running]
    assert {(returncode, stderr) for (_, stderr), returncode in ended} == {(0, "")}
    done = f"schema 'graphile_worker': {newest()} migrations applied; it is at {newest()}\n"
    found = f"schema 'graphile_worker' is up to date: migration {newest()}\n"
    assert Counter(stdout for (stdout, _), _ in ended) == {done: 1, found: MANY - 1}
    assert differences(catalogue(empty_dsn, SCHEMA), contract()) == []


@pytest.mark.parametrize("last", [6, 7, 9])
async def test_twenty_connections_on_an_earlier_state_of_a_busy_queue(
    empty_dsn: str, fresh: Snapshot, known: Pretend, eventually: Eventually, last: int
) -> None:
    """An open transaction holds up the index, and only that.

    Producers go on, and no migrator waits for a lock of ours.
    """
    everything = migrations()
    known(everything[:last])
    await up(empty_dsn)
    known(everything)
    stop, started = asyncio.Event(), asyncio.Event()
    producing = asyncio.create_task(slowest_insert(empty_dsn, stop, started))
    async with open_transaction(empty_dsn):
        migrators = [asyncio.create_task(up(empty_dsn)) for _ in range(MANY)]
        await eventually(lambda: value(empty_dsn, BUILDING))
        await eventually(lambda: value(empty_dsn, ALL_THERE), lambda found: found == MANY)
        for _ in range(20):
            assert await rows(empty_dsn, WAITING_FOR_ADVICE) == []
            assert await value(empty_dsn, WAITING) <= 1
        started.clear()
        await asyncio.wait_for(started.wait(), 20)
        assert not any(migrator.done() for migrator in migrators)
    reports = await asyncio.gather(*migrators)
    stop.set()
    assert await producing < 5.0
    assert sorted(len(report.applied) for report in reports) == [*[0] * (MANY - 1), newest() - last]
    assert snapshot(empty_dsn, SCHEMA) == fresh


BUILDING = """
select exists (
  select from pg_stat_progress_create_index
  where command = 'CREATE INDEX CONCURRENTLY' and phase like 'waiting%'
)
"""
ALL_THERE = "select count(*) from pg_stat_activity where application_name = 'migrator' and datname = current_database()"
WAITING_FOR_ADVICE = """
select pid, query from pg_stat_activity where datname = current_database() and wait_event = 'advisory'
"""
WAITING = """
select count(*) from pg_stat_activity
where datname = current_database() and application_name = 'migrator' and wait_event_type = 'Lock'
"""


async def test_a_table_lock_is_asked_for_in_short_turns(dsn: str, known: Pretend, eventually: Eventually) -> None:
    """A migration that must lock the jobs' table gives up soon behind a long reader, so that producers get through."""
    change = Migration(
        newest() + 1,
        "later",
        'alter table :"schema"._private_jobs alter column priority set default 0',
        "",
        False,
        True,
        None,
        False,
    )
    known((*migrations(), change))
    stop, started = asyncio.Event(), asyncio.Event()
    async with await psycopg.AsyncConnection.connect(dsn, application_name="reader") as reader:
        await reader.execute("select count(*) from graphile_worker._private_jobs")
        migrators = [asyncio.create_task(up(dsn)) for _ in range(MANY)]
        await eventually(lambda: value(dsn, WAITING))
        producing = asyncio.create_task(slowest_insert(dsn, stop, started))
        for _ in range(3):  # three turns of the migrator's, and the producer between them
            await eventually(lambda: value(dsn, WAITING), lambda waiting: waiting == 1)
            await eventually(lambda: value(dsn, WAITING), lambda waiting: waiting == 0)
            started.clear()
            await asyncio.wait_for(started.wait(), 20)
        assert not any(migrator.done() for migrator in migrators)
        await reader.rollback()
    reports = await asyncio.gather(*migrators)
    stop.set()
    assert await producing < 4.0
    assert sum(len(report.applied) for report in reports) == 1


async def test_two_schemas_of_one_database_at_once(empty_dsn: str, fresh: Snapshot, known: Pretend) -> None:
    """Indexes made concurrently in one schema and in another do not stop each other."""
    everything, names = migrations(), [f"tenant {number}" for number in range(4)]
    known(everything[:7])
    await asyncio.gather(*(up(empty_dsn, name) for name in names))
    known(everything)
    reports = await asyncio.gather(*(up(empty_dsn, name) for name in names for _ in range(2)))
    assert sum(len(report.applied) for report in reports) == len(names) * (newest() - 7)
    for name in names:
        assert snapshot(empty_dsn, name) == fresh


async def test_a_migrator_that_never_ends_is_not_waited_for_for_ever(empty_dsn: str) -> None:
    """Who holds the lock is waited for as long as the caller said; then one error says what to do."""
    async with await connect(empty_dsn) as other:
        await other.execute(render("try_migration_lock"), [SCHEMA])
        with pytest.raises(
            MigrationError, match=r"in the time given \(another process is migrating it\); run it again"
        ):
            await up(empty_dsn, lock_wait=timedelta(seconds=0.3))
        assert (await up(empty_dsn, "another")).version == newest()


async def test_a_migrator_that_is_cancelled_leaves_the_way_free(
    dsn: str, fresh: Snapshot, eventually: Eventually
) -> None:
    """Cancelled in the middle of an index, it gives up its lock and its timeouts; the next one makes the index anew."""
    async with await connect(dsn, application_name="migrator") as connection:
        await connection.execute("drop index graphile_worker.backfill_jobs_locked")
        await connection.execute("delete from graphile_worker.backfill_migrations where name = 'locked_index'")
        async with open_transaction(dsn):
            task = asyncio.create_task(migrate(connection, schema=SCHEMA))
            await eventually(lambda: value(dsn, BUILDING))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        setting = await (await connection.execute("select current_setting('lock_timeout')")).fetchone()
        assert setting == ("0",)
        assert await value(dsn, "select count(*) from pg_locks where locktype = 'advisory'") == 0
        assert len((await up(dsn)).applied) == 1
    assert snapshot(dsn, SCHEMA) == fresh


@pytest.mark.parametrize("first", ["backfill", "graphile-worker", "nobody"])
async def test_graphile_worker_migrates_at_the_same_time(
    empty_dsn: str, node_modules: Path, eventually: Eventually, first: str
) -> None:
    """Whoever of the two comes first on an empty database, both end well, and the contract holds."""
    node = asyncio.create_task(asyncio.to_thread(install, node_modules, empty_dsn))
    if first == "nobody":
        await eventually(lambda: value(empty_dsn, SOMEBODY_ELSE))
    elif first == "graphile-worker":
        await eventually(lambda: value(empty_dsn, ITS_LEDGER))
    reports = await asyncio.gather(*(up(empty_dsn) for _ in range(3)))
    await node
    assert {report.version for report in reports} == {newest()}
    assert differences(catalogue(empty_dsn, SCHEMA), contract()) == []


SOMEBODY_ELSE = """
select exists (select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid())
"""
ITS_LEDGER = "select to_regclass('graphile_worker.migrations') is not null"
