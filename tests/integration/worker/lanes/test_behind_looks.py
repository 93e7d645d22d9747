"""Looks behind the floors: a full lane has them too, and whoever ends once nothing is left waits for one."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, NewJob, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.worker.lanes import full_looks

from plugins.periods import work_for
from reading import rows

LATE: LiteralString = """
insert into graphile_worker._private_jobs (task_id, payload, priority, run_at)
select id, '7', -10, now() - interval '1 minute' from graphile_worker._private_tasks where identifier = 'late'
"""


async def test_a_lane_whose_slots_are_never_free_for_long_finds_late_commits(
    dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of 60 ms, a backlog without an end, and looks from the start that are dear.

    What is committed late is found.
    """
    monkeypatch.setattr(full_looks, "DEAR_SECONDS", -1.0)
    tasks: TaskRegistry[None] = TaskRegistry()
    late, done = asyncio.Event(), 0

    @tasks.task("slow")
    async def slow() -> None:
        nonlocal done
        done += 1
        await work_for(0.06)

    @tasks.task("late")
    async def run_late() -> None:
        late.set()

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob("slow", None) for _ in range(2_000))
        config = WorkerConfig(dsn, concurrency=4, poll_interval=timedelta(milliseconds=300))
        async with WorkerRunner(config, tasks):
            await eventually(lambda: done, lambda count: count >= 60)
            await rows(dsn, LATE)
            begun = time.monotonic()
            async with asyncio.timeout(15):
                await late.wait()
            assert time.monotonic() - begun < 6


async def test_what_is_committed_late_is_run_before_process_available_jobs_returns(
    dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is added, due for a minute, once the second line has seen that nothing is left: it runs as well."""
    monkeypatch.setattr(full_looks, "DEAR_SECONDS", -1.0)
    monkeypatch.setattr(full_looks, "_LAST", 1)
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = list[str]()
    config = WorkerConfig(dsn, concurrency=4, poll_interval=timedelta(milliseconds=50))

    @tasks.task("early")
    async def early() -> None:
        assert runner._parts is not None
        horizon = runner._parts.one.station.claimer.lanes[0].horizon
        await eventually(lambda: horizon.is_clear and horizon.floors[-10] > 0, bool)
        await rows(dsn, LATE)

    @tasks.task("late")
    async def run_late() -> None:
        ran.append("late")

    runner = WorkerRunner(config, tasks)
    async with BackfillClient(dsn) as client:
        await client.enqueue("late", None)
        await client.enqueue("early", None)
    assert await runner.process_available_jobs() == 3
    assert ran == ["late", "late"]
