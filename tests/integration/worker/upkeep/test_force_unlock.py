"""Taking all locks of workers that an operator names: what is freed, what is refused, and what becomes of the jobs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import (
    BackfillClient,
    CleanupRefusedError,
    InvalidJobError,
    Queue,
    ReleasedLocks,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

NODE, OTHER, OURS = "worker-0123456789", "worker-9876543210", "backfill_0123456789abcdef00"
JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
HELD: LiteralString = f"update {JOBS} set locked_by = %s, locked_at = now(), attempts = 1 where id = %s"
LOCKED: LiteralString = f"update {QUEUES} set locked_by = %s, locked_at = now() where queue_name = %s"
ROW: LiteralString = """
    insert into graphile_worker.backfill_workers (id, host, pid, heartbeat_at, given_up_at, protocol, version)
    values (%s, 'there', 7, now() - %s, now() - %s::interval, 1, '0')"""


async def _hold(dsn: str, client: BackfillClient, worker: str, queue: str) -> int:
    """A serial job that a worker holds, with its queue."""
    job = await client.enqueue("t", queue=Queue.serial(queue))
    await rows(dsn, HELD, worker, job.id)
    await rows(dsn, LOCKED, worker, queue)
    return job.id


async def test_what_these_workers_hold_is_free(dsn: str) -> None:
    """Their jobs and queues, and nobody else's; the attempt counts, and the jobs run."""
    async with BackfillClient(dsn) as client:
        theirs = [await _hold(dsn, client, NODE, f"q{n}") for n in range(2)]
        parallel = await client.enqueue("t")
        await rows(dsn, HELD, NODE, parallel.id)
        kept = await _hold(dsn, client, OTHER, "kept")
        assert await client.force_unlock_workers([NODE, "nobody", NODE]) == ReleasedLocks(queue_locks=2, job_locks=3)
        for held in [*theirs, parallel.id]:
            job = await client.get_job(held)
            assert job is not None
            assert (job.locked_by, job.attempts) == (None, 1)
        left = await client.get_job(kept)
        assert left is not None
        assert left.locked_by == OTHER
        assert await rows(dsn, f"select queue_name from {QUEUES} where locked_at is not null") == [("kept",)]
        tasks: TaskRegistry[None] = TaskRegistry()
        tasks.task("t")(lambda: None)
        assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 3
        assert await client.force_unlock_workers([]) == ReleasedLocks(0, 0)
        assert await client.force_unlock_workers(["nobody"]) == ReleasedLocks(0, 0)


async def test_a_waiting_worker_is_told(dsn: str, eventually: Eventually) -> None:
    """A worker that does not poll for an hour runs the job as soon as it is free."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = asyncio.Event()

    @tasks.task("t")
    async def handler() -> None:
        ran.set()

    async with BackfillClient(dsn) as client:
        await _hold(dsn, client, NODE, "q")
        config = WorkerConfig(dsn, poll_interval=timedelta(hours=1))
        async with WorkerRunner(config, tasks) as runner:
            await eventually(lambda: runner.health().ready)
            await client.force_unlock_workers([NODE])
            await asyncio.wait_for(ran.wait(), 30)


async def test_live_workers_keep_their_jobs(dsn: str) -> None:
    """A worker of ours that is alive is refused, with its name, and nothing at all is unlocked."""
    tasks: TaskRegistry[None] = TaskRegistry()
    begun, may_end = asyncio.Event(), asyncio.Event()
    runs = list[int]()

    @tasks.task("t")
    async def handler(_payload: Any, ctx: WorkerContext[None]) -> None:
        runs.append(ctx.attempt)
        begun.set()
        await may_end.wait()

    async with BackfillClient(dsn) as client:
        await client.enqueue("t", queue=Queue.serial("q"))
        async with WorkerRunner(WorkerConfig(dsn), tasks) as runner:
            await begun.wait()
            assert runner.worker_id is not None
            node = await _hold(dsn, client, NODE, "other")
            with pytest.raises(CleanupRefusedError, match=r"alive.*force=True") as refused:
                await client.force_unlock_workers([NODE, runner.worker_id])
            assert refused.value.workers == (runner.worker_id,)
            job = await client.get_job(node)
            assert job is not None
            assert job.locked_by == NODE
            done = await client.force_unlock_workers([runner.worker_id], force=True)
            assert done == ReleasedLocks(queue_locks=1, job_locks=1)
            may_end.set()


@pytest.mark.parametrize(("silent", "given_up", "alive"), [(0, None, True), (600, None, False), (0, 0, False)])
async def test_who_is_alive(dsn: str, eventually: Eventually, silent: int, given_up: int | None, alive: bool) -> None:
    """One that is silent for its dead time, or was given up, is not."""
    if silent:  # on a server that has just started nobody has been silent for long
        await eventually(lambda: value(dsn, "select pg_postmaster_start_time() < now() - interval '21 seconds'"))
    ago = None if given_up is None else timedelta(seconds=given_up)
    await rows(dsn, ROW, OURS, timedelta(seconds=silent), ago)
    async with BackfillClient(dsn) as client:
        await _hold(dsn, client, OURS, "q")
        if alive:
            with pytest.raises(CleanupRefusedError):
                await client.force_unlock_workers([OURS])
        else:
            assert await client.force_unlock_workers([OURS]) == ReleasedLocks(1, 1)


async def test_live_workers_of_the_rust_engine_are_refused(dsn: str) -> None:
    """Those that have beaten of late in the engine's own table; others are not known to be alive."""
    await rows(
        dsn,
        """create table graphile_worker._private_workers (
          id text primary key, last_heartbeat_at timestamptz not null default now())""",
    )
    await rows(dsn, "insert into graphile_worker._private_workers values ('graphile_worker_ab', now())")
    async with BackfillClient(dsn) as client:
        await _hold(dsn, client, "graphile_worker_ab", "q")
        with pytest.raises(CleanupRefusedError) as refused:
            await client.force_unlock_workers(["graphile_worker_ab"])
        assert refused.value.workers == ("graphile_worker_ab",)
        await rows(dsn, "update graphile_worker._private_workers set last_heartbeat_at = now() - interval '1 hour'")
        assert await client.force_unlock_workers(["graphile_worker_ab"]) == ReleasedLocks(1, 1)


@pytest.mark.parametrize(
    "ids", [None, NODE, b"w", [7], [None], [""], ["backfill:pause"], ["backfill:pause:3"], ["backfill:retry:7"]]
)
async def test_what_is_no_worker_is_refused(dsn: str, ids: Any) -> None:
    """A single text, what is no text, and the marks of queues that are paused or wait for a job's retry."""
    async with BackfillClient(dsn) as client:
        with pytest.raises(InvalidJobError, match="worker_ids = "):
            await client.force_unlock_workers(ids)


async def test_who_may(dsn: str, role: NewRole) -> None:
    """A worker's role may; a producer's and an operator's may not, and nothing is unlocked."""
    async with BackfillClient(dsn) as client:
        await _hold(dsn, client, NODE, "q")
    for duty in ("producer", "operator"):
        async with BackfillClient(role(duty)) as client:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await client.force_unlock_workers([NODE])
    async with BackfillClient(role("worker")) as client:
        assert await client.force_unlock_workers([NODE]) == ReleasedLocks(1, 1)
