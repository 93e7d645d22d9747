"""How a synchronous handler learns that it should end: whether the worker stops, or its own time is over."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import timedelta

import pytest

from backfill import BackfillClient, Snooze, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner


async def test_a_handler_that_is_asked_by_a_stop_keeps_its_attempt(dsn: str) -> None:
    """`ctx.stopping` tells it so; it snoozes, which costs nothing, even in the only attempt."""
    tasks, begun = TaskRegistry(), threading.Event()

    @tasks.task("long")
    def long(ctx: WorkerContext[None]) -> None:
        assert not ctx.stopping
        begun.set()
        while not ctx.should_stop:
            ctx._stop.wait(1)
        assert ctx.stopping
        raise Snooze(timedelta(0))

    async with BackfillClient(dsn) as client:
        outcome = await client.enqueue("long", max_attempts=1)
        async with WorkerRunner(WorkerConfig(dsn), tasks):
            await asyncio.to_thread(begun.wait, 60)
        job = await client.get_job(outcome)
    assert job is not None
    assert (job.attempts, job.locked_by) == (0, None)


async def test_a_handler_out_of_time_is_told_apart_and_named_in_the_log(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`ctx.stopping` is False; a warning tells that nothing ends the thread, and one that returns is completed."""
    tasks, seen = TaskRegistry(), []

    @tasks.task("slow", timeout=timedelta(milliseconds=50))
    def slow(ctx: WorkerContext[None]) -> None:
        ctx._stop.wait(60)
        seen.append((ctx.should_stop, ctx.stopping))

    async with BackfillClient(dsn) as client:
        await client.enqueue(slow.job())
        with caplog.at_level(logging.WARNING):
            assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 1
    assert seen == [(True, False)]
    [told] = [record for record in caplog.records if "runs longer than its timeout of 0:00:00.050000" in record.message]
    assert told.levelname == "WARNING"


async def test_a_failure_that_is_not_retried_says_so(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Though attempts are left, it was the last."""
    tasks = TaskRegistry()

    @tasks.task("t", no_retry=[KeyError])
    async def fail() -> None:
        raise KeyError("x")

    async with BackfillClient(dsn) as client:
        await client.enqueue(fail.job())
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    assert "failed in attempt 1 of 8 (it was the last: not to be retried): KeyError" in caplog.text
