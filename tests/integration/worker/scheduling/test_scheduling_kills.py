"""Worker processes that schedule are killed again and again: each run is there once, and none is late."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString

import pytest

from backfill.cron import parse_crontab
from fleet.processes import RECURRING, Fleet, fleet_of, jobs_left
from fleet.ticks import Ticks, difference, expected

from plugins.periods import let_pass
from plugins.waiting import Eventually
from reading import rows, value

ITEMS = 60
WORKERS = 4
LATEST = 2.0
"""The seconds after its time within which a run has to be there."""
ALL_KNOWN: LiteralString = "select count(*), max(known_since) from graphile_worker._private_known_crontabs"
OLDEST: LiteralString = "select coalesce(min(last_execution), 'epoch') from graphile_worker._private_known_crontabs"


LOCKED: LiteralString = "select count(*) from graphile_worker._private_jobs where locked_by = any(%s)"


@dataclass(frozen=True)
class Form:
    """How much of the test is done: the line of an item, the time between its runs, and for how long they go on."""

    line: str
    between: timedelta
    lasts: timedelta


SECONDS = Form("* * * * * {task} ?every=1s", timedelta(seconds=1), timedelta(seconds=15))
MINUTES = Form("* * * * * {task}", timedelta(minutes=1), timedelta(minutes=10))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", [SECONDS, pytest.param(MINUTES, marks=pytest.mark.long)], ids=["short", "full"])
async def test_schedulers_are_killed(dsn: str, form: Form, eventually: Eventually) -> None:
    """Four processes with sixty items; one after the other is killed, often while the runs of a moment are added."""
    seed = int(os.environ.get("BACKFILL_SEED") or random.randrange(2**32))
    print(f"BACKFILL_SEED={seed}")
    text = "\n".join(form.line.format(task=f"item{number}") for number in range(ITEMS))
    ticks = Ticks(dsn)
    await ticks.open()
    async with fleet_of(WORKERS, dsn, dead_after=2.0, program=RECURRING, words=(text,)) as fleet:
        [[_, start]] = await eventually(lambda: rows(dsn, ALL_KNOWN), lambda found: found[0][0] == ITEMS)
        end = start + form.lasts
        await _kill_until(end, fleet, random.Random(seed), form.between.total_seconds())
        await eventually(lambda: value(dsn, OLDEST), lambda oldest: oldest >= end, timeout=90)
        await eventually(lambda: value(dsn, LOCKED, fleet.killed), lambda left: left == 0)
        assert len(fleet.killed) >= 5
        assert await fleet.stop() == [0] * WORKERS
    found = await ticks.all()
    wanted = expected(parse_crontab(text), start + timedelta(microseconds=1), end)
    assert len(wanted) >= ITEMS * 10
    assert difference(found, wanted, start, end) == ([], [])
    assert [tick for tick in found if tick.run < end and tick.late > LATEST] == []
    assert not any(tick.backfilled for tick in found)
    assert await jobs_left(dsn) < len(found) / 2, "they are run, too"


async def _kill_until(end: datetime, fleet: Fleet, chance: random.Random, between: float) -> None:
    """Kill workers until some time, and start another for each: about a time of runs and at any time, in turn."""
    while (left := (end - datetime.now(UTC)).total_seconds()) > 0:
        pause = chance.uniform(0, between)
        if len(fleet.killed) % 2 == 0:
            pause = between - datetime.now(UTC).timestamp() % between + chance.uniform(-0.05, 0.15)
        await let_pass(min(max(pause, 0), left))
        await fleet.kill(chance.choice(fleet.workers))
        await fleet.start()
