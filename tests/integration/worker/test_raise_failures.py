"""`process_available_jobs(raise_failures=True)`: what handlers raised comes to the caller."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from backfill import BackfillClient, RetryPolicy, Snooze, TaskRegistry, WorkerConfig, WorkerRunner

from reading import rows


def registry() -> TaskRegistry[None]:
    """Tasks that end in each way."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("fine")
    async def fine(payload: Any) -> None: ...

    @tasks.task("wrong", retry=RetryPolicy(initial_delay=timedelta(0)))
    async def wrong(payload: Any) -> None:
        raise ValueError(payload)

    @tasks.task("thread")
    def thread(payload: Any) -> None:
        raise KeyError(payload)

    @tasks.task("slow", timeout=timedelta(milliseconds=20))
    async def slow(payload: Any) -> None:
        await asyncio.Event().wait()

    @tasks.task("exit")
    async def leave(payload: Any) -> None:
        raise SystemExit(payload)

    @tasks.task("later")
    async def later(payload: Any) -> None:
        raise Snooze(timedelta(hours=1))

    return tasks


async def test_each_failed_attempt_is_raised_once_all_is_done(dsn: str) -> None:
    """With a note that names job, task and attempt; the others are done, and the jobs are written as without it."""
    async with BackfillClient(dsn) as client:
        bad = await client.enqueue("wrong", 1, max_attempts=2)
        await client.enqueue_bulk("fine", range(20))
        for task in ("thread", "slow", "later"):
            await client.enqueue(task, 1)
    with pytest.raises(ExceptionGroup, match="4 of 25 attempts failed") as caught:
        await WorkerRunner(WorkerConfig(dsn), registry()).process_available_jobs(raise_failures=True)
    found = sorted((type(error).__name__, error.__notes__) for error in caught.value.exceptions)
    assert [name for name, _ in found] == ["KeyError", "TimeoutError", "ValueError", "ValueError"]
    notes = [note for _, lines in found for note in lines if f"job {bad.id} " in note]
    assert sorted(notes) == [f"in job {bad.id} (wrong), attempt {n} of 2" for n in (1, 2)]
    left = await rows(dsn, "select count(*), count(last_error), count(locked_by) from graphile_worker._private_jobs")
    assert left == [(3, 2, 0)]
    assert await rows(dsn, "select task_identifier from graphile_worker.backfill_dlq") == [("wrong",)]


async def test_an_exit_of_a_handler_is_in_the_group(dsn: str) -> None:
    """It is no Exception, so that the group is none either."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("exit", 3)
    with pytest.raises(BaseExceptionGroup) as caught:
        await WorkerRunner(WorkerConfig(dsn), registry()).process_available_jobs(raise_failures=True)
    assert not isinstance(caught.value, ExceptionGroup)
    assert [type(error) for error in caught.value.exceptions] == [SystemExit]


async def test_nothing_is_raised_where_nothing_failed_or_nobody_asks(dsn: str) -> None:
    """It returns how many ran; without the argument failures are jobs' matters alone."""
    tasks = registry()
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk("fine", range(3))
        assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs(raise_failures=True) == 3
        await client.enqueue("thread", 1)
        assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 1
