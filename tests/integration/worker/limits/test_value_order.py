"""Values of a limit take turns: one with many jobs does not keep the slots of a lane for itself."""

from __future__ import annotations

from typing import Any

import pytest

from backfill import BackfillClient, Limit, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner
from fleet.processes import nothing_locked

from plugins.periods import work_for
from plugins.waiting import Eventually

MANY = 1500


@pytest.mark.parametrize("slots", [1, 4])
async def test_an_urgent_job_of_another_value_comes_soon(dsn: str, eventually: Eventually, slots: int) -> None:
    """Short jobs of one value follow each other with the shares of those that end, but not until all have run."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = list[str]()

    @tasks.task("t", limit=Limit(10, by="tenant"))
    async def t(payload: dict[str, Any]) -> None:
        ran.append(payload["tenant"])
        await work_for(0.01)

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk("t", [{"tenant": "many"}] * MANY, limit_by="tenant")
        async with WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(slots)]), tasks):
            await eventually(lambda: len(ran), lambda count: count >= 20 * slots)
            await client.enqueue("t", {"tenant": "urgent"}, priority=-5, limit_by="tenant")
            before = len(ran)
            await eventually(lambda: "urgent" in ran, lambda found: found)
            assert ran.index("urgent") - before <= 75 * slots  # a third of a second, and threefold room
    assert await nothing_locked(dsn) == []
