"""The connection of windows is cut after some number of bytes, at whatever point of a window's life that is."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from backfill import BackfillClient, NewJob, TaskRegistry, WorkerContext
from backfill.worker.express import line
from faults.cutting import CuttingProxy

from plugins.express import LEFT, in_windows, short
from plugins.periods import work_for
from plugins.waiting import Eventually
from reading import value

pytestmark = pytest.mark.usefixtures("proven")
JOBS = 24
"""How many jobs there are for each cut: those of a handful of windows."""
_LONGEST = {"client": 6_000, "server": 8_000}
"""About how many bytes go to and fro for them."""


@pytest.mark.parametrize("cuts", [12, pytest.param(1_000, marks=pytest.mark.long)])
async def test_wherever_it_is_cut_no_job_is_lost(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, cuts: int
) -> None:
    """Whether or not the last commit took effect before the cut: no job is lost, and few that completed run again."""
    ended, cancelled = Counter[int](), Counter[int]()
    tasks: TaskRegistry[None] = TaskRegistry()

    @short(tasks, "t")
    async def handler(number: int, ctx: WorkerContext[None]) -> None:
        assert ctx.attempt == 1
        try:
            if number % 3:
                await work_for(0.005 if number % 3 == 1 else 0.04)
        except asyncio.CancelledError:
            cancelled[number] += 1
            raise
        ended[number] += 1

    real, chance = line.connect, random.Random(cuts)

    async def connect(_: Any, **options: Any) -> Any:
        return await real(proxy.dsn, **options)

    monkeypatch.setattr(line, "connect", connect)
    number = 0
    async with (
        CuttingProxy(dsn).listening() as proxy,
        BackfillClient(dsn) as client,
        in_windows(dsn, tasks, concurrency=8),
    ):
        while proxy.cuts < cuts:
            side = chance.choice(["client", "server"])
            proxy.cut_after(chance.randrange(_LONGEST[side]), of=side)
            await client.enqueue_bulk(NewJob("t", number + more) for more in range(JOBS))
            number += JOBS
            await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert set(ended) == set(range(number))
    # The other line may take up a job that had completed before this one is back: it runs again then.
    assert max(ended.values()) <= 3
    assert sum(count > 1 for count in ended.values()) < number / 10
    assert sum(cancelled.values()) > 0
