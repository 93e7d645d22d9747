"""What the changes of a zone's clocks do to an item: the times around each change, and what becomes of every one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from itertools import islice
from typing import Final

from backfill.cron.runs import runs_between
from backfill.cron.schedule import Dst, Schedule
from backfill.cron.zones import stretches, zone_of

_DAY: Final = timedelta(days=1)
_YEARS: Final = range(2, 9990)
"""The years in which changes are looked for: in the others, the days around a change may be beyond all dates."""
_AHEAD: Final = timedelta(days=800)
"""How far ahead changes are looked for. Zones that change their clocks at all do so within a year."""


class Fate(StrEnum):
    """What becomes of a time that an item names."""

    RUNS = "runs"
    """The item runs, as on any other day."""
    MOVED = "moved"
    """No clock shows this time on that day; the item runs at the end of the gap."""
    IN_GAP = "in_gap"
    """No clock shows this time on that day; the item does not run."""
    FIRST = "first"
    """Clocks show this time twice; this is the first time, and the item runs."""
    SECOND = "second"
    """Clocks show this time twice; this is the second time, and the item runs."""
    NOT_AGAIN = "not_again"
    """Clocks show this time twice; this is the second time, and the item does not run."""


@dataclass(frozen=True, slots=True)
class NamedTime:
    """A time that an item names around a change of clocks.

    Attributes:
        local: the time by the zone's clocks, without a zone.
        offset: how far these clocks are ahead of UTC then; None for a time that no clock shows.
        run: when the item runs for it, in UTC; None if it does not.
        fate: what becomes of it.
    """

    local: datetime
    offset: timedelta | None
    run: datetime | None
    fate: Fate


@dataclass(frozen=True, slots=True)
class ClockChange:
    """A change of the clocks of an item's zone.

    Attributes:
        at: when clocks change, in UTC.
        before: how far clocks are ahead of UTC until then.
        after: how far they are ahead from then on.
        times: the times that the item names around it, in their order.
    """

    at: datetime
    before: timedelta
    after: timedelta
    times: tuple[NamedTime, ...]


def clock_changes(schedule: Schedule, after: datetime, count: int = 2, *, around: int = 3) -> list[ClockChange]:
    """The next changes of clocks that concern an item, each with what becomes of the item's times.

    Args:
        schedule: the item. One in UTC, and one with `every`, is concerned by no change.
        after: the time after which the changes are; aware.
        count: how many there are at most.
        around: how many times that the change does not touch are given before and after it. They are of the day of the
            change, the day before it or the day after it.

    Returns:
        The changes within the next 800 days, and none if the zone's clocks stay as they are, or if `after` is in the
        first or the last years of all.
    """
    if schedule.fields is None or schedule.timezone == "UTC" or after.year not in _YEARS:
        return []
    start = after.astimezone(UTC).replace(tzinfo=None, microsecond=0) + timedelta(seconds=1)
    found = (stretch for stretch in stretches(zone_of(schedule.timezone), start, start + _AHEAD))
    changed = (stretch for stretch in found if stretch.offset != stretch.before)
    return [_change(schedule, one.start, one.before, one.offset, around) for one in islice(changed, count)]


def _change(schedule: Schedule, at: datetime, before: timedelta, after: timedelta, around: int) -> ClockChange:
    days = (at + before).date(), (at + after).date()
    start = datetime.combine(min(days) - _DAY, time()) - before
    end = datetime.combine(max(days) + 2 * _DAY, time()) - after
    runs = {run.replace(tzinfo=None) for run in runs_between(schedule, start.replace(tzinfo=UTC), _aware(end))}
    times = [
        *_before(schedule, start, at, before, after),
        *_in_gap(schedule, runs, at, before, after),
        *_after(schedule, runs, at, end, before, after),
    ]
    return ClockChange(_aware(at), before, after, tuple(_near(times, at, around)))


def _before(
    schedule: Schedule, start: datetime, at: datetime, before: timedelta, after: timedelta
) -> Iterator[NamedTime]:
    for local in _named(schedule, start + before, at + before):
        fate = Fate.FIRST if local >= at + after else Fate.RUNS
        yield NamedTime(local, before, _aware(local - before), fate)


def _in_gap(
    schedule: Schedule, runs: set[datetime], at: datetime, before: timedelta, after: timedelta
) -> Iterator[NamedTime]:
    moved = schedule.fields is not None and schedule.fields.fixed and schedule.dst is not Dst.SKIP and at in runs
    for local in _named(schedule, at + before, at + after):
        yield NamedTime(local, None, _aware(at) if moved else None, Fate.MOVED if moved else Fate.IN_GAP)


def _after(
    schedule: Schedule, runs: set[datetime], at: datetime, end: datetime, before: timedelta, after: timedelta
) -> Iterator[NamedTime]:
    for local in _named(schedule, at + after, end + after):
        moment = local - after
        again = local < at + before
        fate = (Fate.SECOND if again else Fate.RUNS) if moment in runs else Fate.NOT_AGAIN
        yield NamedTime(local, after, None if fate is Fate.NOT_AGAIN else _aware(moment), fate)


def _named(schedule: Schedule, start: datetime, end: datetime) -> Iterator[datetime]:
    """The times on a clock that the fields name, from one on and before another, whatever clocks the zone has."""
    plain = replace(schedule, timezone="UTC", dst=Dst.ONCE)
    return (local.replace(tzinfo=None) for local in runs_between(plain, _aware(start), _aware(end)))


def _near(times: list[NamedTime], at: datetime, around: int) -> list[NamedTime]:
    """The times that a change touches, and some of those before and after it."""
    touched = [number for number, one in enumerate(times) if one.fate is not Fate.RUNS]
    following = next((n for n, one in enumerate(times) if one.run is not None and one.run >= _aware(at)), len(times))
    first, last = (touched[0], touched[-1] + 1) if touched else (following, following)
    return times[max(first - around, 0) : last + around]


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
