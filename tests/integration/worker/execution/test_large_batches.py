"""Batches of many items: what is left of one is written in time, since its worker writes nothing else meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from backfill import BackfillClient, BatchFailed, RetryPolicy, TaskRegistry, WorkerConfig, WorkerRunner

from reading import rows

LATER = RetryPolicy(9, timedelta(hours=1), timedelta(hours=1), 1.0, 0.0)
ITEMS = 60_000
LEFT = """
    select json_array_length(payload), payload ->> 0, payload ->> 1, payload ->> -1
    from graphile_worker._private_jobs"""


async def test_half_of_many_items_fail(dsn: str) -> None:
    """The time grows with the number of items, and not with its square, which would take minutes here."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("batch", batch=True, retry=LATER)
    async def run(items: list[str]) -> None:
        raise BatchFailed(range(1, len(items), 2), OSError("busy"))

    async with BackfillClient(dsn) as client:
        await client.enqueue("batch", [f"item {number}" for number in range(ITEMS)])
    async with asyncio.timeout(50):
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    assert await rows(dsn, LEFT) == [(ITEMS // 2, "item 1", "item 3", f"item {ITEMS - 1}")]
