"""Rates: so many jobs start in a period in the whole fleet, none earlier than its time, and bursts as declared."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, NewJob, Rate
from fleet.processes import fleet_of, jobs_left, nothing_locked

from reading import rows

pytestmark = pytest.mark.timeout(900)  # much work, for a machine that is busy with other things too

BEGAN: LiteralString = "select extract(epoch from began)::float8 from attempts order by began"


async def _starts(dsn: str) -> list[float]:
    return [float(row[0]) for row in await rows(dsn, BEGAN)]


@pytest.mark.parametrize(("seconds", "least"), [(4, 0.85), pytest.param(60, 0.95, marks=pytest.mark.long)])
async def test_a_rate_is_kept_within_5_percent(dsn: str, eventually: Any, seconds: int, least: float) -> None:
    """100 a second over some time, by 4 processes, with the time of the database that handlers record.

    In the short form they may be fewer, since other tests run beside it; they are never more.
    """
    jobs = 100 * seconds
    async with BackfillClient(dsn) as client:
        await client.set_limit("limited_span", rate=Rate(100))
    async with BackfillClient(dsn) as client, fleet_of(4, dsn, concurrency=8) as fleet:
        await client.enqueue_bulk(NewJob("limited_span", {"seconds": 0.0}) for _ in range(jobs))
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=30 + 3 * seconds, moving=True)
        assert await fleet.stop() == [0] * 4
    starts = await _starts(dsn)
    assert len(starts) == jobs
    took = starts[-1] - starts[50]  # the first ones are recorded late, until the handlers' connections are made
    assert least <= (jobs - 51) / 100 / took <= 1.05
    assert await nothing_locked(dsn) == []


async def test_a_burst_is_as_declared(dsn: str, eventually: Any) -> None:
    """After a pause ten start at once, then they are spread evenly: 20 a second."""
    async with BackfillClient(dsn) as client:
        await client.set_limit("limited_span", rate=Rate(20, burst=10))
    async with BackfillClient(dsn) as client, fleet_of(1, dsn, concurrency=32) as fleet:
        await client.enqueue_bulk(NewJob("limited_span", {"seconds": 0.0}) for _ in range(50))
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=60, moving=True)
        assert await fleet.stop() == [0]
    starts = await _starts(dsn)
    assert starts[9] - starts[0] < 0.5
    for number, start in enumerate(starts[10:], 1):
        # The first one is recorded a little later than it starts.
        assert start >= starts[0] + number * 0.05 - 0.4
    assert starts[-1] - starts[9] <= 40 * 0.05 + 1.5


async def test_starts_of_a_slow_rate_are_waited_for_exactly(dsn: str, eventually: Any) -> None:
    """Three in two seconds: no start comes early, and none of them waits for a poll."""
    async with BackfillClient(dsn) as client:
        await client.set_limit("limited_span", rate=Rate(3, per=timedelta(seconds=2)))
    async with BackfillClient(dsn) as client, fleet_of(2, dsn, concurrency=4) as fleet:
        await client.enqueue_bulk(NewJob("limited_span", {"seconds": 0.0}) for _ in range(5))
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=60, moving=True)
        assert await fleet.stop() == [0, 0]
    gaps = [later - earlier for earlier, later in itertools.pairwise(await _starts(dsn))]
    assert sum(gaps) >= 4 * 2 / 3 - 0.5  # the first one is recorded later than it starts, on a busy machine
    assert sum(gaps) <= 4 * 2 / 3 + 1.5
