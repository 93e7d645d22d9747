"""What a worker proves of its express tasks, as its log says it; windows of a second, so that only the loop counts."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from typing import Final

import pytest

from backfill import BackfillClient, RetryPolicy, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.worker.express import proofs
from backfill.worker.express.proofs import LOOKED_AT, MOST_SLOW, NEEDED
from fleet.processes import jobs_left

from plugins.periods import work_for
from plugins.waiting import Eventually

PROOFS: Final = "backfill.worker.express.proofs"
TOO_MANY: Final = int(LOOKED_AT * MOST_SLOW) + 1


async def test_handlers_that_hold_the_loop_lose_the_proof(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Though each of them ends within its window: the watchdog names them. Others keep theirs."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("spins", express=True)
    async def spins(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass

    @tasks.task("passes", express=True)
    async def passes() -> None:
        pass

    def said(level: int) -> list[str]:
        return [record.message for record in caplog.records if record.name == PROOFS and record.levelno == level]

    caplog.set_level(logging.DEBUG, PROOFS)
    config = WorkerConfig(
        dsn, concurrency=100, express_window=timedelta(seconds=1), blocked_after=timedelta(milliseconds=20)
    )
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks):
        await client.enqueue_bulk([job for _ in range(NEEDED) for job in (spins.job(0.0), passes.job())])
        await eventually(lambda: said(logging.DEBUG), lambda lines: len(lines) == 2)
        await client.enqueue_bulk([spins.job(0.1) for _ in range(TOO_MANY)])
        [line] = await eventually(lambda: said(logging.INFO))
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert line.startswith(f"task 'spins' runs the ordinary way until {NEEDED} more of its attempts have ended: ")
    assert f"{TOO_MANY} of its last {NEEDED + TOO_MANY} attempts" in line
    assert "take express=True from the task" in line


async def test_ordinary_attempts_prove_a_task_in_each_session(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Failures count too, since the worker has survived them; a new worker begins anew."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("fails", express=True, no_retry=[ValueError])
    async def fails() -> None:
        raise ValueError

    caplog.set_level(logging.DEBUG, PROOFS)
    config = WorkerConfig(dsn, concurrency=50, express_window=timedelta(seconds=1))
    for _ in range(2):
        caplog.clear()
        async with BackfillClient(dsn) as client, WorkerRunner(config, tasks):
            await client.enqueue_bulk([fails.job() for _ in range(NEEDED - 1)])
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
            assert not [record for record in caplog.records if record.name == PROOFS]
            await client.enqueue(fails.job())
            await eventually(lambda: "'fails' is proven" in caplog.text)


async def test_a_timeout_holds_within_a_window(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is shorter than the window. Until then the job shows as waiting, and its attempt counts in the end."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[tuple[int, datetime | None]] = []

    @tasks.task("waits", express=True, timeout=timedelta(milliseconds=200), retry=RetryPolicy(max_attempts=1))
    async def waits(patience: float, ctx: WorkerContext[None]) -> None:
        if patience:
            job = await client.get_job(ctx.job)
            assert job is not None
            seen.append((job.attempts, job.locked_at))
            await work_for(patience)

    monkeypatch.setattr(proofs, "NEEDED", 1)
    caplog.set_level(logging.DEBUG, PROOFS)
    config = WorkerConfig(dsn, express_window=timedelta(seconds=1))
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks):
        await client.enqueue(waits.job(0.0))
        await eventually(lambda: "'waits' is proven" in caplog.text)
        outcome = await client.enqueue(waits.job(60.0))
        [entry] = (await eventually(client.list_dlq_jobs, lambda page: page.jobs)).jobs
    assert seen == [(0, None)]
    assert (entry.original_job_id, entry.attempts) == (outcome.id, 1)
    assert "TimeoutError" in (entry.last_error or "")
