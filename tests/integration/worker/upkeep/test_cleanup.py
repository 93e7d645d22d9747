"""Cleanup of locks: whose are released, from which age on, and what becomes of jobs and queues."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, LiteralString, cast

import psycopg
import psycopg_pool
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import (
    BackfillClient,
    ConfigurationError,
    InvalidJobError,
    Queue,
    StartupCleanup,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.client.cleanup import ReleasedLocks
from backfill.client.lent import ServicesClient

from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
WORKERS = "graphile_worker.backfill_workers"
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NODE, OURS, GONE = "worker-0123456789", "backfill_0123456789abcdef00", "backfill_fedcba987654321000"
ROW: LiteralString = f"""
    insert into {WORKERS} (id, host, pid, heartbeat_at, given_up_at, protocol, version)
    values (%s, 'there', 7, now() - %s, now() - %s::interval, 1, '0')"""
ENGINE: LiteralString = """
    create table if not exists graphile_worker._private_workers (
      id text primary key, last_heartbeat_at timestamptz not null default now(), started_at timestamptz default now(),
      metadata jsonb)"""
BEATEN: LiteralString = "insert into graphile_worker._private_workers (id, last_heartbeat_at) values (%s, now() - %s)"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client."""
    async with ServicesClient(dsn) as one:
        yield one


@pytest.fixture
async def _old_server(dsn: str, eventually: Eventually) -> None:
    """A server that has run for longer than workers may be silent: before, it may be the one that was."""
    await eventually(lambda: value(dsn, "select pg_postmaster_start_time() < now() - interval '21 seconds'"))


async def hold(dsn: str, client: BackfillClient, holder: str | None, age: timedelta, queue: str | None = None) -> int:
    """A job that a holder has had locked for so long, and its queue with it."""
    lane = Queue.parallel() if queue is None else Queue.serial(queue)
    job = await client.enqueue("t", queue=lane)
    locked: LiteralString = "set locked_by = %s, locked_at = now() - %s, updated_at = now() - interval '9 hours'"
    await rows(dsn, f"update {JOBS} {locked}, attempts = 1 where id = %s", holder, age, job.id)
    if queue is not None:
        await lock_queue(dsn, queue, holder, age)
    return job.id


async def lock_queue(dsn: str, queue: str, holder: str | None, age: timedelta) -> None:
    """Lock a queue, which is made."""
    await rows(dsn, f"insert into {QUEUES} (queue_name) values (%s) on conflict do nothing", queue)
    locked: LiteralString = f"update {QUEUES} set locked_by = %s, locked_at = now() - %s where queue_name = %s"
    await rows(dsn, locked, holder, age, queue)


def idle() -> TaskRegistry[None]:
    """A task of which no job comes."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("idle")
    async def handler() -> None: ...

    return tasks


async def locked(dsn: str) -> tuple[set[int], set[str]]:
    """The jobs and the queues that are locked."""
    jobs = await rows(dsn, f"select id from {JOBS} where locked_at is not null")
    queues = await rows(dsn, f"select queue_name from {QUEUES} where locked_at is not null")
    return {row[0] for row in jobs}, {row[0] for row in queues}


@pytest.mark.leaves_rows
@pytest.mark.parametrize("age", [6 * MINUTE, 10 * HOUR])
async def test_a_live_worker_of_ours_keeps_what_it_has(dsn: str, client: ServicesClient, age: timedelta) -> None:
    """Whatever the age: it has a row with a fresh heartbeat. The worker's own cleanup spares it as well."""
    await rows(dsn, ROW, OURS, timedelta(seconds=10), None)
    job = await hold(dsn, client, OURS, age, "q")
    await lock_queue(dsn, "empty", OURS, age)
    assert await client.release_stale_queue_locks() == 0
    assert await client.release_stale_job_locks(timedelta(0)) == 0
    assert await client.startup_cleanup() == StartupCleanup(0, 0, 0)
    assert await client.release_foreign_locks(queues=4 * HOUR, jobs=4 * HOUR) == ReleasedLocks(0, 0)
    assert await locked(dsn) == ({job}, {"q", "empty"})


async def test_a_job_that_runs_is_never_run_beside_itself(dsn: str, eventually: Eventually) -> None:
    """A real worker in the midst of a serial job whose lock is set back six minutes; the next of its queue waits on."""
    tasks: TaskRegistry[None] = TaskRegistry()
    began, release = list[int](), asyncio.Event()

    @tasks.task("t")
    async def handler(number: int) -> None:
        began.append(number)
        await release.wait()

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), tasks):
        for number in range(2):
            await client.enqueue(handler.job(number), queue=Queue.serial("q"))
        await eventually(lambda: began == [0])
        for table in (JOBS, QUEUES):
            moved = cast("LiteralString", f"update {table} set locked_at = locked_at - interval '6 minutes'")
            await rows(dsn, f"{moved} where locked_at is not null")
        assert await client.startup_cleanup(5 * MINUTE, 5 * MINUTE) == StartupCleanup(0, 0, 0)
        for table in (JOBS, QUEUES):
            moved = cast("LiteralString", f"update {table} set locked_at = locked_at + interval '6 minutes'")
            await rows(dsn, f"{moved} where locked_at is not null")
        assert began == [0]
        release.set()
        await eventually(lambda: began == [0, 1])
        await eventually(lambda: locked(dsn), lambda found: found == (set(), set()))


@pytest.mark.usefixtures("_old_server")
@pytest.mark.parametrize(("silent", "given_up"), [(HOUR, None), (timedelta(0), timedelta(0))])
async def test_a_dead_worker_of_ours_is_recovered(
    dsn: str, client: BackfillClient, silent: timedelta, given_up: timedelta | None
) -> None:
    """Silent or given up: what it held is free again, whatever its age, as soon as one of its locks is old enough."""
    await rows(dsn, ROW, OURS, silent, given_up)
    await hold(dsn, client, OURS, 6 * MINUTE, "q")
    young = await hold(dsn, client, OURS, MINUTE, "r")
    await lock_queue(dsn, "empty", OURS, MINUTE)
    assert await client.release_stale_job_locks() == 0
    assert await client.release_stale_job_locks(5 * MINUTE) == 2
    assert await locked(dsn) == (set(), set())
    assert await rows(dsn, f"select id from {WORKERS}") == []
    job = await client.get_job(young)
    assert job is not None
    assert job.attempts == 1
    assert (job.last_error or "").startswith(f"WorkerDied: its worker {OURS} (there, process 7) died")


@pytest.mark.usefixtures("_old_server")
async def test_a_dead_workers_queues_are_counted(dsn: str, client: BackfillClient) -> None:
    """Those with a job, and those without."""
    await rows(dsn, ROW, OURS, HOUR, None)
    await hold(dsn, client, OURS, 6 * MINUTE, "q")
    await lock_queue(dsn, "empty", OURS, 6 * MINUTE)
    assert await client.release_stale_queue_locks() == 2
    assert await locked(dsn) == (set(), set())


@pytest.mark.leaves_rows
async def test_locks_under_an_id_without_a_row_are_recovered(dsn: str, client: BackfillClient) -> None:
    """Once they are older than the dead time; the attempt counts, and one whose last it was is a dead letter."""
    first = await hold(dsn, client, GONE, timedelta(seconds=30), "q")
    last = await hold(dsn, client, GONE, timedelta(seconds=30))
    other = await hold(dsn, client, "backfill_just_now", timedelta(seconds=5), "r")
    await lock_queue(dsn, "empty", GONE, timedelta(seconds=30))
    await rows(dsn, f"update {JOBS} set max_attempts = 1 where id = %s", last)
    [done] = await client.recover_abandoned()
    assert (done.worker_id, done.jobs, done.queues, done.dead_letters) == (GONE, 2, 2, 1)
    assert await client.recover_abandoned() == []
    assert await locked(dsn) == ({other}, {"r"})
    left = await rows(dsn, f"select id, attempts, last_error from {JOBS} where locked_at is null")
    assert left == [(first, 1, f"WorkerDied: its worker {GONE} is gone")]
    [entry] = (await client.list_dlq_jobs()).jobs
    assert (entry.original_job_id, entry.error_type) == (last, "WorkerDied")


async def test_holders_that_nobody_knows_go_by_age(dsn: str, client: BackfillClient) -> None:
    """Node's, and locks without an owner: by the age that is given; the queue goes with its job, and never before."""
    old = await hold(dsn, client, NODE, 31 * MINUTE, "q")
    young = await hold(dsn, client, NODE, 29 * MINUTE, "r")
    nobodys = await hold(dsn, client, None, 31 * MINUTE, "s")
    await lock_queue(dsn, "empty", NODE, 6 * MINUTE)
    await lock_queue(dsn, "nobody's", None, 6 * MINUTE)
    await lock_queue(dsn, "new", NODE, 4 * MINUTE)
    assert await client.release_stale_queue_locks() == 2
    assert await locked(dsn) == ({old, young, nobodys}, {"q", "r", "s", "new"})
    assert await client.release_stale_job_locks() == 2
    assert await locked(dsn) == ({young}, {"r", "new"})
    assert await client.startup_cleanup(MINUTE, 15 * MINUTE) == StartupCleanup(2, 1, 0)
    assert await locked(dsn) == (set(), set())
    assert await value(dsn, f"select count(*) from {JOBS} where attempts = 1 and is_available") == 3


async def test_the_contracts_four_hours(dsn: str, client: BackfillClient, eventually: Eventually) -> None:
    """A worker releases Node's locks at its start and later, from four hours on and not before, and abandoned ones."""
    before = await hold(dsn, client, NODE, 4 * HOUR - 2 * MINUTE, "q")
    await hold(dsn, client, NODE, 4 * HOUR + MINUTE, "r")
    await hold(dsn, client, GONE, MINUTE, "s")
    await lock_queue(dsn, "before", NODE, 4 * HOUR - 2 * MINUTE)
    await lock_queue(dsn, "after", NODE, 4 * HOUR + MINUTE)
    await lock_queue(dsn, "gone", GONE, MINUTE)
    config = WorkerConfig(dsn, stale_lock_cleanup_interval=timedelta(seconds=1))
    async with WorkerRunner(config, idle()):
        await eventually(lambda: locked(dsn), lambda found: found == ({before}, {"q", "before"}))
        later = await hold(dsn, client, NODE, 5 * HOUR)
        await eventually(lambda: locked(dsn), lambda found: later not in found[0])
        assert await locked(dsn) == ({before}, {"q", "before"})


async def test_a_worker_may_leave_it_to_others(dsn: str, client: BackfillClient) -> None:
    """With an interval of None there is no such part; with one, there is."""
    for interval, there in ((None, False), (MINUTE, True)):
        async with WorkerRunner(WorkerConfig(dsn, stale_lock_cleanup_interval=interval), idle()) as runner:
            assert runner._parts is not None
            assert ("cleaner" in [service.name for service in runner._parts.services]) is there


async def test_one_worker_at_a_time(dsn: str, client: ServicesClient) -> None:
    """Who finds another at it does nothing; an explicit call does not ask."""
    await hold(dsn, client, NODE, 5 * HOUR, "q")
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("select graphile_worker.backfill_try_lock('cleanup', 60000)")
        ages = {"queues": 4 * HOUR, "jobs": 4 * HOUR}
        assert await client.release_foreign_locks(**ages, alone=True) == ReleasedLocks(0, 0)
        assert await client.release_foreign_locks(**ages) == ReleasedLocks(1, 1)


async def test_the_engines_live_workers_are_spared(dsn: str, client: BackfillClient) -> None:
    """Whoever has beaten in its table within 5 minutes; a stale row spares nobody, nor does none."""
    await rows(dsn, ENGINE)
    alive, stale = "graphile_worker_alive", "graphile_worker_stale"
    await rows(dsn, BEATEN, alive, 4 * MINUTE)
    await rows(dsn, BEATEN, stale, 6 * MINUTE)
    job = await hold(dsn, client, alive, 5 * HOUR, "q")
    await lock_queue(dsn, "empty", alive, 5 * HOUR)
    for holder in (stale, NODE):
        await hold(dsn, client, holder, 5 * HOUR, holder)
    assert await client.startup_cleanup() == StartupCleanup(2, 2, 0)
    assert await locked(dsn) == ({job}, {"q", "empty"})


async def test_a_queue_goes_only_with_its_job(dsn: str, client: BackfillClient) -> None:
    """It stays while a job of it is locked, by whomever; a job's release leaves a queue alone that another has."""
    await rows(dsn, ROW, OURS, timedelta(0), None)
    spared = await hold(dsn, client, OURS, HOUR, "q")
    await lock_queue(dsn, "q", NODE, 5 * HOUR)
    await hold(dsn, client, NODE, 5 * HOUR, "r")
    await lock_queue(dsn, "r", OURS, HOUR)
    assert await client.startup_cleanup() == StartupCleanup(0, 1, 0)
    assert await locked(dsn) == ({spared}, {"q", "r"})
    await rows(dsn, f"delete from {JOBS}")
    assert await client.release_stale_queue_locks() == 1
    assert await locked(dsn) == (set(), {"r"})
    await rows(dsn, f"update {QUEUES} set locked_by = null, locked_at = null")


async def test_what_comes_of_released_jobs(dsn: str, client: BackfillClient) -> None:
    """One with attempts left waits; one without is a dead letter, and says if it may have been replaced or removed."""
    first = await hold(dsn, client, NODE, HOUR)
    last = await hold(dsn, client, NODE, HOUR, "q")
    doubtful = await hold(dsn, client, NODE, HOUR, "r")
    await rows(dsn, f"update {JOBS} set attempts = max_attempts where id = any (%s)", [last, doubtful])
    await rows(dsn, f"update {JOBS} set updated_at = now() where id = %s", doubtful)
    assert await client.startup_cleanup() == StartupCleanup(2, 3, 1)
    assert await rows(dsn, f"select id, is_available from {JOBS}") == [(first, True)]
    found = {one.original_job_id: one.failure_reason[:11] for one in (await client.list_dlq_jobs()).jobs}
    assert found == {last: "given up by", doubtful: "left locked"}
    assert await client.cleanup_permanently_failed_jobs() == 0


async def test_jobs_and_queues_that_somebody_is_at_are_passed_over(dsn: str, client: BackfillClient) -> None:
    """Nobody is waited for, and a job stays locked whose queue could not be unlocked with it."""
    jobs = [await hold(dsn, client, NODE, HOUR, name) for name in ("q", "r", "s")]
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute(f"select from {JOBS} where id = %s for update", [jobs[0]])
        await other.execute(f"select from {QUEUES} where queue_name = 'r' for update")
        assert await client.release_stale_job_locks() == 1
    assert await locked(dsn) == (set(jobs[:2]), {"q", "r"})
    assert await client.release_stale_job_locks() == 2
    assert await locked(dsn) == (set(), set())


async def test_many_locks_go_in_pages(dsn: str, client: BackfillClient) -> None:
    """More than a page of jobs and of queues."""
    for number in range(3):
        await client.enqueue_bulk("t", range(400), queue=Queue.serial(f"q{number}"))
    await rows(dsn, f"update {JOBS} set locked_by = %s, locked_at = now() - interval '1 hour'", NODE)
    await rows(dsn, f"update {QUEUES} set locked_by = %s, locked_at = now() - interval '1 hour'", NODE)
    assert await client.startup_cleanup() == StartupCleanup(3, 1200, 0)
    assert await locked(dsn) == (set(), set())


@pytest.mark.usefixtures("_old_server")
async def test_a_pool_of_the_callers_will_do(dsn: str, client: BackfillClient) -> None:
    """With other placeholders, and transactions that begin by themselves; it is left as it was."""
    await rows(dsn, ROW, OURS, HOUR, None)
    for holder in (OURS, GONE, NODE):
        await hold(dsn, client, holder, HOUR, holder)
    options = {"options": "-c default_transaction_isolation=serializable"}
    async with psycopg_pool.AsyncConnectionPool(dsn, kwargs=options, min_size=1, max_size=1, open=False) as pool:
        async with BackfillClient(pool=pool) as other:
            assert await other.startup_cleanup() == StartupCleanup(3, 3, 0)
            assert await other.collect_queues() == 0
        async with pool.connection() as connection:
            assert (connection.autocommit, connection.isolation_level) == (False, None)
            cursor = await connection.execute("select %s", [1])
            assert await cursor.fetchone() == (1,)


@pytest.mark.parametrize("wrong", [None, 5, timedelta(seconds=-1), timedelta(days=40_000)])
async def test_ages_that_are_none(wrong: Any) -> None:
    """Refused by name before anything is connected."""
    client = BackfillClient("host=nowhere")
    with pytest.raises(InvalidJobError, match=r"^older_than = "):
        await client.release_stale_queue_locks(wrong)
    with pytest.raises(InvalidJobError, match=r"^older_than = "):
        await client.release_stale_job_locks(wrong)
    with pytest.raises(InvalidJobError, match=r"^queue_timeout = "):
        await client.startup_cleanup(wrong)
    with pytest.raises(InvalidJobError, match=r"^job_timeout = "):
        await client.startup_cleanup(job_timeout=wrong)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("stale_lock_cleanup_interval", timedelta(milliseconds=1)),
        ("stale_queue_lock_timeout", None),
        ("stale_job_lock_timeout", timedelta(days=400)),
    ],
)
def test_settings_that_cannot_be_used(field: str, wrong: Any) -> None:
    """Refused by name."""
    with pytest.raises(ConfigurationError, match=f"^WorkerConfig.{field} = "):
        WorkerConfig(**{field: wrong})


async def test_short_ages_are_warned_of(client: BackfillClient, caplog: pytest.LogCaptureFixture) -> None:
    """A queue's under a minute, a job's under a quarter of an hour, and louder under five minutes."""
    with caplog.at_level(logging.WARNING, "backfill.client.cleanup"):
        await client.startup_cleanup(MINUTE, 15 * MINUTE)
        assert caplog.records == []
        await client.startup_cleanup(MINUTE / 2, 14 * MINUTE)
        await client.release_stale_job_locks(4 * MINUTE)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR"]


HOLDERS = st.sampled_from([NODE, "graphile_worker_alive", OURS, GONE, None])
AGES = st.sampled_from([timedelta(seconds=5), 3 * MINUTE, 20 * MINUTE, HOUR])
LOCK = st.none() | st.tuples(HOLDERS, AGES)
STATES = st.lists(st.tuples(LOCK, st.lists(LOCK, max_size=2)), min_size=1, max_size=4)


@pytest.mark.leaves_rows
@settings(max_examples=settings.default.max_examples // 3)
@given(state=STATES, queue_age=AGES, job_age=AGES)
async def test_whatever_is_locked_by_whomever(
    dsn: str, state: list[tuple[Any, list[Any]]], queue_age: timedelta, job_age: timedelta
) -> None:
    """The living keep all; the dead nothing that is old enough; no queue is unlocked while a job of it is locked."""
    await rows(dsn, f"truncate {JOBS}, {QUEUES}, {WORKERS}")
    await rows(dsn, f"drop table if exists graphile_worker._private_workers; {ENGINE}")
    await rows(dsn, ROW, OURS, timedelta(0), None)
    await rows(dsn, BEATEN, "graphile_worker_alive", timedelta(0))
    async with BackfillClient(dsn) as client:
        for number, (lock, jobs) in enumerate(state):
            for job in jobs:
                if job is None:
                    await client.enqueue("t", queue=Queue.serial(f"q{number}"))
                else:
                    await hold(dsn, client, *job, f"q{number}")
            await lock_queue(dsn, f"q{number}", *(lock or (None, timedelta(0))))
            if lock is None:
                await rows(dsn, f"update {QUEUES} set locked_at = null where queue_name = %s", f"q{number}")
        seen: LiteralString = f"select id, locked_by, now() - locked_at from {JOBS} where locked_at is not null"
        before = await rows(dsn, seen)
        queues: LiteralString = f"select queue_name, locked_by from {QUEUES} where locked_at is not null"
        queues_before = await rows(dsn, queues)
        await client.startup_cleanup(queue_age, job_age)
        left, queues_left = {row[0] for row in await rows(dsn, seen)}, await rows(dsn, queues)
        busy = {row[0] for row in await rows(dsn, f"select queue_name from {QUEUES} as q where exists "
            f"(select from {JOBS} as j where j.job_queue_id = q.id and j.locked_at is not null)")}  # fmt: skip
    alive = {OURS, "graphile_worker_alive"}
    recovered = any(holder == GONE and age > timedelta(seconds=20) for _, holder, age in before)  # then whole
    for id_, holder, age in before:
        gone = recovered if holder == GONE else holder not in alive and age > job_age
        assert (id_ not in left) is gone, (holder, age)
    for name, holder in queues_before:
        if (name, holder) not in queues_left:
            assert holder not in alive
            assert name not in busy
