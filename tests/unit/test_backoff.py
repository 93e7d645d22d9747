"""Pauses between attempts to reach the database, and how often an outage is spoken of."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.storage import backoff
from backfill.storage.backoff import LONGEST_PAUSE, QUIET_SECONDS, Backoff


class Clock:
    """A clock that is moved by hand."""

    now = 1000.0

    def monotonic(self) -> float:
        """What it shows."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that outages are told by."""
    one = Clock()
    monkeypatch.setattr(backoff, "time", one)
    return one


@given(st.integers(1, 100))
def test_pauses_grow_to_two_seconds_and_are_never_equal(count: int) -> None:
    """Each lies between half and all of twice the one before, up to two seconds; a success begins again."""
    one = Backoff()
    limits = [min(0.1 * 2**n, LONGEST_PAUSE) for n in range(count)]
    pauses = [one.pause() for _ in range(count)]
    assert all(limit / 2 <= pause <= limit for limit, pause in zip(limits, pauses, strict=True))
    assert len(set(pauses)) == count
    one.reset()
    assert one.pause() <= 0.1


def test_an_outage_is_told_once_however_long_it_is(clock: Clock) -> None:
    """One warning, and its end; what follows more than a minute after it is another."""
    one = Backoff()
    levels = []
    for _ in range(1000):
        levels.append(one.level())
        clock.now += 2.0
    assert levels.count(logging.WARNING) == 1
    assert one.reset()
    assert not one.reset()
    assert one.level() == logging.WARNING


def test_connections_that_are_cut_again_and_again_are_told_of_once_a_minute(clock: Clock) -> None:
    """Twice a second for five minutes: as many warnings as minutes, and each of them is told to be over once."""
    one = Backoff()
    warnings = ends = 0
    for _ in range(int(5 * QUIET_SECONDS / 0.5)):
        warnings += one.level() == logging.WARNING
        clock.now += 0.5
        ends += one.reset()
    assert warnings == ends == 5


def test_a_long_outage_soon_after_a_short_one_is_told_of(clock: Clock) -> None:
    """It is quiet for a minute at most."""
    one = Backoff()
    assert one.level() == logging.WARNING
    one.reset()
    clock.now += 1.0
    assert one.level() == logging.DEBUG
    clock.now += QUIET_SECONDS
    assert one.level() == logging.WARNING


async def test_waiting_ends_with_its_event() -> None:
    """Whoever stops does not wait for the pause."""
    one, event = Backoff(first=1000.0), asyncio.Event()
    waiting = asyncio.ensure_future(one.wait(event))
    await asyncio.sleep(0)
    event.set()
    assert await waiting
    assert await one.wait(event)
