"""Cancelling jobs that a worker holds: how soon it hears of it, what its handlers see, and how each job ends."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import (
    BackfillClient,
    Cancellation,
    CancelStatus,
    Discard,
    EndHow,
    JobCancelledError,
    JobEnd,
    Queue,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from backfill.storage.claims import LaneClaim, LaneFilter
from backfill.storage.connection import connect
from backfill.storage.wire import Wire
from backfill.storage.workers import find_tasks

from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
HOUR = timedelta(hours=1)
SOON = RetryPolicy(9, timedelta(milliseconds=10), timedelta(milliseconds=10), 1.0, 0.0)
ROOM = 3.0
"""What is promised is kept in this many times the time, on a machine that others use too."""
FLAGGED: LiteralString = f"select count(*) from {JOBS} where flags ? 'backfill.cancel'"
LEFT: LiteralString = f"""
    select (select count(*) from {JOBS}), (select count(*) from graphile_worker.backfill_dlq),
      (select count(*) from {QUEUES} where locked_at is not null)"""
NOTHING = [(0, 0, 0)]


class Seen:
    """What handlers have seen."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.cancelled: list[Cancellation | None] = []
        self.attempts = 0
        self.release = threading.Event()
        self.cleaned = False

    def begin(self) -> None:
        """An attempt begins; any thread may say so."""
        self.attempts += 1
        self.loop.call_soon_threadsafe(self.begun.set)


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    """Ends handlers in threads with the test."""
    one = Seen()
    yield one
    one.release.set()


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


def registry_of(seen: Seen) -> TaskRegistry[None]:
    """Handlers that run until they are cancelled, and then do what their payload says."""
    tasks: TaskRegistry[None] = TaskRegistry()

    def then(what: str) -> str:
        if what == "fails":
            raise ValueError(what)
        if what == "is snoozed":
            raise Snooze(timedelta(0))
        if what == "is discarded":
            raise Discard(what)
        return what

    @tasks.task("on_loop", keep=HOUR, retry=SOON)
    async def on_loop(what: str, ctx: WorkerContext[None]) -> str:
        seen.begin()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.cancelled.append(ctx.cancelled_by)
            assert ctx.should_stop
            assert not ctx.stopping
            seen.cleaned = True
            if what == "cancelled":
                raise
        return then(what)

    @tasks.task("in_thread", keep=HOUR, retry=SOON)
    def in_thread(what: str, ctx: WorkerContext[None]) -> str:
        seen.begin()
        while not ctx.should_stop:
            seen.release.wait(0.01)
        seen.cancelled.append(ctx.cancelled_by)
        if what == "stays":
            seen.release.wait(30)
        return then(what)

    @tasks.task("unkept", retry=SOON)
    async def unkept(ctx: WorkerContext[None]) -> None:
        seen.begin()
        await asyncio.Event().wait()

    return tasks


def config_of(dsn: str, **more: Any) -> WorkerConfig:
    """A worker that hears of cancellations by notifications."""
    return WorkerConfig(dsn, **{"concurrency": 4, **more})


def deafen(runner: WorkerRunner[None]) -> None:
    """Have a worker overlook what its heartbeat's answer says."""
    runner._attended().one.beat.told = lambda: None


async def ended(client: BackfillClient, job: Any, eventually: Eventually) -> JobEnd:
    """The end of a job, once it has one."""
    end = await eventually(lambda: client.end(job))
    assert isinstance(end, JobEnd)
    return end


@pytest.mark.parametrize("task", ["on_loop", "in_thread"])
@pytest.mark.parametrize("what", ["cancelled", "fails", "is snoozed", "is discarded"])
async def test_a_running_job_ends_within_a_second(
    dsn: str, client: BackfillClient, seen: Seen, task: str, what: str
) -> None:
    """Whatever its handler raises then, the end is `cancelled`; who awaits the result is told, and nothing is left."""
    if task == "in_thread" and what == "cancelled":
        what = "fails"
    async with WorkerRunner(config_of(dsn), registry_of(seen)):
        job = await client.enqueue(task, what, queue=Queue.serial("q", block_on_retry=True), job_key="k")
        await seen.begun.wait()
        result = asyncio.ensure_future(client.result(job.id, timeout=30))
        began = time.monotonic()
        outcome = await client.cancel(job.id, reason="it is enough")
        assert outcome.status is CancelStatus.REQUESTED
        with pytest.raises(JobCancelledError, match="it is enough"):
            await result
        assert time.monotonic() - began < 1.0 * ROOM
    [cancellation] = seen.cancelled
    assert cancellation is not None
    assert (cancellation.reason, cancellation.by) == ("it is enough", await value(dsn, "select session_user::text"))
    assert cancellation.at is not None
    end = await client.end(job)
    assert end is not None
    assert (end.how, end.error, end.job_key, end.attempts) == (EndHow.CANCELLED, "it is enough", "k", 1)
    assert end.worker_id == outcome.worker_id
    assert end.max_attempts == job.job.max_attempts
    assert seen.attempts == 1
    assert await rows(dsn, LEFT) == NOTHING


@pytest.mark.parametrize("task", ["on_loop", "in_thread"])
async def test_a_handler_that_completes_all_the_same_is_completed(
    dsn: str, client: BackfillClient, seen: Seen, task: str
) -> None:
    """Its result is kept as ever."""
    async with WorkerRunner(config_of(dsn), registry_of(seen)):
        job = await client.enqueue(task, "completes")
        await seen.begun.wait()
        await client.cancel(job)
        assert await client.result(job, timeout=30) == "completes"
    assert await rows(dsn, LEFT) == NOTHING


@pytest.mark.parametrize("task", ["on_loop", "in_thread"])
async def test_without_notifications_it_ends_with_the_next_heartbeat(
    dsn: str, client: BackfillClient, seen: Seen, task: str, eventually: Eventually
) -> None:
    """The heartbeat's answer shows that there is something new."""
    beat = timedelta(seconds=1)
    async with WorkerRunner(config_of(dsn, listen=False, heartbeat_interval=beat), registry_of(seen)):
        job = await client.enqueue(task, "fails")
        await seen.begun.wait()
        began = time.monotonic()
        await client.cancel(job)
        assert (await ended(client, job, eventually)).how is EndHow.CANCELLED
        assert time.monotonic() - began < 1.0 * ROOM


async def test_cancellations_that_commit_in_another_order_are_both_heard_of(
    dsn: str, client: BackfillClient, seen: Seen, eventually: Eventually
) -> None:
    """The transaction that drew the lower version may commit last."""
    beat = timedelta(seconds=1)
    async with WorkerRunner(config_of(dsn, listen=False, heartbeat_interval=beat), registry_of(seen)):
        one, two = await client.enqueue("on_loop", "fails"), await client.enqueue("on_loop", "fails")
        await eventually(lambda: seen.attempts == 2)
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await client.cancel(one, connection=connection)
            await client.cancel(two)
            await ended(client, two, eventually)
            await connection.commit()
        await ended(client, one, eventually)


async def test_a_thread_keeps_its_slot_until_it_ends(
    dsn: str, client: BackfillClient, seen: Seen, eventually: Eventually
) -> None:
    """The job is not settled before the thread has ended, so that nothing runs beside it."""
    async with WorkerRunner(config_of(dsn, concurrency=1), registry_of(seen)) as runner:
        job = await client.enqueue("in_thread", "stays")
        await seen.begun.wait()
        await client.cancel(job)
        await eventually(lambda: seen.cancelled)
        other = await client.enqueue("in_thread", "fails")
        assert await client.end(job) is None
        found = await client.get_job(job)
        assert found is not None
        assert found.locked_by == runner.worker_id
        assert seen.attempts == 1
        seen.release.set()
        assert (await client.end(job) or await ended(client, job, eventually)).how is EndHow.COMPLETED
        await eventually(lambda: seen.attempts == 2)
        await client.cancel(other)
        await ended(client, other, eventually)


async def test_a_job_that_is_held_and_has_not_started_ends_at_once(
    dsn: str, client: BackfillClient, seen: Seen, eventually: Eventually
) -> None:
    """It never begins, and its end is kept as its task says."""
    held: LiteralString = f"select count(*) from {JOBS} where locked_at is not null"
    config = config_of(dsn, concurrency=1, shutdown_timeout=timedelta(0))
    async with WorkerRunner(config, registry_of(seen)) as runner:
        deafen(runner)  # the notification alone makes it look
        executor = runner._attended().one.executor
        await client.enqueue("on_loop", "cancelled")
        await seen.begun.wait()
        job = (await client.enqueue("on_loop", "cancelled")).id
        claim = LaneClaim("graphile_worker", (LaneFilter(tasks=("on_loop",)),))
        async with await connect(dsn) as connection:
            ids = await find_tasks(connection, ["on_loop"], schema="graphile_worker")
            wire = Wire(connection)
            jobs = await claim.take(wire, worker=runner.worker_id, wanted=1, task_ids=ids)
        assert [one.id for one in jobs] == [job]
        await client.cancel(job)  # before the worker has taken in the answer to its claim
        await eventually(lambda: executor.cancelling.looked_at > (jobs[0].locked_at_micros or 0))
        lane = next(iter(executor.held.lanes))
        executor.hold(jobs, lane)
        assert (await ended(client, job, eventually)).how is EndHow.CANCELLED
        assert await value(dsn, held) == 1
        assert seen.attempts == 1


async def test_a_task_without_keep_leaves_a_short_end(
    dsn: str, client: BackfillClient, seen: Seen, eventually: Eventually
) -> None:
    """So that whoever awaits the job is told."""
    async with WorkerRunner(config_of(dsn), registry_of(seen)):
        job = await client.enqueue("unkept")
        await seen.begun.wait()
        await client.cancel(job, reason="no need")
        with pytest.raises(JobCancelledError, match="no need"):
            await client.result(job, timeout=30)


async def test_a_stop_ends_what_was_cancelled_and_not_heard_of(dsn: str, client: BackfillClient, seen: Seen) -> None:
    """What a stop gives back ends as cancelled, as the statement that gives it back sees by the row that it holds."""
    config = config_of(dsn, listen=False, shutdown_timeout=timedelta(0))
    async with WorkerRunner(config, registry_of(seen)) as runner:
        deafen(runner)
        job = await client.enqueue("on_loop", "cancelled")
        await seen.begun.wait()
        await client.cancel(job, reason="too late to hear")
    end = await client.end(job)
    assert end is not None
    assert (end.how, end.error) == (EndHow.CANCELLED, "too late to hear")
    assert end.expires_at is not None
    assert end.ended_at is not None
    assert end.expires_at - end.ended_at == HOUR
    assert await rows(dsn, LEFT) == NOTHING


@pytest.mark.parametrize("name", ["kept", "unkept"])
async def test_a_failure_ends_what_was_cancelled_and_not_heard_of(
    dsn: str, client: BackfillClient, eventually: Eventually, name: str
) -> None:
    """It is neither retried nor a dead letter: the statement that writes the failure sees the flag."""
    tasks: TaskRegistry[None] = TaskRegistry()
    begun, go_on = asyncio.Event(), asyncio.Event()

    @tasks.task(name, retry=SOON, **({"keep": HOUR} if name == "kept" else {}))
    async def fails() -> None:
        begun.set()
        await go_on.wait()
        raise ValueError("no")

    config = config_of(dsn, listen=False)
    async with WorkerRunner(config, tasks) as runner:
        deafen(runner)
        job = await client.enqueue(name, job_key="k")
        await begun.wait()
        await client.cancel(job, reason="why")
        go_on.set()
        end = await ended(client, job, eventually)
    assert (end.how, end.error, end.job_key) == (EndHow.CANCELLED, "why", "k")
    assert await rows(dsn, LEFT) == NOTHING


async def test_an_unlocked_job_with_the_flag_never_runs(
    dsn: str, client: BackfillClient, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """Where another program has unlocked it and given its attempts back, the worker that claims it ends it."""
    caplog.set_level(logging.INFO, "backfill")
    job = await client.enqueue("on_loop", "cancelled")
    flag: LiteralString = """{"backfill.cancel": {"reason": "before", "by": "me"}}"""
    await rows(dsn, f"update {JOBS} set flags = %s where id = %s", flag, job.id)
    await WorkerRunner(config_of(dsn), registry_of(seen)).process_available_jobs()
    assert seen.attempts == 0
    end = await client.end(job)
    assert end is not None
    assert (end.how, end.error) == (EndHow.CANCELLED, "before")
    assert "was cancelled before" in caplog.text
    assert await rows(dsn, LEFT) == NOTHING


async def test_a_worker_ends_only_what_was_cancelled(
    dsn: str, client: BackfillClient, seen: Seen, eventually: Eventually
) -> None:
    """Other jobs of the same worker go on."""
    async with WorkerRunner(config_of(dsn), registry_of(seen)):
        one, two = await client.enqueue("on_loop", "fails"), await client.enqueue("on_loop", "fails")
        await eventually(lambda: seen.attempts == 2)
        await client.cancel(one)
        await ended(client, one, eventually)
        found = await client.get_job(two)
        assert found is not None
        assert found.locked_by is not None
        await client.cancel(two)
        await ended(client, two, eventually)
    assert len(seen.cancelled) == 2


async def test_a_timeout_after_a_cancellation_changes_nothing(
    dsn: str, client: BackfillClient, seen: Seen, eventually: Eventually
) -> None:
    """The end is `cancelled` where the job's time is over while its handler still cleans up."""
    tasks: TaskRegistry[None] = TaskRegistry()
    over = asyncio.Event()

    @tasks.task("slow", timeout=timedelta(milliseconds=500), retry=SOON, keep=HOUR)
    async def slow() -> None:
        seen.begin()
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await asyncio.Event().wait()
            finally:
                over.set()

    async with WorkerRunner(config_of(dsn), tasks):
        job = await client.enqueue("slow")
        await seen.begun.wait()
        await client.cancel(job)
        await over.wait()
        assert (await ended(client, job, eventually)).how is EndHow.CANCELLED
    assert seen.attempts == 1
