"""A handler that holds the event loop is named, with the line it stands on; others are not."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Any

import pytest

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerRunner
from fleet.processes import jobs_left

from plugins.periods import work_for
from plugins.waiting import Eventually


def _spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def test_a_handler_that_holds_the_loop_is_named_once(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """While it does, with its task and its line; a handler that waits, one in a thread and a short one are not."""
    tasks: TaskRegistry[None] = TaskRegistry()
    told_while_it_ran: list[bool] = []

    @tasks.task("spins")
    async def spins(seconds: float) -> None:
        _spin(seconds)
        told_while_it_ran.append(any("has held the event loop" in record.getMessage() for record in caplog.records))
        await asyncio.sleep(0)

    @tasks.task("waits")
    async def waits(seconds: float) -> None:
        await work_for(seconds)

    @tasks.task("threads")
    def threads(seconds: float) -> None:
        _spin(seconds)

    caplog.set_level(logging.WARNING, "backfill.worker.execution.watchdog")
    config = WorkerConfig(dsn, blocked_after=timedelta(milliseconds=200))
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks):
        for name in ("waits", "threads"):
            await client.enqueue(name, 0.7)
        await client.enqueue("spins", 0.01)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
        assert caplog.records == []
        outcome = await client.enqueue("spins", 1.0)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert told_while_it_ran == [False, True]
    [record] = caplog.records
    said: Any = record
    assert (said.levelname, said.job_id, said.task, said.attempt) == ("WARNING", outcome.id, "spins", 1)
    assert f"job {outcome.id} (spins) has held the event loop for 0." in record.getMessage()
    assert "test_watchdog.py:" in record.getMessage()
    assert " in _spin: " in record.getMessage()
