"""Worker processes that schedule are killed again and again: each run is there once, and none is late."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString

import pytest

from backfill.cron import parse_crontab
from fleet.processes import RECURRING, Fleet, fleet_of, jobs_left
from fleet.ticks import Ticks, expected, missing, more_than

from plugins.periods import let_pass, let_pass_until
from plugins.waiting import Eventually
from reading import rows, value

ITEMS = 60
WORKERS = 4
ALL_KNOWN: LiteralString = "select count(*), max(known_since) from graphile_worker._private_known_crontabs"
OLDEST: LiteralString = "select coalesce(min(last_execution), 'epoch') from graphile_worker._private_known_crontabs"


LOCKED: LiteralString = "select count(*) from graphile_worker._private_jobs where locked_by = any(%s)"


@dataclass(frozen=True)
class Form:
    """How much of the test is done.

    Attributes:
        line: an item.
        between: the seconds between two of its runs.
        lasts: how long the fleet schedules at least.
        kills: how many workers are killed at least.
        latest: within how many seconds after its time a run has to be there; a time in which the whole machine stood
            still, so that the test itself did, counts extra.
    """

    line: str
    between: int
    lasts: timedelta
    kills: int
    latest: float


SECONDS = Form("* * * * * {task} ?every=1s", 1, timedelta(seconds=10), 6, 6.0)
MINUTES = Form("* * * * * {task}", 60, timedelta(minutes=10), 12, 2.0)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("form", [SECONDS, pytest.param(MINUTES, marks=pytest.mark.long)], ids=["short", "full"])
async def test_schedulers_are_killed(dsn: str, form: Form, eventually: Eventually) -> None:
    """Four processes with sixty items; one after the other is killed, often while the runs of a moment are added."""
    seed = int(os.environ.get("BACKFILL_SEED") or random.randrange(2**32))
    print(f"BACKFILL_SEED={seed}")
    text = "\n".join(form.line.format(task=f"item{number}") for number in range(ITEMS))
    ticks = Ticks(dsn)
    await ticks.open()
    async with (
        _stalls_of_this_process() as stalls,
        fleet_of(WORKERS, dsn, dead_after=2.0, program=RECURRING, words=(text,)) as fleet,
    ):
        [[_, start]] = await eventually(lambda: rows(dsn, ALL_KNOWN), lambda found: found[0][0] == ITEMS)
        await _kill(fleet, random.Random(seed), form, start + form.lasts)
        end = await value(dsn, "select clock_timestamp()")
        await eventually(lambda: value(dsn, OLDEST), lambda oldest: oldest >= end, timeout=90)
        await eventually(lambda: value(dsn, LOCKED, fleet.killed), lambda left: left == 0)
        assert await fleet.stop() == [0] * WORKERS
    found = [tick for tick in await ticks.all() if start < tick.run < end]
    wanted = expected(parse_crontab(text), start + timedelta(microseconds=1), end)
    assert len(wanted) >= ITEMS * 10
    assert missing(found, wanted) == []
    assert more_than(found, wanted) == []
    assert [tick for tick in found if tick.backfilled or not tick.at_its_run] == []
    lateness = sorted(tick.late for tick in found)
    print(f"late: half {lateness[len(found) // 2]:.3f} s, all {lateness[-1]:.3f} s; the test stood {max(stalls):.3f} s")
    assert lateness[-1] <= form.latest + max(stalls)
    assert await jobs_left(dsn) < len(found) / 2, "they are run, too"


@asynccontextmanager
async def _stalls_of_this_process() -> AsyncIterator[list[float]]:
    """How much later than asked for this process went on, each time."""
    stalls = [0.0]

    async def look() -> None:
        loop = asyncio.get_running_loop()
        while True:
            moment = loop.time() + 0.02
            await let_pass_until(moment)
            stalls.append(loop.time() - moment)

    watching = asyncio.create_task(look())
    try:
        yield stalls
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _kill(fleet: Fleet, chance: random.Random, form: Form, until: datetime) -> None:
    """Kill workers, and start another for each: about a time of runs and at any time, in turn."""
    while datetime.now(UTC) < until or len(fleet.killed) < form.kills:
        pause = chance.uniform(0, form.between)
        if len(fleet.killed) % 2 == 0:
            pause = form.between - datetime.now(UTC).timestamp() % form.between + chance.uniform(-0.05, 0.15)
        await let_pass(max(pause, 0.0))
        await fleet.kill(chance.choice(fleet.workers))
        await fleet.start()
