"""A worker process that is told to stop while its database is away: it ends by its deadline, and says what it left."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from backfill import BackfillClient

from plugins.away import OwnServer
from plugins.waiting import Eventually
from programs import running, shell
from reading import rows

TASKS = """
import asyncio
from backfill import TaskRegistry, WorkerContext

tasks = TaskRegistry()

@tasks.task("hold")
async def hold(ctx: WorkerContext[None]) -> None:
    print("holding", flush=True)
    while not ctx.should_stop:
        await asyncio.sleep(0.01)
    print("let go", flush=True)
"""
DEADLINE = 60.0
"""Seconds: the shutdown timeout, ten for the last settlement, ten for the worker's row, and room."""


@pytest.mark.timeout(150)
async def test_a_stop_without_a_database_ends_with_what_was_left(
    own_server: OwnServer, tmp_path: Path, eventually: Eventually
) -> None:
    """With 5, and the next worker runs the job again."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    words = ("worker", "app_jobs:tasks", "--shutdown-timeout", "2s")
    environment = {"DATABASE_URL": own_server.dsn}
    async with BackfillClient(own_server.dsn, migrate=True) as client:
        job = await client.enqueue("hold")
    with running(shell(*words), environment=environment, folder=tmp_path) as worker:
        worker.wait_for("holding")
        await own_server.stop()
        worker.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        await eventually(lambda: worker.process.poll() is not None, timeout=DEADLINE)
        assert time.monotonic() - began < DEADLINE
        assert worker.end() == 5
    await own_server.start()
    left: list[tuple[Any, ...]] = await rows(
        own_server.dsn, "select id, attempts, locked_by is not null from graphile_worker._private_jobs"
    )
    assert left == [(job.id, 1, True)]
    await rows(own_server.dsn, "update graphile_worker.backfill_workers set given_up_at = now()")
    with running(shell(*words), environment=environment, folder=tmp_path) as worker:
        worker.wait_for("holding")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("let go")
        assert worker.end() == 0
    assert await rows(own_server.dsn, "select id from graphile_worker._private_jobs") == []
