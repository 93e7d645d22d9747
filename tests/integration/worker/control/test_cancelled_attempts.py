"""The record of an attempt whose job was cancelled, in the job's end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from backfill import (
    AttemptHow,
    BackfillClient,
    CancelStatus,
    JobCancelledError,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)

pytestmark = pytest.mark.leaves_rows


async def test_a_job_that_was_replaced_and_cancelled_keeps_the_number_of_its_attempt(dsn: str) -> None:
    """Whoever replaces a running job by its key takes its further attempts; the one that runs is still the first."""
    tasks = TaskRegistry[None]()
    begun = asyncio.Event()

    @tasks.task("waiting", keep=timedelta(hours=1))
    async def waiting() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), tasks):
        job = await client.enqueue(waiting, job_key="k", max_attempts=7)
        await asyncio.wait_for(begun.wait(), 30)
        await client.enqueue("other", job_key="k", delay=timedelta(hours=1))
        assert (await client.cancel(job)).status is CancelStatus.REQUESTED
        with pytest.raises(JobCancelledError):
            await client.result(job, timeout=30)
        [record] = await client.attempts(job)
        end = await client.end(job)
    assert (record.attempt, record.how) == (1, AttemptHow.CANCELLED)
    assert end is not None
    assert end.attempts == 1
