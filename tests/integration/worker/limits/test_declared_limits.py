"""Limits that the code of tasks declares: whose word counts in a fleet whose workers declare different ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, LiteralString

from backfill import BackfillClient, Limit, QueueConfig, Rate, TaskRegistry, WorkerConfig, WorkerRunner

from plugins.periods import work_for
from plugins.waiting import Eventually
from reading import rows

HELD: LiteralString = "select most, by_path, rate_count, source from graphile_worker.backfill_limits where task = 't'"


def _worker(dsn: str, **declared: Any) -> WorkerRunner[None]:
    """A worker whose code declares this of its task."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", **declared)
    async def t(_: dict[str, str]) -> None:
        """Do nothing."""

    return WorkerRunner(WorkerConfig(dsn), tasks)


async def test_the_newest_workers_word_counts(dsn: str, eventually: Eventually) -> None:
    """As in a rolling deploy: it holds while that worker lives; an operator's word goes before any of them."""

    async def held() -> list[Any]:
        return await rows(dsn, HELD)

    async def holds(*expected: Any) -> None:
        await eventually(held, lambda found: found == list(expected))

    async with BackfillClient(dsn) as client, _worker(dsn, limit=4):
        await holds((4, None, None, "worker"))
        async with _worker(dsn, limit=Limit(2, by="k"), rate=Rate(7, by="k")):
            await holds((2, "k", 7, "worker"))
            said = await client.set_limit("t", 9, reason="a test")
            await holds((9, None, None, "operator"))
            async with _worker(dsn):
                await client.undo(said)
                await holds()  # the newest one declares none
            await holds((2, "k", 7, "worker"))
        await holds((4, None, None, "worker"))
    await holds()


async def test_each_tenant_has_a_limit_of_its_own(dsn: str) -> None:
    """Three of them in a fleet of two workers with more slots than they may use: each uses its two, and no more."""
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", limit=Limit(2, by="tenant"))
    async def t(payload: dict[str, str]) -> None:
        tenant = payload["tenant"]
        running[tenant] += 1
        most[tenant] = max(most[tenant], running[tenant])
        await work_for(0.01)
        running[tenant] -= 1

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(t, [{"tenant": name} for name in "abc" * 20])
    config = WorkerConfig(dsn, queues=[QueueConfig.default_queue(10)])
    ran = await asyncio.gather(*[WorkerRunner(config, tasks).process_available_jobs() for _ in range(2)])
    assert sum(ran) == 60
    assert most == {"a": 2, "b": 2, "c": 2}


async def test_a_pass_runs_the_jobs_of_a_worker_whose_tasks_are_all_limited(dsn: str) -> None:
    """It does not end before it has looked for them: at its start it does not know the ids of its tasks yet."""
    async with BackfillClient(dsn) as client:
        for count in range(1, 9):
            await client.enqueue_bulk("t", [{}] * count)
            assert await _worker(dsn, limit=1).process_available_jobs() == count
