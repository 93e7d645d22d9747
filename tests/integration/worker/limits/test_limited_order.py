"""Limited jobs of serial queues in lanes of one slot, which wait for a look after each serial job."""

from __future__ import annotations

import asyncio
from typing import Any, LiteralString

import pytest

from backfill import (
    BackfillClient,
    Limit,
    NewJob,
    Queue,
    QueueConfig,
    Rate,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from fleet.processes import jobs_left

from plugins.periods import work_for
from plugins.waiting import Eventually
from reading import rows


@pytest.mark.parametrize(
    "limits",
    [
        {"limit": 1},
        {"limit": 4},
        {"limit": Limit(1, by="tenant")},
        {"rate": Rate(1_000)},
        {"limit": 2, "rate": Rate(500)},
    ],
    ids=["one", "several", "by a field", "a rate", "both"],
)
async def test_a_lane_of_one_slot_goes_on_where_all_its_tasks_are_limited(
    dsn: str, eventually: Eventually, limits: dict[str, Any]
) -> None:
    """It makes no usual looks, so it must not wait for one; the jobs of each queue run in order."""
    ran = dict[str, list[int]]()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", **limits)
    async def handler(payload: dict[str, Any]) -> None:
        await work_for(0.002)
        ran.setdefault(payload["queue"], []).append(payload["number"])

    async with BackfillClient(dsn) as client:
        for number in range(24):
            queue, tenant = f"q{number % 3}", f"tenant{number % 2}"
            payload = {"queue": queue, "tenant": tenant, "number": number}
            await client.enqueue("t", payload, queue=Queue.serial(queue) if number % 4 else Queue.parallel())
        async with WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(1)]), tasks):
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0, moving=True)
    for numbers in ran.values():
        serial = [number for number in numbers if number % 4]
        assert serial == sorted(serial)


async def test_a_lane_that_is_lowered_to_one_slot_goes_on(dsn: str, eventually: Eventually) -> None:
    """It waits for a look when it is lowered, and there may be none to come."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", limit=8)
    async def handler(_: int) -> None:
        await work_for(0.002)

    config = WorkerConfig(dsn, queues=[QueueConfig.default_queue(4)])
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks) as runner:
        await client.enqueue_bulk(NewJob("t", number) for number in range(300))
        await eventually(lambda: jobs_left(dsn), lambda left: left < 290)
        await client.set_concurrency(runner.config.queues[0].name, 1)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, moving=True)


async def test_trials_of_a_breaker_follow_each_other_in_a_lane_of_one_slot(dsn: str, eventually: Eventually) -> None:
    """A trial of a serial queue that fails is followed by the next one after the pause."""
    say: LiteralString = """
    select graphile_worker.backfill_say('breaker', 'task:t',
      jsonb_build_object('trips', 1, 'pause', 0.2, 'longest', 0.2, 'until', now() + interval '0.2 s'))"""
    ran = 0
    enough = asyncio.Event()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(_: int) -> None:
        nonlocal ran
        ran += 1
        if ran >= 4:
            enough.set()
        raise ConnectionError("away")

    await rows(dsn, say)
    async with BackfillClient(dsn) as client:
        for number in range(10):
            await client.enqueue("t", number, max_attempts=1, queue=Queue.serial(f"q{number % 2}"))
        async with WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(1)]), tasks):
            async with asyncio.timeout(20):
                await enough.wait()
