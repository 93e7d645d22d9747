"""A job of many steps whose worker is killed again and again: it goes on from its last checkpoint each time."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

import pytest

from backfill import BackfillClient, RetryPolicy
from fleet.processes import Fleet, fleet_of, jobs_left

from plugins.periods import let_pass_until
from plugins.waiting import Eventually
from reading import rows, value

REPEATED: LiteralString = """
    select extract(epoch from max(before.at) - min(before.at))::float8
    from steps as before
    where before.attempt = %s
      and before.step >= (select min(after.step) from steps as after where after.attempt = %s)"""
"""For how many seconds an attempt worked on steps that the next attempt did again."""

FIRST: LiteralString = "select min(step) from steps where attempt = %s"


@dataclass(frozen=True)
class Form:
    """How much of the test is done: steps of 15 ms, and kills."""

    steps: int
    kills: int


SOON = timedelta(milliseconds=100)
AT_ONCE = RetryPolicy(20, SOON, SOON, 1.0, 0.0)
SHORT = Form(steps=420, kills=2)
FULL = Form(steps=1_000, kills=5)


async def _holder(fleet: Fleet, dsn: str, attempt: int, eventually: Eventually) -> str:
    """The worker that works on an attempt, once it has begun."""
    begun: LiteralString = "select max(worker) from steps where attempt = %s"
    await eventually(lambda: value(dsn, begun, attempt))
    worker = str(await value(dsn, begun, attempt))
    assert worker in fleet.workers
    return worker


@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", [SHORT, pytest.param(FULL, marks=pytest.mark.long)], ids=["short", "full"])
async def test_a_kill_costs_three_seconds_of_work_at_most(dsn: str, eventually: Eventually, form: Form) -> None:
    """Every step is done, and each attempt goes on behind the first step of the one before.

    The first attempt is killed after more than three seconds, the others at times that are drawn.
    """
    seed = int(os.environ.get("BACKFILL_SEED", "1"))
    draw, loop = random.Random(seed), asyncio.get_running_loop()
    async with BackfillClient(dsn) as client, fleet_of(2, dsn, dead_after=2.0) as fleet:
        job = await client.enqueue("steps", form.steps, retry=AT_ONCE)
        for kill in range(1, form.kills + 1):
            holder = await _holder(fleet, dsn, kill, eventually)
            await eventually(lambda: client.progress(job), lambda found, now=kill: found and found.attempt == now)
            await let_pass_until(loop.time() + (2.5 if kill == 1 else draw.uniform(0.2, 1.0)))
            await fleet.kill(holder)
            await fleet.start()
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
        assert await fleet.stop() == [0, 0]
    assert await value(dsn, "select count(distinct step) from steps") == form.steps, f"seed {seed}"
    for kill in range(1, form.kills + 1):
        seconds = await value(dsn, REPEATED, kill, kill + 1)
        assert seconds is None or seconds <= 3.0, (seed, kill, seconds)
        assert await value(dsn, FIRST, kill) < await value(dsn, FIRST, kill + 1), (seed, kill)
    assert await value(dsn, "select max(attempt) from steps") == form.kills + 1
    assert await rows(dsn, "select job_id from graphile_worker.backfill_progress") == []
