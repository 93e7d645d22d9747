"""Limits of a whole fleet: never more jobs at once than may run, nearly as many as that, under kills too."""

from __future__ import annotations

import random
import time
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, Limit, NewJob
from fleet.processes import Fleet, fleet_of, jobs_left, nothing_locked

from reading import rows, value

pytestmark = pytest.mark.timeout(900)  # much work, for a machine that is busy with other things too

AT_ONCE: LiteralString = """
select coalesce(max(running), 0) from (
  select sum(step) over (order by at, step) as running
  from (
    select began as at, 1 as step from attempts
    union all
    select ended, -1 from attempts where ended is not null
    union all
    select gone.at, -1 from attempts join gone using (worker) where ended is null
  ) as steps
) as sums
"""
"""The most attempts at once; those of a killed worker ended with it."""


async def _pace(dsn: str, client: BackfillClient, task: str, jobs: int, eventually: Any) -> float:
    """How many of these jobs end in a second, without the first and the last ones."""
    await client.enqueue_bulk(task, range(jobs))
    await eventually(lambda: jobs_left(dsn), lambda left: left < jobs * 0.85, timeout=120, moving=True)
    begun, first = time.monotonic(), await jobs_left(dsn)
    await eventually(lambda: jobs_left(dsn), lambda left: left < jobs * 0.15, timeout=120, moving=True)
    seconds, last = time.monotonic() - begun, await jobs_left(dsn)
    await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=120, moving=True)
    return (first - last) / seconds


@pytest.mark.parametrize(
    ("most", "jobs", "least"),
    [
        (4, 800, 0.5),
        (32, 4_000, 0.5),
        pytest.param(4, 6_000, 0.9, marks=pytest.mark.long),
        pytest.param(32, 48_000, 0.9, marks=pytest.mark.long),
    ],
)
async def test_a_limit_costs_hardly_any_of_what_its_slots_can_do(
    dsn: str, eventually: Any, most: int, jobs: int, least: float
) -> None:
    """8 processes with a limit of n do at least 0.9 of what n slots do without one, with jobs of 20 ms.

    The short form asks for less, since it takes seconds, beside other tests. The best of two limited runs counts.
    """
    slots = max(most // 8, 4)
    async with BackfillClient(dsn) as client, fleet_of(most // slots, dsn, concurrency=slots) as fleet:
        await client.set_limit("limited_work", limit=Limit(most))
        free, limited = 0.0, 0.0
        free = max(free, await _pace(dsn, client, "short_work", jobs, eventually))
        for _ in range(8 - most // slots):
            await fleet.start()
        for _ in range(2):
            limited = max(limited, await _pace(dsn, client, "limited_work", jobs, eventually))
        assert await fleet.stop() == [0] * 8
    assert limited >= least * free


async def _kill_some(fleet: Fleet, dsn: str, eventually: Any, kills: int, jobs: int) -> None:
    """Kill one process after another, each when some more attempts have begun, and start another in its place."""
    chance = random.Random(kills)
    for number in range(kills):
        more = jobs * (number + 1) // (kills + 1)
        await eventually(
            lambda: value(dsn, "select count(distinct job_id) from attempts"),
            lambda now, more=more: now >= more,
            timeout=120, moving=True,
        )  # fmt: skip
        victim = chance.choice(fleet.workers)
        await fleet.kill(victim)
        await rows(dsn, "insert into gone values (%s, clock_timestamp())", victim)
        await fleet.start()


@pytest.mark.leaves_rows
@pytest.mark.parametrize(("most", "jobs", "kills"), [(4, 300, 3), pytest.param(32, 20_000, 20, marks=pytest.mark.long)])
async def test_never_more_run_at_once_than_may(dsn: str, eventually: Any, most: int, jobs: int, kills: int) -> None:
    """Recorded by the handlers with the database's time, while processes are killed.

    The shares of a killed worker come back with its recovery, so that all jobs are done in the end.
    """
    await rows(dsn, "create table gone (worker text, at timestamptz)")
    async with BackfillClient(dsn) as client:
        await client.set_limit("limited_span", limit=Limit(most))
    async with BackfillClient(dsn) as client, fleet_of(8, dsn, concurrency=most // 4, dead_after=2.0) as fleet:
        await client.enqueue_bulk(NewJob("limited_span", {"seconds": 0.02}) for _ in range(jobs))
        await _kill_some(fleet, dsn, eventually, kills, jobs)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=120, moving=True)
        assert await fleet.stop() == [0] * 8
        killed = fleet.killed
    assert await value(dsn, AT_ONCE) <= most
    assert await value(dsn, "select count(distinct job_id) from attempts where ended is not null") == jobs
    assert len(killed) == kills
    assert await nothing_locked(dsn) == []
