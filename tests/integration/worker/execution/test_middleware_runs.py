"""Middleware in a worker: transactions, failures, results, time limits, and threads that keep their slots."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from backfill import (
    BackfillClient,
    CallNext,
    Discard,
    NewJob,
    QueueConfig,
    RateLimitExceeded,
    RetryPolicy,
    Snooze,
    SyncCallNext,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from plugins.waiting import Eventually
from reading import rows, value

CONNECTION: contextvars.ContextVar[psycopg.AsyncConnection[Any]] = contextvars.ContextVar("connection")
AT_ONCE = RetryPolicy(2, timedelta(0), timedelta(0), 1.0, 0.0)
STATES = """
select task_identifier, attempts, run_at > now() + interval '30 seconds', split_part(last_error, chr(10), 1)
from graphile_worker.jobs order by id
"""


async def _run(dsn: str, tasks: TaskRegistry[Any], *jobs: NewJob[Any], **settings: Any) -> int:
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(jobs)
    return await WorkerRunner(WorkerConfig(dsn, **settings), tasks).process_available_jobs()


async def test_a_transaction_commits_with_the_handlers_success(dsn: str) -> None:
    """A middleware that holds it open rolls it back where the handler raises, and the retry writes once."""
    tasks: TaskRegistry[None] = TaskRegistry()
    await rows(dsn, "create table orders (id int)")

    @tasks.middleware
    async def transaction(call_next: CallNext, ctx: WorkerContext[None]) -> Any:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            CONNECTION.set(connection)
            return await call_next()

    @tasks.task("order", retry=AT_ONCE)
    async def order(number: int, ctx: WorkerContext[None]) -> None:
        await CONNECTION.get().execute("insert into orders values (%s)", [number])
        if not ctx.is_last_attempt:
            raise ConnectionError("away")

    assert await _run(dsn, tasks, order.job(7)) == 2
    assert await rows(dsn, "select id from orders") == [(7,)]


async def test_what_middleware_raises_is_the_attempts_failure(dsn: str) -> None:
    """`Snooze`, `Discard`, a time to wait and any other error work from it; its frames name it, and not ours."""
    tasks: TaskRegistry[None] = TaskRegistry()
    errors = {
        "snooze": Snooze(timedelta(minutes=1)),
        "discard": Discard("no need"),
        "wait": RateLimitExceeded("slowly", retry_after=timedelta(minutes=2)),
        "error": ValueError("wrong"),
        "exit": SystemExit(3),
    }

    async def raising(call_next: CallNext, ctx: WorkerContext[None]) -> Any:
        if ctx.job.task_identifier.startswith("before"):
            raise errors[ctx.job.payload]
        await call_next()
        raise errors[ctx.job.payload]

    @tasks.task("before async", middleware=[raising])
    async def before_async(kind: str) -> None:
        raise AssertionError("the handler ran")

    @tasks.task("after sync", middleware=[raising])
    def after_sync(kind: str) -> None: ...

    assert await _run(dsn, tasks, *(task.job(kind) for task in (before_async, after_sync) for kind in errors)) == 10
    for name in ("before async", "after sync"):
        assert [row[1:] for row in await rows(dsn, STATES) if row[0] == name] == [
            (0, True, None),
            (1, True, "RateLimitExceeded: slowly"),
            (1, False, "ValueError: wrong"),
            (1, False, "SystemExit: 3"),
        ]
    text = await value(dsn, "select last_error from graphile_worker.jobs where last_error like 'Value%%' limit 1")
    assert "in raising" in text
    assert "/backfill/" not in text


async def test_the_result_that_is_kept_is_the_outermosts(dsn: str) -> None:
    """Also of a synchronous handler, whose own middleware ran in its thread."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.middleware
    async def doubling(call_next: CallNext, ctx: WorkerContext[None]) -> Any:
        return 2 * await call_next()

    @tasks.middleware
    def one_more(call_next: SyncCallNext, ctx: WorkerContext[None]) -> Any:
        return call_next() + 1

    @tasks.task("number", keep=timedelta(hours=1))
    def number(given: int) -> int:
        return given

    async with BackfillClient(dsn) as client:
        outcome = await client.enqueue(number.job(3))
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        assert await client.result(outcome) == 8


async def test_a_thread_keeps_its_slot_past_its_timeout(dsn: str, eventually: Eventually) -> None:
    """The next job begins when the thread has ended; what waits on the loop is cancelled by the timeout."""
    tasks: TaskRegistry[None] = TaskRegistry()
    steps, release, warned = list[str](), threading.Event(), threading.Event()

    @tasks.middleware
    async def noting(call_next: CallNext, ctx: WorkerContext[None]) -> Any:
        steps.append(f"begin {ctx.job.payload}")
        try:
            if ctx.job.payload == "waits":
                await asyncio.Event().wait()
            return await call_next()
        finally:
            steps.append(f"end {ctx.job.payload}")

    @tasks.task("t", timeout=timedelta(milliseconds=200), retry=RetryPolicy(1))
    def handler(word: str, ctx: WorkerContext[None]) -> None:
        while not ctx.should_stop:
            pass
        warned.set()
        release.wait(60)
        steps.append(f"thread {word}")

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk([handler.job("thread"), handler.job("waits")])
        async with WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(1)]), tasks):
            await eventually(warned.is_set)
            assert steps == ["begin thread"]
            release.set()
            await eventually(lambda: len(steps) == 5)
        assert steps == ["begin thread", "thread thread", "end thread", "begin waits", "end waits"]
        [dead] = (await client.list_dlq_jobs()).jobs
        assert "ran longer than its timeout" in (dead.last_error or "")


async def test_a_stop_cancels_middleware_and_costs_no_attempt(dsn: str, eventually: Eventually) -> None:
    """It waits before its call, around either kind of handler; the jobs go back."""
    tasks: TaskRegistry[None] = TaskRegistry()
    steps = list[str]()

    @tasks.middleware
    async def waiting(call_next: CallNext, ctx: WorkerContext[None]) -> Any:
        steps.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            steps.append("ended")

    @tasks.task("async")
    async def is_async() -> None: ...

    @tasks.task("sync")
    def is_sync() -> None: ...

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk([is_async.job(), is_sync.job()])
        async with WorkerRunner(WorkerConfig(dsn, shutdown_timeout=timedelta(milliseconds=50)), tasks):
            await eventually(lambda: len(steps) == 2)
    assert sorted(steps) == ["begun", "begun", "ended", "ended"]
    assert [row[1] for row in await rows(dsn, STATES)] == [0, 0]


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_lost_job_ends_its_middleware(dsn: str, eventually: Eventually, kind: str) -> None:
    """Whatever waits on the loop is cancelled, also around a synchronous handler that has not begun."""
    tasks: TaskRegistry[None] = TaskRegistry()
    begun, ended = asyncio.Event(), asyncio.Event()

    @tasks.middleware
    async def waiting(call_next: CallNext, ctx: WorkerContext[None]) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    @tasks.task("async")
    async def is_async() -> None: ...

    @tasks.task("sync")
    def is_sync() -> None: ...

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), tasks) as runner:
        await client.enqueue(is_async.job() if kind == "async" else is_sync.job())
        await eventually(begun.is_set)
        executor = runner._attended().one.executor
        [running] = executor.held.values()
        executor.held.lose(running)
        await eventually(ended.is_set)


def test_middleware_that_wraps_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A synchronous one in a registry of async handlers, once; not one that wraps a handler of another task."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.middleware
    def in_thread(call_next: SyncCallNext, ctx: WorkerContext[None]) -> Any:
        return call_next()

    @tasks.task("a")
    async def a() -> None: ...

    @tasks.task("b")
    async def b() -> None: ...

    WorkerRunner(WorkerConfig("postgresql://"), tasks)
    [record] = caplog.records
    assert "in_thread is synchronous and wraps no handler" in record.getMessage()

    @tasks.task("c")
    def c() -> None: ...

    WorkerRunner(WorkerConfig("postgresql://"), tasks)
    assert len(caplog.records) == 1
