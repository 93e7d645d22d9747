"""The alarm: rung it wakes its sleeper, at once or in time, and nothing is heard twice."""

from __future__ import annotations

import asyncio

import pytest

from backfill.worker.pipeline.alarm import Alarm

LONG = 60.0


async def test_rung_in_sleep_it_wakes_and_says_so() -> None:
    """A sleep that is rung ends at once with True."""
    alarm = Alarm()
    sleeping = asyncio.ensure_future(alarm.sleep(LONG))
    await asyncio.sleep(0)
    alarm.ring()
    async with asyncio.timeout(1):
        assert await sleeping


async def test_rung_before_it_ends_the_next_sleep_and_no_other() -> None:
    """Two rings are one; the sleep after the next is not woken by them."""
    alarm = Alarm()
    alarm.ring()
    alarm.ring()
    async with asyncio.timeout(1):
        assert await alarm.sleep(LONG)
        assert not await alarm.sleep(0.001)


async def test_the_earliest_of_its_times_counts() -> None:
    """A later ring does not put off a sooner one, set in whatever order, before or in sleep."""
    for first, second in ((0.001, LONG), (LONG, 0.001)):
        alarm = Alarm()
        alarm.ring_in(first)
        sleeping = asyncio.ensure_future(alarm.sleep(LONG))
        await asyncio.sleep(0)
        alarm.ring_in(second)
        async with asyncio.timeout(1):
            assert await sleeping


async def test_a_ring_in_no_time_rings_now() -> None:
    """What is due already does not wait for a turn of the loop."""
    alarm = Alarm()
    alarm.ring_in(-1.0)
    async with asyncio.timeout(1):
        assert await alarm.sleep(LONG)


async def test_a_cancelled_sleep_leaves_nothing_behind() -> None:
    """The next sleep hears neither its ring nor its timer."""
    alarm = Alarm()
    sleeping = asyncio.ensure_future(alarm.sleep(0.002))
    await asyncio.sleep(0)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert not await alarm.sleep(0.004)
