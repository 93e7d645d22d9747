"""Progress and checkpoints: what a handler says is kept across attempts, and goes with its job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest

from backfill import (
    BackfillClient,
    Discard,
    InvalidJobError,
    InvalidPayloadError,
    Progress,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from reading import rows, value

Eventually = Callable[..., Awaitable[None]]
JOBS = "graphile_worker._private_jobs"
KEPT = "select count(*) from graphile_worker.backfill_progress"
DUE = f"update {JOBS} set run_at = now() - interval '1 second'"
HOUR = timedelta(hours=1)
LATER = RetryPolicy(9, HOUR, HOUR, 1.0, 0.0)
Context = WorkerContext[None]


async def run(dsn: str, tasks: TaskRegistry[Any], times: int = 1) -> None:
    """Run what is due, so often, and make what waits due before each time."""
    for _ in range(times):
        await rows(dsn, DUE)
        await WorkerRunner(WorkerConfig(dsn, retry=LATER), tasks).process_available_jobs()


def said(found: Progress | None) -> tuple[Any, ...]:
    """What a handler has said."""
    assert found is not None
    return found.attempt, found.done, found.total, found.note, found.checkpoint


async def test_the_next_attempt_goes_on(dsn: str) -> None:
    """A failed attempt's last word is written with its end, the next one finds its checkpoint, and then all is gone."""
    tasks, seen = TaskRegistry[None](), []

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        seen.append(context.checkpointed)
        for number in range(10):
            context.set_progress(number, 30, "reading")
            context.checkpoint({"row": len(seen) * 10 + number})
        if len(seen) < 3:
            raise ValueError("no")

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(step, {})
        assert await client.progress(job) is None
        before = datetime.now(UTC) - timedelta(minutes=1)
        await run(dsn, tasks)
        found = await client.progress(job)
        assert said(found) == (1, 9, 30, "reading", {"row": 19})
        assert found is not None and before < found.at and found.fraction == 9 / 30
        row = await client.get_job(job)
        assert row is not None and row.flags == ("backfill.progress",)
        await run(dsn, tasks)
        assert said(await client.progress(job)) == (2, 9, 30, "reading", {"row": 29})
        await run(dsn, tasks)
        assert await client.progress(job) is None
    assert seen == [None, {"row": 19}, {"row": 29}]
    assert await value(dsn, KEPT) == 0
