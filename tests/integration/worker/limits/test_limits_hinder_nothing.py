"""A limit that is full costs other jobs hardly anything, however many jobs wait for it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from backfill import BackfillClient, Limit, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

from plugins.waiting import Eventually

pytestmark = pytest.mark.timeout(900)  # much work, for a machine that is busy with other things too


@pytest.mark.parametrize(
    ("jobs", "limited", "least"), [(12_000, 30_000, 0.4), pytest.param(20_000, 100_000, 0.8, marks=pytest.mark.long)]
)
async def test_others_run_behind_many_jobs_of_a_full_limit(
    dsn: str, eventually: Eventually, jobs: int, limited: int, least: float
) -> None:
    """At least at 0.8 of the pace that they have in a queue without the limited ones; the best of five each.

    The two queues are measured in turn, since other tests run beside this one. The short form asks for less for that
    reason: each pace takes but a second.
    """
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

    schemas = ("graphile_worker", "beside")
    paces = dict.fromkeys(schemas, 0.0)
    async with AsyncExitStack() as stack:
        clients = {}
        for schema in schemas:
            client = clients[schema] = BackfillClient(dsn, schema=schema, migrate=True)
            await stack.enter_async_context(client)
            await client.set_limit("t", limit=Limit(1))
            config = WorkerConfig(dsn, schema=schema, queues=[QueueConfig.default_queue(50)])
            await stack.enter_async_context(WorkerRunner(config, tasks))
        await clients["graphile_worker"].enqueue("t", 0)
        await begun.wait()
        await clients["graphile_worker"].enqueue_bulk("t", range(limited))
        for _ in range(5):
            for schema in schemas:
                paces[schema] = max(paces[schema], await pace(clients[schema]))
        release.set()  # else the worker would wait for its running job before it ends
    assert paces["graphile_worker"] >= least * paces["beside"]
