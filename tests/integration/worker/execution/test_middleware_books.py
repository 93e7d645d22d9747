"""Whatever middleware raises, returns or leaves undone, each attempt ends once, and each job has ended or waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import (
    BackfillClient,
    CallNext,
    Discard,
    InvalidInput,
    NewJob,
    RateLimitExceeded,
    RetryPolicy,
    Snooze,
    SyncCallNext,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from plugins.periods import block_for, work_for
from reading import rows
from strategies import middleware_plans

Plan = dict[str, Any]


class Odd(BaseException):
    """An error that is no Exception. A SystemExit in a task of the program's own would end the test's event loop."""


ERRORS: dict[str, Any] = {
    "raise": lambda: ValueError("wrong"),
    "snooze": lambda: Snooze(timedelta(hours=1)),
    "discard": lambda: Discard("no need"),
    "later": lambda: RateLimitExceeded("slowly", retry_after=timedelta(hours=1)),
    "final": lambda: InvalidInput("never"),
    "odd": Odd,
    "cancelled": asyncio.CancelledError,
    "stop": StopAsyncIteration,
    "group": lambda: BaseExceptionGroup("several", [ValueError("one"), Odd()]),
}
PAUSE = 0.002


async def _step(steps: list[str]) -> None:
    for step in steps:
        if step != "wait":
            error = ERRORS[step]()
            raise error
        await work_for(PAUSE)


def _step_in_thread(steps: list[str]) -> None:
    for step in steps:
        if step != "wait":
            error = ERRORS[step]()
            raise error
        block_for(PAUSE)


def _middleware(name: str) -> Any:
    """An async middleware that does what its job's plan says."""

    async def middleware(call_next: CallNext, ctx: WorkerContext[None]) -> Any:
        deeds = ctx.job.payload[name]
        await _step(deeds["before"])
        result = None
        match deeds["call"]:
            case "call" | "twice":
                result = await call_next()
                if deeds["call"] == "twice":
                    await call_next()
            case "forget":
                call_next()
            case "task":
                left = asyncio.ensure_future(call_next())
                left.add_done_callback(lambda one: one.cancelled() or one.exception())
                await asyncio.sleep(0)
            case "catch":
                try:
                    result = await call_next()
                except Exception as error:
                    result = str(error)
        await _step(deeds["after"])
        return result if deeds["result"] is None else deeds["result"]

    return middleware


def _in_thread(call_next: SyncCallNext, ctx: WorkerContext[None]) -> Any:
    """A synchronous middleware that does what its job's plan says."""
    deeds = ctx.job.payload["thread"]
    _step_in_thread(deeds["before"])
    result = None
    match deeds["call"]:
        case "call" | "twice":
            result = call_next()
            if deeds["call"] == "twice":
                call_next()
        case "catch":
            try:
                result = call_next()
            except Exception as error:
                result = str(error)
    _step_in_thread(deeds["after"])
    return result if deeds["result"] is None else deeds["result"]


@settings(max_examples=15, deadline=None)
@given(plans=st.lists(middleware_plans, min_size=1, max_size=30))
async def test_the_books_balance(dsn: str, plans: list[Plan]) -> None:
    """The attempts that began are those that are counted as ended; no job is lost, locked or in two places."""
    await rows(dsn, "truncate graphile_worker._private_jobs, graphile_worker.backfill_dlq")
    await rows(dsn, "truncate graphile_worker.backfill_ends, graphile_worker.backfill_counters")
    tasks: TaskRegistry[None] = TaskRegistry()
    began, entered, left = Counter[int](), Counter[int](), Counter[int]()

    @tasks.middleware
    async def counting(call_next: CallNext, ctx: WorkerContext[None]) -> Any:
        began[ctx.job.id] += 1
        return await call_next()

    tasks.middleware(_middleware("outer"))
    tasks.middleware(_middleware("inner"))
    tasks.middleware(_in_thread)
    options: Any = {"keep": timedelta(hours=1), "retry": RetryPolicy(3, timedelta(0), timedelta(0), 1.0, 0.0)}

    @tasks.task("async", **options)
    async def is_async(plan: Plan, ctx: WorkerContext[None]) -> str:
        entered[ctx.job.id] += 1
        try:
            await _step(plan["handler"])
        finally:
            left[ctx.job.id] += 1
        return "done"

    @tasks.task("sync", **options)
    def is_sync(plan: Plan, ctx: WorkerContext[None]) -> str:
        entered[ctx.job.id] += 1
        try:
            _step_in_thread(plan["handler"])
        finally:
            left[ctx.job.id] += 1
        return "done"

    async with BackfillClient(dsn) as client:
        outcome = await client.enqueue_bulk(
            [NewJob(is_async if plan["kind"] == "async" else is_sync, plan) for plan in plans], return_ids=True
        )
        ids = set(outcome.ids or ())
        timeout = timedelta(seconds=60)
        ran = await WorkerRunner(WorkerConfig(dsn, shutdown_timeout=timeout), tasks).process_available_jobs()
        counts = await client.counters()
    assert ran == began.total()
    assert set(began) == ids
    assert entered == left, "a handler was left running"
    assert all(number <= began[job] for job, number in entered.items()), "a handler ran twice in one attempt"
    ended = sum(one.done + one.failed + one.snoozed + one.discarded + one.given_back for one in counts)
    assert ended == ran
    waiting = await rows(dsn, "select id, locked_by, locked_at from graphile_worker._private_jobs")
    assert {row[1:] for row in waiting} <= {(None, None)}
    places = [row[0] for row in waiting]
    places += [row[0] for row in await rows(dsn, "select original_job_id from graphile_worker.backfill_dlq")]
    kept = await rows(dsn, "select job_id from graphile_worker.backfill_ends where how in ('completed', 'discarded')")
    places += [row[0] for row in kept]
    assert sorted(places) == sorted(ids)
