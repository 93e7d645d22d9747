"""What one process at a time may do: strangers cannot keep it from being done, nor a stopped process for long."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from backfill import (
    BackfillClient,
    JobKeyMode,
    JobSpec,
    MigrationError,
    NewJob,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.client.lent import ServicesClient
from backfill.storage.attempts import await_predecessor
from backfill.storage.connection import connect
from backfill.storage.schema.migrate import migrate
from stopped import DEAD_AFTER

from places import TESTS
from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
DEAD = "backfill_dead"
HOUR = timedelta(hours=1)
OLDER = ("backfill.keys:", "backfill recovery ", "backfill cleanup ", "backfill.worker:")
"""The texts from which older versions made the advisory locks that they went by."""


async def _dead_worker(dsn: str) -> None:
    """A worker that was given up, with two jobs locked."""
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk("t", [1, 2])
    await rows(dsn, f"update {JOBS} set locked_at = now(), locked_by = %s, attempts = 1", DEAD)
    await rows(
        dsn,
        """insert into graphile_worker.backfill_workers (id, host, pid, protocol, version, heartbeat_at, given_up_at)
        values (%s, 'host', 1, 2, '0', now() - interval '1 hour', now())""",
        DEAD,
    )


@pytest.fixture
async def stranger(dsn: str, role: NewRole) -> AsyncIterator[psycopg.AsyncConnection]:
    """A role that may connect, and has taken every advisory lock that the queue ever went by."""
    async with await psycopg.AsyncConnection.connect(role(None), autocommit=True) as connection:
        for text in OLDER:
            for name in ("graphile_worker", DEAD):
                await connection.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [text + name])
        ends = "select pg_advisory_lock(hashtextextended('backfill_ends', relid)) from (values (%s)) as ends (relid)"
        [(relid,)] = await rows(dsn, "select 'graphile_worker.backfill_ends'::regclass::oid::bigint")
        await connection.execute(ends, [relid])
        yield connection


@pytest.mark.usefixtures("stranger")
async def test_strangers_hold_up_nothing(dsn: str) -> None:
    """Keyed bulk calls in several statements, recovery, cleanup and the partitions of ends go on."""
    await _dead_worker(dsn)
    modes = [NewJob("t", None, JobSpec(job_key=f"key {mode}", job_key_mode=mode)) for mode in JobKeyMode]
    async with asyncio.timeout(30), ServicesClient(dsn) as client:
        assert (await client.enqueue_bulk(modes)).written == 3
        done = await client.recover_worker(DEAD, 0)
        assert done is not None
        assert (done.jobs, done.complete) == (2, True)
        await client.release_foreign_locks(queues=HOUR, jobs=HOUR, alone=True)
        assert (await client.tend_ends([HOUR]))[0] == 3


async def test_no_function_and_no_statement_goes_by_advisory_locks(dsn: str) -> None:
    """But the one of migrations, which may run where there is no table yet; whoever waits for that is named."""
    found = await rows(
        dsn,
        """select proname from pg_proc
        where pronamespace = 'graphile_worker'::regnamespace and prosrc ~ 'advisory'""",
    )
    assert found == []
    folder = Path(sys.modules["backfill"].__file__ or "").parent / "storage" / "sql"
    taking = re.compile(r"pg_(try_)?advisory")
    named = {path.stem for path in folder.rglob("*.sql") if taking.search(path.read_text())}
    assert named == {"release_migration_lock", "try_migration_lock"}


async def test_turns_are_taken_where_their_rows_are_missing(dsn: str) -> None:
    """A schema may have been restored without what its tables had in them."""
    await rows(dsn, "delete from graphile_worker.backfill_turns")
    assert await value(dsn, "select (graphile_worker.backfill_say('limit', 'task:t', '{\"most\": 1}')).kind") == "limit"
    assert await value(dsn, "select made from graphile_worker.backfill_lock_state('t', '')") == 0
    found = await rows(dsn, "select split_part(name, ' ', 1) from graphile_worker.backfill_turns order by name")
    assert found == [("control",), ("limits",), ("state",)]


async def test_who_may_not_wait_for_a_turn_goes_without(dsn: str) -> None:
    """Another transaction makes a state; the same one is not made twice, and nobody waits for it."""
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("select graphile_worker.backfill_lock_state('t', 'a')")
        state = "select made from graphile_worker.backfill_lock_state('t', 'a')"
        assert await asyncio.wait_for(value(dsn, state), 5) is None
        await other.rollback()
    assert await value(dsn, state) == 0


async def test_who_keeps_a_migration_waiting_is_named(
    empty_dsn: str, role: NewRole, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log while it waits, and in the error once its time is up."""
    monkeypatch.setattr("backfill.storage.schema.turn._TOLD_AFTER", 0.0)
    async with await psycopg.AsyncConnection.connect(empty_dsn, autocommit=True) as holder:
        await holder.execute("set application_name = 'somebody'")
        await holder.execute("select pg_advisory_lock(hashtextextended('backfill.migrate:graphile_worker', 0))")
        said = f"server process {holder.info.backend_pid} .role '{holder.info.user}', program 'somebody'. has the lock"
        async with await connect(empty_dsn) as connection:
            with caplog.at_level(logging.WARNING), pytest.raises(MigrationError, match=said):
                await migrate(connection, lock_wait=timedelta(seconds=0.5))
    [record] = [record for record in caplog.records if "waiting to migrate" in record.getMessage()]
    assert "has the lock" in record.getMessage()


async def test_one_recovers_at_a_time(dsn: str) -> None:
    """Who finds another at it leaves it alone; a lock goes with its transaction."""
    await _dead_worker(dsn)
    async with BackfillClient(dsn) as client:
        async with await psycopg.AsyncConnection.connect(dsn) as other:
            await other.execute("select graphile_worker.backfill_try_lock('recovery', 60000)")
            done = await client.recover_worker(DEAD, 0)
            assert done is not None
            assert (done.jobs, done.complete) == (0, False)
        done = await client.recover_worker(DEAD, 0)
        assert done is not None
        assert (done.jobs, done.complete) == (2, True)


async def test_a_worker_that_is_stopped_while_it_recovers(dsn: str, eventually: Eventually) -> None:
    """The server ends its transaction, so that others recover within the time after which a worker counts as dead."""
    await _dead_worker(dsn)
    program = TESTS / "stopped.py"
    stopped = await asyncio.create_subprocess_exec(
        sys.executable, program, dsn, DEAD, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert stopped.stdout is not None
        assert await stopped.stdout.readline() == b"stopping\n"
        begun = time.monotonic()
        async with BackfillClient(dsn) as client:

            async def recovered() -> bool:
                done = await client.recover_worker(DEAD, 0)
                return done is None or done.complete

            await eventually(recovered, timeout=3 * DEAD_AFTER.total_seconds())
        assert time.monotonic() - begun < 3 * DEAD_AFTER.total_seconds()
    finally:
        stopped.kill()
        await stopped.wait()
    assert await value(dsn, f"select count(*) from {JOBS} where locked_at is null and attempts = 1") == 2


async def test_a_cleanup_that_is_left_idle_is_ended(dsn: str) -> None:
    """The lock itself sets for how long its transaction may do nothing."""
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        taken = await other.execute("select graphile_worker.backfill_try_lock('cleanup', 100)")
        assert await taken.fetchone() == (True,)
        shown = await other.execute("show idle_in_transaction_session_timeout")
        assert await shown.fetchone() == ("100ms",)
        await other.rollback()
        shown = await other.execute("show idle_in_transaction_session_timeout")
        assert await shown.fetchone() == ("0",)


async def test_strangers_pass_for_no_predecessor(dsn: str, role: NewRole) -> None:
    """A session of another role may call itself what it likes: a worker does not wait for it."""
    async with await psycopg.AsyncConnection.connect(role(None)) as other, await connect(dsn) as own:
        await other.execute("set application_name = 'backfill transaction of w'")
        async with asyncio.timeout(10):
            await await_predecessor(own, "w")


async def test_a_worker_of_the_version_before_may_recover_beside(dsn: str) -> None:
    """It goes by an advisory lock, and knows nothing of the row: the rows of jobs themselves keep the two apart."""
    await _dead_worker(dsn)
    older = """with taken as (
              select pg_try_advisory_xact_lock(hashtextextended('backfill recovery graphile_worker', 0))
            )
        update graphile_worker._private_jobs set locked_at = null, locked_by = null, last_error = 'the older one'
        from taken where locked_by = %s returning id"""
    async with await psycopg.AsyncConnection.connect(dsn) as other, BackfillClient(dsn) as client:
        assert len(await (await other.execute(older, [DEAD])).fetchall()) == 2
        beside = await client.recover_worker(DEAD, 0)
        await other.commit()
        after = await client.recover_worker(DEAD, 0)
    assert beside is not None
    assert after is not None
    assert [(one.jobs, one.complete) for one in (beside, after)] == [(0, False), (0, True)]
    assert (
        await value(dsn, f"select count(*) from {JOBS} where last_error = 'the older one' and locked_at is null") == 2
    )


async def test_a_worker_works_while_strangers_hold_its_name(dsn: str, role: NewRole, eventually: Eventually) -> None:
    """Also where its sessions bear another name than its own, as they do behind a pooler."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[int] = []

    @tasks.task("t")
    async def handler(number: int) -> None:
        seen.append(number)

    named = make_conninfo(dsn, application_name="shared")
    config = WorkerConfig(named, poll_interval=timedelta(seconds=0.2))
    async with (
        await psycopg.AsyncConnection.connect(role(None), autocommit=True) as other,
        WorkerRunner(config, tasks) as runner,
    ):
        lock = "select pg_advisory_lock(hashtextextended(%s, 0))"
        await other.execute(lock, [f"backfill.worker:{runner.worker_id}"])
        async with BackfillClient(dsn) as client:
            await client.enqueue_bulk("t", range(20))
        await eventually(lambda: len(seen) == 20)
