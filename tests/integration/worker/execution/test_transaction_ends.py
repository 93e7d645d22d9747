"""`ctx.transaction()` cut off by timeouts, cancels, stops, and by what happens to the job's lock and row meanwhile."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import IsolationLevel

from backfill import (
    AfterJobRun,
    BackfillClient,
    Fail,
    HandlersStillRunningError,
    JobCancelledError,
    LeaseLostError,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from own_transactions import ADD, JOBS, ONE_LEFT, OPEN, Adding, make_sums, run_due, summed

from plugins.waiting import Eventually
from reading import rows, value

RENEWED: LiteralString = """
update graphile_worker._private_jobs
set locked_at = locked_at + interval '1 second', updated_at = locked_at + interval '1 second'
where locked_by is not null
"""


@pytest.fixture
async def sums(dsn: str) -> str:
    """A database with the table of sums."""
    await make_sums(dsn)
    return dsn


class Blocked:
    """A task whose handler waits within its block.

    Attributes:
        began: set when it has written.
        go_on: lets it end the block.
    """

    def __init__(self, isolation: IsolationLevel | None = None, **options: Any) -> None:
        self.began, self.go_on, self.tasks = asyncio.Event(), asyncio.Event(), TaskRegistry[None]()

        @self.tasks.task("blocked", **options)
        async def blocked(ctx: WorkerContext[None]) -> None:
            async with ctx.transaction(isolation=isolation) as tx:
                await tx.connection.execute(ADD, [1])
                self.began.set()
                await self.go_on.wait()


async def test_a_timeout_rolls_back(sums: str, eventually: Eventually) -> None:
    """Nothing is written, no transaction stays open, and the attempt fails as by any timeout."""
    blocked = Blocked(timeout=timedelta(milliseconds=100))
    async with BackfillClient(sums) as client:
        job = await client.enqueue("blocked")
        await run_due(sums, blocked.tasks, pool_size=1)
        [attempt] = await client.attempts(job)
    assert attempt.how == "timed_out"
    assert await summed(sums) == 0
    await eventually(lambda: value(sums, OPEN), lambda count: count == 0)


async def test_a_cancel_rolls_back(sums: str) -> None:
    """The job ends as cancelled, and has written nothing."""
    blocked = Blocked(keep=timedelta(hours=1))
    async with BackfillClient(sums) as client, WorkerRunner(WorkerConfig(sums), blocked.tasks):
        job = await client.enqueue("blocked")
        await blocked.began.wait()
        await client.cancel(job)
        with pytest.raises(JobCancelledError):
            await client.result(job, timeout=timedelta(seconds=30))
    assert (await summed(sums), await value(sums, JOBS)) == (0, 0)


async def test_a_cancel_that_came_meanwhile_does_not_undo_it(sums: str) -> None:
    """The job's flag is set while the block is open and its worker has not heard of it: what is done is done."""
    tasks = TaskRegistry[None]()

    @tasks.task("cancelled")
    async def cancelled(ctx: WorkerContext[None]) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute(ADD, [1])
            await rows(sums, "update graphile_worker._private_jobs set flags = '{\"backfill.cancel\": {}}'")

    async with BackfillClient(sums) as client:
        await client.enqueue("cancelled")
        await run_due(sums, tasks)
    assert (await summed(sums), await value(sums, JOBS)) == (1, 0)


async def test_a_stop_rolls_back_and_gives_back(sums: str) -> None:
    """A stop does not wait for the block for longer than its deadline; the job goes back with its attempt."""
    blocked = Blocked()
    config = WorkerConfig(sums, shutdown_timeout=timedelta(milliseconds=50))
    async with BackfillClient(sums) as client, WorkerRunner(config, blocked.tasks):
        await client.enqueue("blocked")
        await blocked.began.wait()
    assert await rows(sums, ONE_LEFT) == [(0, True, None)]
    assert await summed(sums) == 0


async def test_a_thread_that_outlives_its_worker_commits_nothing(sums: str, eventually: Eventually) -> None:
    """Its job was given back, so the fence of its completion finds nothing."""
    tasks, ended = TaskRegistry[None](), list[BaseException]()
    written, worker_ended = threading.Event(), threading.Event()

    @tasks.task("thread")
    def thread(ctx: WorkerContext[None]) -> None:
        try:
            with ctx.transaction() as tx:
                tx.connection.execute(ADD, [1])
                written.set()
                worker_ended.wait()
        except BaseException as error:
            ended.append(error)
            raise

    async with BackfillClient(sums) as client:
        await client.enqueue("thread")
        before = len(asyncio.all_tasks())
        runner = WorkerRunner(WorkerConfig(sums, shutdown_timeout=timedelta(milliseconds=50)), tasks)
        with pytest.raises(HandlersStillRunningError):
            async with runner:
                await eventually(written.is_set)
        worker_ended.set()
        await eventually(lambda: len(ended))
        await eventually(lambda: len(asyncio.all_tasks()), lambda count: count == before)
    assert [type(error) for error in ended] == [LeaseLostError]
    assert await rows(sums, ONE_LEFT) == [(0, True, None)]
    assert await summed(sums) == 0


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_renewal_whose_answer_was_lost_does_no_harm(sums: str, kind: str) -> None:
    """The lock's time in the row is a later one than the worker knows; it is the same attempt's all the same."""
    dsn = sums

    def renew(_: WorkerContext[Any]) -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute(RENEWED)

    adding = Adding(within=renew)
    async with BackfillClient(sums) as client:
        await client.enqueue(kind, 5)
        await run_due(sums, adding.tasks)
    assert (adding.runs, await summed(sums), await value(sums, JOBS)) == ([1], 5, 0)


@pytest.mark.parametrize("isolation", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
async def test_above_read_committed_nothing_is_renewed(
    sums: str, isolation: IsolationLevel, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """Locks are renewed all the time, but not this one; without that the completion would fail. Afterwards it is."""
    monkeypatch.setattr("backfill.worker.pipeline.locks.LOOK_SECONDS", 0.02)
    monkeypatch.setattr("backfill.worker.pipeline.locks.RENEW_AFTER", 0.02)
    blocked = Blocked(isolation)
    tasks, beside, released = blocked.tasks, asyncio.Event(), asyncio.Event()

    @tasks.task("beside")
    async def other() -> None:
        beside.set()
        await released.wait()

    times: LiteralString = "select locked_at from graphile_worker.jobs where task_identifier = %s"
    async with BackfillClient(sums) as client, WorkerRunner(WorkerConfig(sums), tasks):
        await client.enqueue("blocked")
        await client.enqueue("beside")
        await blocked.began.wait()
        await beside.wait()
        since, own = await value(sums, times, "beside"), await value(sums, times, "blocked")
        await eventually(lambda: value(sums, times, "beside"), lambda at: at > since + timedelta(seconds=0.2))
        assert await value(sums, times, "blocked") == own
        blocked.go_on.set()
        await eventually(lambda: summed(sums), lambda total: total == 1)
        released.set()
    assert await value(sums, JOBS) == 0


async def test_a_serialization_failure_is_the_attempts_own(sums: str) -> None:
    """Two jobs read and write one row above read committed: one of them fails and is tried again; the sum is exact."""
    tasks, ready = TaskRegistry[None](), asyncio.Barrier(2)

    @tasks.task("both")
    async def both(ctx: WorkerContext[None]) -> None:
        async with ctx.transaction(isolation=IsolationLevel.REPEATABLE_READ) as tx:
            cursor = await tx.connection.execute("select sum from sums")
            [[before]] = await cursor.fetchall()
            if ctx.attempt == 1:
                await ready.wait()
            await tx.connection.execute("update sums set sum = %s", [before + 1])

    async with BackfillClient(sums) as client:
        jobs = [await client.enqueue("both") for _ in range(2)]
        await run_due(sums, tasks)
        records = [record for job in jobs for record in await client.attempts(job)]
        await run_due(sums, tasks)
    assert [record.error_type for record in records] == ["psycopg.errors.SerializationFailure"]
    assert (await summed(sums), await value(sums, JOBS)) == (2, 0)


class Vetoing:
    """A plugin that says Fail after each run, and notes of which runs it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, str | None]] = []

    def register(self, hooks: Any) -> None:
        """Ask after each run."""

        def after(event: AfterJobRun) -> Fail:
            self.asked.append((event.result, None if event.error is None else type(event.error).__name__))
            return Fail("no")

        hooks.on(AfterJobRun, after)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_veto_comes_too_late(sums: str, fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    """AfterJobRun is asked, and its Fail is named in the log: the job is completed."""

    def end(_: WorkerContext[Any]) -> None:
        if fails:
            raise ValueError("behind the block")

    adding, plugin = Adding(after=end), Vetoing()
    async with BackfillClient(sums) as client:
        await client.enqueue("async", 5)
        await WorkerRunner(WorkerConfig(sums), adding.tasks, plugins=[plugin]).process_available_jobs()
    assert (adding.runs, await summed(sums), await value(sums, JOBS)) == ([1], 5, 0)
    assert plugin.asked == [(None, "ValueError")] if fails else [({"not": 0}, None)]
    late = [record for record in caplog.records if "said Fail too late" in record.getMessage()]
    assert [record.levelno for record in late] == [logging.WARNING]


async def test_fewer_connections_than_handlers(sums: str) -> None:
    """Blocks wait for each other; within one, the handler may use the client as well."""
    tasks = TaskRegistry[None]()

    @tasks.task("add")
    async def add(ctx: WorkerContext[None]) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute(ADD, [1])
            await ctx.client.enqueue("more", job_key=f"more {ctx.job.id}")

    @tasks.task("more")
    async def more(ctx: WorkerContext[None]) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute(ADD, [100])

    async with BackfillClient(sums) as client:
        await client.enqueue_bulk("add", [{}] * 60)
        await run_due(sums, tasks, concurrency=30, pool_size=1)
    assert (await summed(sums), await value(sums, JOBS)) == (6_060, 0)


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_limited_jobs_pass_no_share(sums: str, kind: str) -> None:
    """The share of a job goes with its row, so a waiting job asks anew; never do more run than the limit says."""
    dsn, most = sums, list[int]()

    def look(_: WorkerContext[Any]) -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            most.extend(other.execute(OPEN).fetchone() or ())

    adding = Adding(within=look, options={"limit": 2})
    async with BackfillClient(sums) as client:
        await client.enqueue_bulk(kind, [1] * 100)
        async with asyncio.timeout(60):
            await run_due(sums, adding.tasks, concurrency=20)
    assert (await summed(sums), await value(sums, JOBS)) == (100, 0)
    assert max(most) <= 2
