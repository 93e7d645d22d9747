"""Schedulers for a simulated day: whatever happens to clocks, schedulers and database, each run comes once."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString

import pytest

from backfill.cron import Schedule, runs_between
from backfill.hooks import CronJobScheduled
from backfill.worker.scheduling import scheduler

from reading import rows, value
from simulated_fleet import Fleet

SEED = int(os.environ.get("BACKFILL_SEED", "1"))
START = datetime(2026, 3, 28, 12, 0, 30, tzinfo=UTC)  # in the night that follows the clocks of Berlin change
MICROSECOND = timedelta(microseconds=1)
SCHEDULERS = 20
ADDED: LiteralString = """
    select tasks.identifier, jobs.payload -> '_cron' ->> 'ts', (jobs.payload -> '_cron' ->> 'backfilled')::boolean
    from graphile_worker._private_jobs as jobs
    join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id"""
BEHIND: LiteralString = """
    select count(*) from graphile_worker._private_known_crontabs as known
    where last_execution <> (
      select max((payload -> '_cron' ->> 'ts')::timestamptz)
      from graphile_worker._private_jobs as jobs
      join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id
      where tasks.identifier = known.identifier)"""


@dataclass(frozen=True)
class Day:
    """How long a day is, in seconds, and how long what happens in it takes."""

    seconds: float
    jump: float
    asleep: float
    away: float


def _items(chance: random.Random) -> list[Schedule]:
    """A thousand items: 60 run each minute, the others each hour or day, some of them in Berlin."""
    items = [Schedule(f"minutely-{number}", "* * * * *") for number in range(60)]
    for number in range(940):
        minute, hour = chance.randrange(60), chance.randrange(24)
        zone = "Europe/Berlin" if number % 10 == 0 else "UTC"
        when = f"{minute} * * * *" if number % 2 else f"{minute} {hour} * * *"
        items.append(Schedule(f"item-{number}", when, timezone=zone))
    return items


@pytest.mark.parametrize(
    "day",
    [
        Day(15 * 60, jump=150, asleep=240, away=100),
        pytest.param(
            Day(86_400, jump=2_400, asleep=3_600, away=600), marks=[pytest.mark.long, pytest.mark.timeout(3_600)]
        ),
    ],
    ids=["a quarter of an hour", "a day"],
)
async def test_each_run_of_a_day_is_enqueued_once(dsn: str, day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand items over 20 schedulers, with all that can happen to time: each run is enqueued exactly once.

    The clock jumps forth and back; one scheduler reads a clock that is a minute ahead; one sleeps for long between two
    looks, another in the middle of one; the database is away for minutes, and the last answers before are lost; workers
    come and go.
    """
    monkeypatch.setattr(scheduler, "STATEMENT_SECONDS", 600.0)  # of the scheduler that sleeps in the middle of a look
    chance = random.Random(SEED)
    items = _items(chance)
    fleet = Fleet(dsn, START, items, SEED)
    try:
        for number in range(SCHEDULERS):
            await fleet.join(ahead=60.0 if number == SCHEDULERS - 1 else 0.0)
        members = list(fleet.members.values())
        fleet.set_at(0.10 * day.seconds, fleet.world, jumped=day.jump)
        fleet.set_at(0.20 * day.seconds, members[0], asleep_until=0.20 * day.seconds + day.asleep)
        fleet.set_at(0.30 * day.seconds, fleet.world, jumped=-day.jump / 2)
        fleet.at(0.40 * day.seconds, _stalling(fleet, 1, day.asleep))
        for number in range(2, SCHEDULERS, 3):
            fleet.set_at(0.60 * day.seconds - 65, members[number].client, lose_answer=True)
        fleet.set_at(0.60 * day.seconds, fleet.world, is_away=True)
        fleet.set_at(0.60 * day.seconds + day.away, fleet.world, is_away=False)
        fleet.set_at(0.75 * day.seconds, fleet.world, jumped=0.0)
        for number in range(2, 8):
            fleet.at((0.70 + number / 100) * day.seconds, _replacing(fleet, number))
        await fleet.run(day.seconds)
        await fleet.look_once_more()
        assert fleet.failed > SCHEDULERS
        told = [event for one in {*members, *fleet.members.values()} for event in one.events]
    finally:
        await fleet.close()
    found = await rows(dsn, ADDED)
    known_since = dict(await rows(dsn, "select identifier, known_since from graphile_worker._private_known_crontabs"))
    expected = Counter(
        (item.identifier, run)
        for item in items
        for run in runs_between(item, known_since[item.identifier] + MICROSECOND, fleet.world.latest + MICROSECOND)
    )
    added = Counter((identifier, datetime.fromisoformat(run)) for identifier, run, _ in found)
    assert not expected - added, "runs that were left out"
    assert not added - expected, "runs that were enqueued twice, or that there are not"
    assert not any(backfilled for *_, backfilled in found)
    assert await value(dsn, BEHIND) == 0
    heard = Counter(
        (event.schedule.identifier, event.scheduled_at) for event in told if type(event) is CronJobScheduled
    )
    assert heard <= added
    assert len(added) > (day.seconds / 60) * 60


def _stalling(fleet: Fleet, number: int, seconds: float) -> Callable[[], Awaitable[None]]:
    async def do() -> None:
        fleet.stall(list(fleet.members.values())[number], seconds)

    return do


def _replacing(fleet: Fleet, number: int) -> Callable[[], Awaitable[None]]:
    async def do() -> None:
        await fleet.leave(fleet.members[f"w{number}"])
        await fleet.join()

    return do
