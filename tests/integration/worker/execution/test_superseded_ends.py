"""A job that is replaced while it runs, and that its handler puts off or its worker gives back, leaves its end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from backfill import (
    AttemptHow,
    BackfillClient,
    EndHow,
    JobNotCompletedError,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)

pytestmark = pytest.mark.leaves_rows
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("how", [AttemptHow.SNOOZED, AttemptHow.INTERRUPTED])
async def test_whoever_awaits_it_is_told(dsn: str, how: AttemptHow) -> None:
    """The end says `superseded`, as where the handler fails, and has the attempt."""
    tasks = TaskRegistry[None]()
    begun, replaced = asyncio.Event(), asyncio.Event()

    @tasks.task("t", keep=HOUR)
    async def handler() -> None:
        begun.set()
        await replaced.wait()
        if how is AttemptHow.INTERRUPTED:
            await asyncio.Event().wait()
        raise Snooze(timedelta(0))

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(handler, job_key="k")
        async with WorkerRunner(WorkerConfig(dsn, shutdown_timeout=timedelta(0)), tasks):
            await asyncio.wait_for(begun.wait(), 30)
            await client.enqueue("other", job_key="k", delay=HOUR)
            replaced.set()
            if how is AttemptHow.SNOOZED:
                with pytest.raises(JobNotCompletedError):
                    await client.result(job, timeout=30)
        end = await client.end(job)
        assert end is not None
        assert end.how is EndHow.SUPERSEDED
        assert [record.how for record in await client.attempts(job)] == [how]
