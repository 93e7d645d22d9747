"""Rates of starts: never more than the burst and the time allow, and hardly fewer while somebody asks."""

from __future__ import annotations

import asyncio
import time

import pytest

from backfill.storage.value_claims import ValueLook
from share_takers import Field, Taker, session

from plugins.periods import let_pass

ASKERS = 6


@pytest.mark.parametrize(
    ("count", "burst", "seconds"),
    [(200, 20, 2.0), (40, 1, 2.0), pytest.param(100, 10, 30.0, marks=pytest.mark.long)],
)
async def test_starts_keep_to_the_rate(dsn: str, count: int, burst: int, seconds: float) -> None:
    """Several sessions that ask whenever they were told to start as many jobs as the rate says, but for a few."""
    starts: list[float] = []
    connections = [await session(dsn) for _ in range(ASKERS + 1)]
    field = Field(connections[0])
    await field.add(int(count * seconds) + burst + 100)
    await field.limit(None, (count, 1.0, burst))
    begun = time.monotonic()

    async def ask(number: int) -> None:
        taker = Taker(connections[number + 1], f"taker{number}", field)
        while (now := time.monotonic()) < begun + seconds:
            grant = await taker.take(5)
            assert len(taker.running) == grant.granted
            starts.extend(now + start for start in grant.starts)
            await taker.send(taker.complete(*taker.running))
            taker.running = []
            await let_pass(0.002 if grant.wait is None else max(grant.wait, 0.001))

    async with asyncio.TaskGroup() as group:
        for number in range(ASKERS):
            group.create_task(ask(number))
    lasted = time.monotonic() - begun
    for connection in connections:
        await connection.close()
    # What was granted by the end of a look may start up to a tenth of a second later.
    assert len(starts) <= burst + (lasted + 0.1) * count + 1
    assert len(starts) >= burst + 0.9 * seconds * count - 5
    starts.sort()
    for place in range(0, len(starts), 7):
        window = [start for start in starts[place:] if start <= starts[place] + 0.5]
        assert len(window) <= burst + 0.5 * count + 0.3 * count  # an asker's clock lags while its answer is under way


async def test_a_burst_comes_at_once_and_once(dsn: str) -> None:
    """After a pause the burst may start at once; what comes then is spread."""
    async with await session(dsn) as outside, await session(dsn) as inside:
        field = Field(outside)
        await field.add(100)
        await field.limit(None, (10, 1.0, 8))
        taker = Taker(inside, "taker", field)
        grant = await taker.take(50)
        assert len([start for start in grant.starts if start < 0.001]) == 8
        assert grant.granted in (8, 9)
        assert grant.wait is not None
        assert 0 < grant.wait <= 0.1
        again = await taker.take(50)
        assert again.granted <= 1


async def test_starts_that_are_not_used_are_not_lost(dsn: str) -> None:
    """The time of the next start moves by what was claimed, and not by what was granted."""
    async with await session(dsn) as outside, await session(dsn) as inside:
        field = Field(outside)
        await field.add(3)
        await field.limit(None, (1, 60.0, 10))
        taker = Taker(inside, "taker", field)
        assert (await taker.take(8)).granted == 8
        assert len(taker.running) == 3
        assert (await taker.take(9)).granted == 7


async def test_a_raised_rate_holds_at_once(dsn: str) -> None:
    """A rate of one an hour that was raised does not wait for the hour's end; both a limit and a rate are kept."""
    async with await session(dsn) as outside, await session(dsn) as inside:
        field = Field(outside)
        await field.add(30)
        await field.limit(None, (1, 3600.0, 1))
        taker = Taker(inside, "taker", field)
        assert (await taker.take(5)).granted == 1
        waiting = await taker.take(5)
        assert waiting.granted == 0
        assert waiting.wait is not None
        assert waiting.wait > 3000
        await field.limit(4, (1000, 1.0, 1))
        grant = await taker.take(9)
        assert (grant.granted, grant.full, grant.slots) == (4, True, (1, 2, 3, 4))
        assert (await taker.take(9)).granted == 0


async def test_each_value_has_a_rate_of_its_own(dsn: str) -> None:
    """One look gives each value its burst, and says when the next may start."""
    async with await session(dsn) as outside, await session(dsn) as inside:
        field = Field(outside)
        await field.add(60, values=6)
        await field.limit(None, (1, 60.0, 2), by="tenant")
        taker = Taker(inside, "taker", field, by="tenant")
        taken = await taker.take_values(ValueLook(50))
        assert sorted(share.value for share in taken.shares.values()) == sorted([f"value{n}" for n in range(6)] * 2)
        assert {share.slot for share in taken.shares.values()} == {None}
        assert taken.wait is not None
        assert 55 < taken.wait < 60
        assert (await taker.take_values(ValueLook(50))).jobs == []
