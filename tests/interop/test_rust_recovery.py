"""Recovery beside the crate graphile_worker: nobody who lives is taken for dead, and both recover the dead."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, Queue, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from places import TESTS
from plugins.periods import let_pass
from plugins.rust import Rust
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

SECOND = timedelta(seconds=1)
THRESHOLD = 2.0
"""After so many seconds without a heartbeat a worker is dead to the crate, in these tests."""
PLAN = {"tasks": ["both"], "threshold_ms": int(1000 * THRESHOLD)}
SWEEP = [{"do": "sweep", "threshold_ms": int(1000 * THRESHOLD)}]
JOBS = "select count(*) from graphile_worker._private_jobs"
LOCKED: LiteralString = """
    select locked_by from graphile_worker._private_jobs where locked_by is not null
    union all
    select locked_by from graphile_worker._private_job_queues where locked_by is not null"""
WORKERS: LiteralString = "select id from graphile_worker._private_workers order by id"


@pytest.fixture(autouse=True)
async def _migrated(engine: Rust) -> None:
    await engine.run("migrate")


class Long:
    """A task of ours whose handler ends when the test says so."""

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.ran: list[str] = []
        self.go_on = asyncio.Event()

        @self.tasks.task("both")
        async def both(_: Any, ctx: WorkerContext[None]) -> None:
            self.ran.append(ctx.worker_id)
            await self.go_on.wait()


async def test_a_long_job_of_ours_is_left_alone(engine: Rust, eventually: Eventually) -> None:
    """Its worker beats where the crate looks, so the locks of job and queue stay for three times the threshold."""
    long = Long()
    config = WorkerConfig(engine.dsn, dead_after=SECOND * 2, heartbeat_interval=SECOND / 2)
    async with BackfillClient(engine.dsn) as client, WorkerRunner(config, long.tasks) as runner:
        await client.enqueue("both", {"n": 1}, queue=Queue.serial("line"))
        await client.enqueue("both", {"n": 2})
        await eventually(lambda: len(long.ran) == 2)
        async with engine.running(PLAN) as theirs:
            await let_pass(3 * THRESHOLD)
            assert await rows(engine.dsn, WORKERS) == sorted([(runner.worker_id,), (theirs.worker_id,)])
            assert await engine.run("manage", SWEEP) == [{"dead": [], "recovered": 0}]
            assert {row[0] for row in await rows(engine.dsn, LOCKED)} == {runner.worker_id}
            long.go_on.set()
            await eventually(lambda: value(engine.dsn, JOBS), lambda left: left == 0)
        assert [told for told in theirs.seen if "ran" in told] == []
        assert long.ran == [runner.worker_id] * 2


async def test_a_long_job_of_the_crate_is_left_alone(engine: Rust, eventually: Eventually) -> None:
    """Our sweeper and our cleanup see its heartbeat."""
    config = WorkerConfig(engine.dsn, dead_after=SECOND, heartbeat_interval=SECOND / 5)
    async with BackfillClient(engine.dsn) as client, engine.running(PLAN) as theirs:
        await client.enqueue("both", {"n": 1, "wait": True}, queue=Queue.serial("line"))
        assert "began" in await theirs.told()
        async with WorkerRunner(config, Long().tasks):
            await let_pass(3 * THRESHOLD)
            released = await client.release_stale_job_locks(SECOND), await client.release_stale_queue_locks(SECOND)
            assert released == (0, 0)
            assert {row[0] for row in await rows(engine.dsn, LOCKED)} == {theirs.worker_id}
        theirs.go_on()
        assert (await theirs.told())["ran"]["attempts"] == 1
        await eventually(lambda: value(engine.dsn, JOBS), lambda left: left == 0)


async def _killed(engine: Rust, client: BackfillClient) -> str:
    """Have a worker of ours be killed while it runs two jobs, one of them in a queue; its id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(TESTS / "interop" / "hanging.py"), engine.dsn, stdin=PIPE, stdout=PIPE
    )
    assert process.stdout is not None
    try:
        await client.enqueue("both", {"n": 1}, queue=Queue.serial("line"))
        await client.enqueue("both", {"n": 2})
        for _ in range(2):
            worker = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
            assert worker.startswith("backfill_")
        assert (worker,) in await rows(engine.dsn, WORKERS)
    finally:
        process.kill()
        await process.communicate()
    return worker


async def test_the_crate_recovers_what_a_killed_worker_of_ours_left(engine: Rust, eventually: Eventually) -> None:
    """No worker of ours is there: the crate's unlocks both jobs and the queue, runs them, and forgets the worker."""
    async with BackfillClient(engine.dsn) as client:
        victim = await _killed(engine, client)
        async with engine.running(PLAN) as theirs:
            await eventually(lambda: value(engine.dsn, JOBS), lambda left: left == 0)
            assert (victim,) not in await rows(engine.dsn, WORKERS)
    ran = [told["ran"] for told in theirs.seen if "ran" in told]
    assert sorted(job["payload"]["n"] for job in ran) == [1, 2]
    assert await rows(engine.dsn, LOCKED) == []


async def test_ours_recovers_it_where_the_crate_does_not(engine: Rust, eventually: Eventually) -> None:
    """And deletes the row that the victim had in the crate's table."""
    long = Long()
    long.go_on.set()
    async with BackfillClient(engine.dsn) as client:
        victim = await _killed(engine, client)
        config = WorkerConfig(engine.dsn, dead_after=SECOND * 2, heartbeat_interval=SECOND / 2)
        async with engine.running({"tasks": ["theirs"]}), WorkerRunner(config, long.tasks) as runner:
            await eventually(lambda: value(engine.dsn, JOBS), lambda left: left == 0)
            await eventually(lambda: rows(engine.dsn, WORKERS), lambda found: (victim,) not in found)
            assert long.ran == [runner.worker_id] * 2
    assert await rows(engine.dsn, LOCKED) == []


async def test_what_a_killed_worker_of_the_crate_left_comes_to_ours(engine: Rust, eventually: Eventually) -> None:
    """Another of the crate's workers, which runs other tasks, unlocks it; ours runs it, and no attempt is lost."""
    long = Long()
    long.go_on.set()
    async with BackfillClient(engine.dsn) as client:
        async with engine.running(PLAN) as victim:
            await client.enqueue("both", {"n": 1, "wait": True}, queue=Queue.serial("line"), max_attempts=1)
            assert "began" in await victim.told()
            await victim.kill()
        async with engine.running({**PLAN, "tasks": ["theirs"]}), WorkerRunner(WorkerConfig(engine.dsn), long.tasks):
            await eventually(lambda: value(engine.dsn, JOBS), lambda left: left == 0)
    assert len(long.ran) == 1
    assert await rows(engine.dsn, LOCKED) == []
    assert await value(engine.dsn, "select count(*) from graphile_worker.backfill_dlq") == 0


async def test_a_pause_that_the_crate_ended_is_put_back(engine: Rust, eventually: Eventually) -> None:
    """Its recovery unlocks a paused queue, whose holder is no worker; ours locks it again and starts no job of it."""
    long = Long()
    config = WorkerConfig(engine.dsn, dead_after=SECOND, heartbeat_interval=SECOND / 5)
    async with BackfillClient(engine.dsn) as client:
        await client.enqueue("both", {"n": 1}, queue=Queue.serial("line"))
        await client.pause(queue="line")
        await rows(engine.dsn, "update graphile_worker._private_job_queues set locked_at = now() - interval '1 minute'")
        assert await engine.run("manage", SWEEP) == [{"dead": ["backfill:pause"], "recovered": 0}]
        assert await rows(engine.dsn, LOCKED) == []
        async with WorkerRunner(config, long.tasks):
            await eventually(lambda: rows(engine.dsn, LOCKED), lambda locked: locked == [("backfill:pause",)])
        assert long.ran == []
        assert await client.resume(queue="line")
