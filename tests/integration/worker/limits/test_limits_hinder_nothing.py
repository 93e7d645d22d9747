"""A limit that is full costs other jobs hardly anything, however many jobs wait for it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from backfill import BackfillClient, Limit, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

from plugins.waiting import Eventually

pytestmark = pytest.mark.timeout(900)  # much work, for a machine that is busy with other things too


@pytest.mark.parametrize(("jobs", "limited"), [(12_000, 30_000), pytest.param(20_000, 100_000, marks=pytest.mark.long)])
async def test_others_run_behind_many_jobs_of_a_full_limit(
    dsn: str, eventually: Eventually, jobs: int, limited: int
) -> None:
    """At least at 0.8 of the pace that they have without the limited ones; the best of three each."""
    tasks: TaskRegistry[None] = TaskRegistry()
    begun, release, done = asyncio.Event(), asyncio.Event(), 0

    @tasks.task("t")
    async def t(_: Any) -> None:
        begun.set()
        await release.wait()

    @tasks.task("free")
    async def free(_: Any) -> None:
        nonlocal done
        done += 1

    async def pace(client: BackfillClient) -> float:
        nonlocal done
        done = 0
        await client.enqueue_bulk("free", range(jobs))
        start = time.monotonic()
        await eventually(lambda: done, lambda now: now >= jobs, timeout=120, moving=True)
        return jobs / (time.monotonic() - start)

    async with BackfillClient(dsn) as client:
        await client.set_limit("t", limit=Limit(1))
        async with WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(50)]), tasks):
            await client.enqueue("t", 0)
            await begun.wait()
            alone = max([await pace(client) for _ in range(3)])
            await client.enqueue_bulk("t", range(limited))
            behind = max([await pace(client) for _ in range(3)])
            release.set()  # else the worker would wait for its running job before it ends
    assert behind >= 0.8 * alone
