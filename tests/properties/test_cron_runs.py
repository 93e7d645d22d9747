"""The runs of an item are those that a naive reading finds, which looks at the clock minute by minute.

The windows have three days, in six zones; among them are all changes of their clocks in ten years.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.cron import Schedule, due_at, next_runs, runs_between

import cron_strategies as make

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # three hours and a half behind UTC
    "Australia/Lord_Howe",  # in the south, where clocks change by half an hour
    "America/Santiago",  # in the south, where they change at midnight
    "Africa/Casablanca",  # where they are set back for a month of the moon
]
POLICIES = ["skip", "once", "twice"]
FIRST, LAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
Times = tuple[str, list[frozenset[int]], bool]


class Reading(NamedTuple):
    """What a clock shows in one minute."""

    moment: datetime
    shown: datetime
    repeated: bool
    """Whether it showed the same before."""
    passed_over: list[datetime]
    """The minutes that it never showed, since it was set forward just now."""


def _readings(zone: str, start: datetime, end: datetime) -> list[Reading]:
    """What a zone's clock shows in each minute of a time; it is watched from a day before on."""
    place, seen, before, found = ZoneInfo(zone), set[datetime](), None, []
    moment = start - DAY
    while moment < end:
        shown = moment.astimezone(place).replace(tzinfo=None)
        assert not shown.second
        passed_over = []
        while before is not None and before + MINUTE < shown:
            before += MINUTE
            passed_over.append(before)
        if moment >= start:
            found.append(Reading(moment, shown, shown in seen, passed_over))
        seen.add(shown)
        before = shown
        moment += MINUTE
    return found


def _matches(shown: datetime, values: list[frozenset[int]]) -> bool:
    minute, hour, day, month, weekday = values
    return (
        shown.minute in minute
        and shown.hour in hour
        and shown.day in day
        and shown.month in month
        and shown.isoweekday() % 7 in weekday
    )


def _naive(readings: list[Reading], times: Times, dst: str) -> list[datetime]:
    """The runs, as the documentation says them."""
    _, values, fixed = times
    found = []
    for reading in readings:
        runs = _matches(reading.shown, values) and not (fixed and reading.repeated and dst != "twice")
        if fixed and dst != "skip":
            runs = runs or any(_matches(minute, values) for minute in reading.passed_over)
        if runs:
            found.append(reading.moment)
    return found


@cache
def _changes(zone: str) -> list[datetime]:
    """Each hour of the ten years in which the zone's clocks change."""
    place, found, moment = ZoneInfo(zone), [], FIRST
    before = moment.astimezone(place).utcoffset()
    while moment < LAST:
        moment += HOUR
        offset = moment.astimezone(place).utcoffset()
        if offset != before:
            found.append(moment)
        before = offset
    return found


def _drawn(seed: int) -> Iterator[Times]:
    """Fields as people write them: at fixed times near a change, by the clock, on some days only."""
    draw = random.Random(seed)
    everything = [
        frozenset(range(60)),
        frozenset(range(24)),
        *(frozenset(range(1, n)) for n in (32, 13)),
        frozenset(range(7)),
    ]
    while True:
        minutes = frozenset(draw.sample([0, 1, 5, 15, 29, 30, 31, 45, 59], draw.randint(1, 3)))
        hours = frozenset(draw.sample([0, 1, 2, 3, 4, 12, 22, 23], draw.randint(1, 4)))
        values, starred = [minutes, hours, *everything[2:]], [False, False, True, True, True]
        for which in draw.sample([0, 1], draw.choice([0, 0, 0, 1, 2])):
            values[which], starred[which] = everything[which], True
        if draw.random() < 0.2:
            values[4], starred[4] = frozenset(draw.sample(range(7), 3)), False
        fields = [
            "*" if star else ",".join(map(str, sorted(field))) for field, star in zip(values, starred, strict=True)
        ]
        yield " ".join(fields), values, not (starred[0] or starred[1])


def _compare(zone: str, start: datetime, readings: list[Reading], times: Times) -> None:
    """The computed runs of a window are those of the readings, by each policy."""
    end = start + 3 * DAY
    for dst in POLICIES:
        schedule = Schedule("t", times[0], timezone=zone, dst=dst)  # type: ignore[arg-type]
        expected = _naive(readings, times, dst)
        assert list(runs_between(schedule, start, end)) == expected, (zone, start, times[0], dst)
        assert next_runs(schedule, start, until=end - MINUTE) == [run for run in expected if run > start]


@pytest.mark.parametrize("many", [2, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.parametrize("zone", ZONES)
def test_around_every_change(zone: str, many: int) -> None:
    """Around each change of ten years, items of all kinds run when the naive reading says."""
    drawn = _drawn(len(zone))
    changes = _changes(zone)
    assert len(changes) >= 20
    for change in changes:
        start = change.replace(hour=0) - DAY
        readings = _readings(zone, start, start + 3 * DAY)
        for _ in range(many):
            _compare(zone, start, readings, next(drawn))


@given(st.sampled_from(ZONES), st.integers(0, 10 * 365 * 24), st.booleans(), st.data())
def test_anywhere(zone: str, hour: int, near: bool, data: st.DataObject) -> None:
    """So does any item, in any three days, which begin near a change of clocks or elsewhere."""
    start = FIRST + hour * HOUR
    if near:
        changes = _changes(zone)
        start = changes[hour % len(changes)] - (hour % 71) * HOUR
    readings = _readings(zone, start, start + 3 * DAY)
    _compare(zone, start, readings, data.draw(make.times(often=True)))


@given(make.times(), st.sampled_from([*ZONES, "UTC", "Pacific/Apia"]), st.sampled_from(POLICIES), st.integers(0, 10**8))
def test_a_run_at_a_time(times: Times, zone: str, dst: str, seconds: int) -> None:
    """Asking for one run after the other gives the same as asking for many: none is left out, none comes twice."""
    schedule = Schedule("t", times[0], timezone=zone, dst=dst)  # type: ignore[arg-type]
    start = datetime(2010, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    runs = next_runs(schedule, start, 12)
    assert len(runs) == 12
    assert runs == sorted(set(runs))
    after = start
    for run in runs:
        assert next_runs(schedule, after) == [run]
        assert next_runs(schedule, run - timedelta(microseconds=1)) == [run]
        after = run
    assert list(runs_between(schedule, runs[0], runs[-1])) == runs[:-1]


@given(st.integers(1, 36_525 * 86_400), st.datetimes(timezones=st.just(UTC)))
def test_equal_distances(seconds: int, after: datetime) -> None:
    """An item with `every` runs at all multiples of it since 1970, wherever one begins to look."""
    schedule = Schedule("t", every=timedelta(seconds=seconds))
    runs = next_runs(schedule, after, 3)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    number = (after - epoch) // timedelta(seconds=seconds) + 1
    expected = []
    for n in range(number, number + 3):
        try:
            expected.append(epoch + timedelta(seconds=seconds) * n)
        except OverflowError:
            break
    assert runs == expected


@given(make.some_spans, st.integers(0, 10**10))
def test_jitter(jitter: timedelta, micros: int) -> None:
    """The beginning is within the jitter, and another scheduler computes the same from the text."""
    run = FIRST + timedelta(microseconds=micros)
    schedule = Schedule("t", "* * * * *", jitter=jitter)
    due = due_at(schedule, run)
    assert run <= due <= run + jitter
    assert due == due_at(Schedule("t", "0 4 * * *", jitter=jitter, priority=3), run.astimezone(ZoneInfo("Asia/Tokyo")))
