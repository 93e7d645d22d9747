"""Held queues and what workers and operators clean up: dead workers, lost claims, stale locks, unused queues."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, Queue, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.storage.attempts import Attempt, give_back_strays
from backfill.storage.claims import LaneClaim, LaneFilter, Look
from backfill.storage.connection import connect
from backfill.storage.settlements import Settlement, settle
from backfill.storage.wire import Wire
from backfill.storage.workers import find_tasks
from backfill.worker.execution.endings import COMPLETED, GIVEN_BACK, Failed

from reading import rows, value

SCHEMA = "graphile_worker"
JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
HELD_ROWS = "graphile_worker.backfill_held_queues"
WORKER = "backfill_0123456789abcdef00"
CLAIM = LaneClaim(SCHEMA, (LaneFilter(tasks=("t",)),))
LANE = Queue.serial("lane", block_on_retry=True)
DUE = f"update {JOBS} set run_at = now() - interval '1 second'"
ROW: LiteralString = """
    insert into graphile_worker.backfill_workers (id, host, pid, heartbeat_at, protocol, version)
    values (%s, 'there', 7, now() - interval '1 hour', 3, '0')
    returning (extract(epoch from heartbeat_at) * 1000000)::bigint"""
AGED: LiteralString = f"update {QUEUES} set locked_at = now() - interval '3 hours' where queue_name = 'lane'"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def claim(wire: Wire) -> list[Attempt]:
    """Claim what is due."""
    ids = await find_tasks(wire.connection, ["t"], schema=SCHEMA)
    results = await wire.send(CLAIM.commands(Look(100), worker=WORKER, bound=CLAIM.bind(ids)), timeout=30)
    return [Attempt(job) for job in CLAIM.read(results, {number: name for name, number in ids.items()}).jobs]


async def end(wire: Wire, settlement: Settlement) -> None:
    """Write the ends of attempts."""
    assert await settle(wire, settlement, schema=SCHEMA, worker=WORKER) == set()


async def holder(dsn: str) -> Any:
    """Who has locked the queue."""
    return await value(dsn, f"select locked_by from {QUEUES} where queue_name = 'lane'")


async def test_a_job_given_back_holds_its_queue_only_if_it_began(dsn: str, client: BackfillClient) -> None:
    """Not where it was claimed ahead and never began; but where its handler began, or it held the queue before."""
    job = await client.enqueue("t", queue=LANE)
    retrying = f"backfill:retry:{job.id}"
    async with await connect(dsn) as connection:
        wire = Wire(connection)
        [attempt] = await claim(wire)
        await end(wire, Settlement([GIVEN_BACK.end(attempt, None)]))
        assert await holder(dsn) is None
        [attempt] = await claim(wire)
        attempt.handler_started = True
        await end(wire, Settlement([GIVEN_BACK.end(attempt, None)]))
        assert await holder(dsn) == retrying
        [attempt] = await claim(wire)
        await end(wire, Settlement([GIVEN_BACK.end(attempt, None)]))
        assert await holder(dsn) == retrying
        assert await value(dsn, f"select attempts from {JOBS}") == 0
        [attempt] = await claim(wire)
        await end(wire, Settlement([COMPLETED.end(attempt, None)]))
        assert await holder(dsn) is None
    await client.free_held_queues()
    assert await rows(dsn, f"select * from {HELD_ROWS}") == []


async def test_a_claim_whose_answer_was_lost_gives_the_queue_back_as_it_was(dsn: str, client: BackfillClient) -> None:
    """Free before a first attempt, held where the job held it before."""
    job = await client.enqueue("t", queue=LANE)
    async with await connect(dsn) as connection:
        wire = Wire(connection)
        await claim(wire)
        assert await give_back_strays(connection, schema=SCHEMA, worker=WORKER, held=[]) == ([job.id], [])
        assert await holder(dsn) is None
        await end(wire, Settlement(Failed("no", delay=0.0).end(attempt, None) for attempt in await claim(wire)))
        await claim(wire)
        assert await holder(dsn) == WORKER
        assert await give_back_strays(connection, schema=SCHEMA, worker=WORKER, held=[]) == ([job.id], [])
        assert await holder(dsn) == f"backfill:retry:{job.id}"


@pytest.mark.parametrize("attempts", [0, 1])
@pytest.mark.parametrize("has_row", [True, False])
async def test_a_dead_workers_queue_is_held_for_its_job(
    dsn: str, client: BackfillClient, has_row: bool, attempts: int
) -> None:
    """Whether it was the job's first attempt or a retry, and whether or not the worker still has a row."""
    job = await client.enqueue("t", queue=LANE)
    await client.enqueue("t", queue=LANE)
    async with await connect(dsn) as connection:
        wire = Wire(connection)
        for _ in range(attempts):
            await end(wire, Settlement(Failed("no", delay=0.0).end(attempt, None) for attempt in await claim(wire)))
        assert [attempt.job.id for attempt in await claim(wire)] == [job.id]
    if has_row:
        await client.recover_worker(WORKER, await value(dsn, ROW, WORKER))
    else:
        await client.recover_abandoned(gone_for=timedelta(0))
    assert await holder(dsn) == f"backfill:retry:{job.id}"
    assert await rows(dsn, f"select attempts from {JOBS} where id = %s", job.id) == [(attempts + 1,)]
    await rows(dsn, DUE)
    async with await connect(dsn) as connection:
        assert [attempt.job.id for attempt in await claim(Wire(connection))] == [job.id]
        await give_back_strays(connection, schema=SCHEMA, worker=WORKER, held=[])


async def test_a_dead_workers_last_attempt_frees_the_queue(dsn: str, client: BackfillClient) -> None:
    """The job is a dead letter then, and has ended."""
    await client.enqueue("t", queue=LANE, max_attempts=1)
    async with await connect(dsn) as connection:
        assert len(await claim(Wire(connection))) == 1
    await client.recover_abandoned(gone_for=timedelta(0))
    assert await holder(dsn) is None
    assert (await client.dlq_stats()).total_jobs == 1


@pytest.mark.parametrize("held_before", [True, False])
async def test_a_queue_that_another_program_left_locked_is_held_if_it_was(
    dsn: str, client: BackfillClient, held_before: bool
) -> None:
    """Perhaps no worker of ours knows the task of a job that never ran here: nobody may wait for it."""
    job = await _held(dsn, client) if held_before else (await client.enqueue("t", queue=LANE)).id
    await rows(dsn, f"update {JOBS} set locked_by = 'node', locked_at = now() - interval '1 day', attempts = 1")
    await rows(dsn, f"update {QUEUES} set locked_by = 'node', locked_at = now() - interval '1 day'")
    await client.release_stale_job_locks(timedelta(hours=4))
    assert await holder(dsn) == (f"backfill:retry:{job}" if held_before else None)


async def test_a_drain_frees_the_queue_of_a_job_that_was_ended_by_hand(dsn: str, client: BackfillClient) -> None:
    """A program that only drains has no service that looks for such queues."""
    job = await _held(dsn, client)
    await client.enqueue("t", queue=LANE)
    await rows(dsn, f"delete from {JOBS} where id = %s", job)
    tasks: TaskRegistry[None] = TaskRegistry()
    tasks.task("t")(_nothing)
    assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 1
    assert await holder(dsn) is None


async def _held(dsn: str, client: BackfillClient) -> int:
    """A job that failed and holds its queue."""
    job = await client.enqueue("t", queue=LANE)
    async with await connect(dsn) as connection:
        wire = Wire(connection)
        await end(wire, Settlement(Failed("no", delay=0.0).end(attempt, None) for attempt in await claim(wire)))
    return job.id


async def test_no_cleanup_frees_a_queue_that_is_needed(dsn: str, client: BackfillClient) -> None:
    """Neither by the age of its lock nor as unused; and no worker of another program is taken to live."""
    job = await _held(dsn, client)
    await rows(dsn, AGED)
    assert await client.release_stale_queue_locks(timedelta(0)) == 0
    await client.startup_cleanup()
    assert await client.collect_queues() == 0
    assert await client.collect_tasks() == ()
    assert await holder(dsn) == f"backfill:retry:{job}"


async def test_the_lock_of_a_held_queue_is_renewed(dsn: str, client: BackfillClient) -> None:
    """Before any program could take it for abandoned, and not while it is young."""
    await _held(dsn, client)
    age: LiteralString = f"select extract(epoch from now() - locked_at)::float8 from {QUEUES}"
    await rows(dsn, AGED)
    assert await client.free_held_queues() == 0
    assert await value(dsn, age) < 600
    before = await value(dsn, f"select locked_at from {QUEUES}")
    assert await client.free_held_queues() == 0
    assert await value(dsn, f"select locked_at from {QUEUES}") == before


async def test_a_hold_that_nobody_has_noted_is_released_by_its_age(dsn: str, client: BackfillClient) -> None:
    """One that came with a restored copy, or was written by hand, for a job that is not there."""
    await _held(dsn, client)
    for name in ("backfill:retry:12345", "backfill:retry:nonsense", "backfill:retry:99999999999999999999"):
        await rows(dsn, f"update {QUEUES} set locked_by = %s, locked_at = now() - interval '1 day'", name)
        assert await client.free_held_queues() == 0
        assert await client.release_stale_queue_locks(timedelta(hours=4)) == 1
        assert await holder(dsn) is None


async def test_upkeep_waits_for_nobody(dsn: str, client: BackfillClient) -> None:
    """A queue whose row somebody has locked is passed over, and freed by a later round."""
    job = await _held(dsn, client)
    async with await connect(dsn) as connection, connection.transaction():
        await connection.execute(f"select from {QUEUES} for no key update")
        await client.complete_jobs([job])
        assert await client.free_held_queues() == 0
        assert await holder(dsn) == f"backfill:retry:{job}"
    assert await client.free_held_queues() == 1
    assert await rows(dsn, f"select * from {HELD_ROWS}") == []


async def test_a_worker_that_is_not_the_first_looks_now_and_then(dsn: str, client: BackfillClient) -> None:
    """The first may be of a version that knows nothing of held queues: each worker looks at its start."""
    job = await _held(dsn, client)
    await rows(dsn, f"delete from {JOBS} where id = %s", job)
    await rows(dsn, "insert into graphile_worker.backfill_workers (id, host, pid, protocol, version) "
               "values ('backfill_', 'there', 7, 3, '0')")  # fmt: skip
    tasks: TaskRegistry[None] = TaskRegistry()
    tasks.task("t")(_nothing)
    async with WorkerRunner(WorkerConfig(dsn), tasks) as runner:
        [service] = [one for one in runner._parts.services if one.name == "held queues"]
        assert service is not None
        assert not await runner._parts.own.is_first_worker(runner.worker_id or "")
        await client.free_held_queues()
    assert await holder(dsn) is None


async def _nothing() -> None: ...
