"""`process_available_jobs` returns as soon as nothing is left, whatever the backlog looks like, and at an even rate."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from statistics import median
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backfill import BackfillClient, JobSpec, NewJob, Queue, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.worker.lanes import scan_cursor as horizon

from reading import rows

NEVER = timedelta(hours=1)
"""No poll may be what ends the waiting."""
PROMPT = 1.0
"""Seconds from the last handler's end to the return that are promised; tests allow three times as much."""
LIMIT = 30.0

kinds = st.tuples(
    st.sampled_from([-30_000, -5, 0, 0, 3, 5]),
    st.sampled_from([None, None, "first", "second"]),
    st.sampled_from([timedelta(0), timedelta(0), timedelta(milliseconds=30), NEVER]),
)
"""Priority, queue and delay of some jobs."""
backlogs = st.lists(st.tuples(st.integers(1, 700), kinds), min_size=1, max_size=4)


class Ends:
    """A task that ends at once and notes when, and one that takes a turn of the loop."""

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.count = 0
        self.last = time.monotonic()
        self.tasks.task("quick")(self._quick)
        self.tasks.task("turn")(self._turn)

    async def _quick(self, payload: Any) -> None:
        self.count, self.last = self.count + 1, time.monotonic()

    async def _turn(self, payload: Any) -> None:
        await asyncio.sleep(0)
        self.count, self.last = self.count + 1, time.monotonic()


async def _process(dsn: str, ends: Ends, concurrency: int) -> float:
    """Seconds from the last handler's end to the return."""
    ends.count, ends.last = 0, time.monotonic()
    runner = WorkerRunner(WorkerConfig(dsn, concurrency=concurrency, poll_interval=NEVER), ends.tasks)
    async with asyncio.timeout(LIMIT):
        ran = await runner.process_available_jobs()
    assert ran == ends.count
    return time.monotonic() - ends.last


@given(backlog=backlogs, concurrency=st.sampled_from([1, 2, 10, 100]), task=st.sampled_from(["quick", "turn"]))
@example(backlog=[(6000, (0, None, timedelta(0))), (200, (5, None, timedelta(0)))], concurrency=10, task="quick")
@example(backlog=[(200, (0, None, timedelta(0)))], concurrency=10, task="quick")
@example(backlog=[(400, (0, "first", timedelta(0))), (700, (0, None, NEVER))], concurrency=10, task="turn")
@settings(max_examples=20)
async def test_it_returns_soon_after_the_last_end(
    dsn: str, backlog: list[tuple[int, tuple[int, str | None, timedelta]]], concurrency: int, task: str
) -> None:
    """Many shapes of backlog, with no poll to come to its help.

    All that was due has run, and what is due later has not.
    """
    ends = Ends()
    now = later = 0
    async with BackfillClient(dsn) as client:
        for count, (priority, queue, delay) in backlog:
            lane = Queue.parallel() if queue is None else Queue.serial(queue)
            spec = JobSpec(priority=priority, queue=lane, delay=delay)
            await client.enqueue_bulk([NewJob(task, number, spec) for number in range(count)])
            now += count if not delay else 0
            later += count if delay == NEVER else 0
    total = sum(count for count, _ in backlog)
    idle = await _process(dsn, ends, concurrency)
    left = await rows(dsn, "delete from graphile_worker._private_jobs returning locked_at")
    assert now <= ends.count == total - len(left) <= total - later
    assert all(locked_at is None for [locked_at] in left)
    assert idle < 3 * PROMPT


async def test_it_does_not_wait_until_a_look_can_be_afforded(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However dear a look was: nothing else is left to do that it could keep waiting."""
    monkeypatch.setattr(horizon, "SHARE", 1e6)
    ends = Ends()
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk([NewJob("quick", number) for number in range(3000)])
        await client.enqueue_bulk([NewJob("quick", n, JobSpec(queue=Queue.serial(f"queue {n}"))) for n in range(30)])
    assert await _process(dsn, ends, 10) < 3 * PROMPT
    assert ends.count == 3030


async def test_no_run_of_several_takes_much_longer_than_the_others(dsn: str) -> None:
    """The same backlog of no-op jobs again and again: the slowest run is held against the median; a second is free."""
    ends, seconds = Ends(), list[float]()
    async with BackfillClient(dsn) as client:
        for _ in range(9):
            await client.enqueue_bulk([NewJob("quick", number) for number in range(6000)])
            began = time.monotonic()
            await _process(dsn, ends, 10)
            seconds.append(time.monotonic() - began)
    assert max(seconds) < 3 * median(seconds) + 1.0, seconds
