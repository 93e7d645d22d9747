"""When an item runs: its next runs, those between two times, and how much later a run's job may begin.

A run is a moment in UTC. All schedulers of a fleet compute the same ones, as long as their machines have the same data
about time zones.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from hashlib import sha256
from itertools import chain, islice, takewhile
from typing import Final

from backfill.checks import check_int, check_time
from backfill.cron.fields import Fields
from backfill.cron.schedule import Dst, Schedule
from backfill.cron.zones import Stretch, is_repeated, stretches, zone_of
from backfill.errors import InvalidJobError

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (within this module, times in UTC have no zone)
_EARLIEST: Final = datetime(1, 1, 7)  # noqa: DTZ001
_END: Final = datetime.combine(date.max, time.max)
_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)
_FAR: Final = timedelta(days=2)
"""No zone's clocks are this far from UTC, nor are they set by as much."""


def next_runs(
    schedule: Schedule, after: datetime, count: int | None = None, *, until: datetime | None = None
) -> list[datetime]:
    """The next runs of an item, in their order, in UTC.

    Args:
        schedule: the item.
        after: the time after which the runs are; one at this very time is left out.
        count: how many there are at most; one if neither `count` nor `until` is given.
        until: the time of the last one that may be among them.

    Raises:
        InvalidJobError: a time has no zone, or `count` is no number from 0 on.

    Example:
        >>> from datetime import UTC, datetime
        >>> from backfill.cron import Schedule, next_runs
        >>> [str(run) for run in next_runs(Schedule("report", "0 4 29 2 *"), datetime(2026, 1, 1, tzinfo=UTC))]
        ['2028-02-29 04:00:00+00:00']
    """
    start = _utc("after", after)
    end = None if until is None else _utc("until", until)
    check_int("count", count, range(2**31))
    if count is None and end is None:
        count = 1
    runs = _runs(schedule, start + _MICROSECOND) if start < _END else iter(())
    if end is not None:
        runs = takewhile(lambda run: run <= end, runs)
    return [run.replace(tzinfo=UTC) for run in islice(runs, count)]


def runs_between(schedule: Schedule, start: datetime, end: datetime) -> Iterator[datetime]:
    """The runs of an item from one time on, before another, in their order, in UTC.

    Each is computed when it is asked for, so that the two times may be far apart.

    Args:
        schedule: the item.
        start: the first time at which a run may be.
        end: the time before which the runs are; one at this very time is left out.

    Raises:
        InvalidJobError: a time has no zone.

    Example:
        >>> from datetime import UTC, datetime
        >>> from backfill.cron import Schedule, runs_between
        >>> start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
        >>> len(list(runs_between(Schedule("beat", "*/15 * * * *"), start, end)))
        96
    """
    first, last = _utc("start", start), _utc("end", end)
    return (run.replace(tzinfo=UTC) for run in takewhile(lambda run: run < last, _runs(schedule, first)))


def due_at(schedule: Schedule, run: datetime) -> datetime:
    """When the job of a run may begin: at the run, or later by a part of the item's jitter.

    The part depends on the identifier and the run alone, so that all schedulers compute the same.

    Args:
        schedule: the item.
        run: a run of it.

    Raises:
        InvalidJobError: `run` has no zone.

    Example:
        >>> from datetime import UTC, datetime, timedelta
        >>> from backfill.cron import Schedule, due_at
        >>> schedule = Schedule("report", "0 4 * * *", jitter=timedelta(minutes=10))
        >>> str(due_at(schedule, datetime(2026, 1, 1, 4, tzinfo=UTC)))
        '2026-01-01 04:07:22.195547+00:00'
    """
    moment = _utc("run", run)
    micros = (moment - _EPOCH) // _MICROSECOND
    drawn = int.from_bytes(sha256(f"{schedule.identifier}\0{micros}".encode()).digest()[:8])
    later = (drawn * (schedule.jitter // _MICROSECOND) >> 64) * _MICROSECOND
    return (moment + later).replace(tzinfo=UTC)


def _utc(name: str, value: datetime) -> datetime:
    """A time in UTC, without its zone: such times are compared and added exactly."""
    if value is None:
        raise InvalidJobError(name, value, "a datetime.datetime with a time zone")
    check_time(name, value)
    return value.astimezone(UTC).replace(tzinfo=None)


def _runs(schedule: Schedule, start: datetime) -> Iterator[datetime]:
    """All runs from a time on, until the last days of the year 9999."""
    try:
        if schedule.fields is None:
            yield from _every(schedule.every or _SECOND, start)
        elif schedule.timezone == "UTC":
            yield from _read_off(schedule.fields, start, _END)
        else:
            yield from _in_zone(schedule.fields, zone_of(schedule.timezone), schedule.dst, start)
    except OverflowError:  # the next one would be in the year 10000
        return


def _every(distance: timedelta, start: datetime) -> Iterator[datetime]:
    number = -((_EPOCH - start) // distance)
    while True:
        yield _EPOCH + number * distance
        number += 1


def _read_off(fields: Fields, start: datetime, end: datetime) -> Iterator[datetime]:
    """The times on a clock that match, from one time on and before another; all of them are on that clock."""
    for day in fields.dates_from(start.date()):
        if day > end.date():
            return
        for hour in fields.hours:
            if day == start.date() and hour < start.hour:
                continue
            for minute in fields.minutes:
                moment = datetime.combine(day, time(hour, minute))
                if moment >= end:
                    return
                if moment >= start:
                    yield moment


def _in_zone(fields: Fields, zone: tzinfo, dst: Dst, start: datetime) -> Iterator[datetime]:
    """The runs in a zone, day by day; days on which nothing matches are passed over."""
    begin = max(start.replace(microsecond=0), _EARLIEST)
    while True:
        begin = _pass_over(fields, begin)
        end = begin + _DAY
        for stretch in stretches(zone, begin, end):
            for run in _in_stretch(fields, zone, dst, stretch):
                if run >= start:
                    yield run
        begin = end


def _pass_over(fields: Fields, begin: datetime) -> datetime:
    """The time from which on something can match: two days ahead of the next date that does, if that is later."""
    following = next(fields.dates_from((begin - _FAR).date()), None)
    if following is None:
        raise OverflowError
    return begin if following <= (begin + _FAR).date() else datetime.combine(following, time()) - _FAR


def _in_stretch(fields: Fields, zone: tzinfo, dst: Dst, stretch: Stretch) -> Iterator[datetime]:
    """The runs of a time in which the offset stays the same."""
    start, end = stretch.start + stretch.offset, stretch.end + stretch.offset
    runs = (moment - stretch.offset for moment in _read_off(fields, start, end))
    if not fields.fixed:
        return runs
    if dst is not Dst.TWICE:
        runs = (run for run in runs if not is_repeated(zone, run))
    if dst is Dst.SKIP or stretch.before >= stretch.offset:
        return runs
    if next(_read_off(fields, stretch.start + stretch.before, start), None) is None:  # nothing falls in the gap
        return runs
    return chain([stretch.start], (run for run in runs if run != stretch.start))
