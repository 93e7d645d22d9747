"""Time zones by their names, and the moments at which their clocks change."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

from backfill.errors import InvalidJobError

_OF_ONE_MACHINE: Final = ("localtime", "posixrules", "posix/", "right/")
"""How names begin that mean another zone on each machine, or count leap seconds."""
_STEP: Final = timedelta(hours=12)
"""How far apart a zone's offset is looked at. No zone changes its clocks twice within four days."""
_SECOND: Final = timedelta(seconds=1)


class Stretch(NamedTuple):
    """A time during which a zone's offset stays the same; times are in UTC, without a zone of their own."""

    start: datetime
    end: datetime
    offset: timedelta
    before: timedelta
    """The offset just before `start`: another one only if clocks change at `start`."""


@lru_cache(512)
def zone_of(name: str) -> tzinfo:
    """The zone of a name such as `Europe/Berlin`.

    Raises:
        InvalidJobError: this machine knows no such zone.
    """
    if name == "UTC":
        return UTC
    try:
        if not name.startswith(_OF_ONE_MACHINE):
            return zoneinfo.ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        pass
    raise InvalidJobError(
        "timezone",
        name,
        "a time zone that this machine knows, such as Europe/Berlin (if it knows none at all: pip install tzdata)",
    )


def stretches(zone: tzinfo, start: datetime, end: datetime) -> Iterator[Stretch]:
    """The stretches of a time in UTC; each one but the first begins with a change of clocks.

    The first one begins with a change, too, where clocks change at `start` exactly.

    Args:
        zone: the zone whose clocks are meant.
        start: a time in UTC, without a zone, in whole seconds.
        end: the same; later than `start`.
    """
    before = _offset(zone, start - _SECOND)
    offset = _offset(zone, start)
    while start < end:
        change = _next_change(zone, start, end, offset)
        yield Stretch(start, change, offset, before)
        before = offset
        start = change
        offset = _offset(zone, start)


def is_repeated(zone: tzinfo, moment: datetime) -> bool:
    """Whether the zone's clocks showed the time of a moment in UTC before, since they were set back after that."""
    return bool(moment.replace(tzinfo=UTC).astimezone(zone).fold)


def _next_change(zone: tzinfo, start: datetime, end: datetime, offset: timedelta) -> datetime:
    """When the offset first differs after `start`, to the second; `end` if it does not until then."""
    while start < end:
        stop = min(start + _STEP, end)
        if _offset(zone, stop) != offset:
            while stop - start > _SECOND:
                middle = start + (stop - start) // _SECOND // 2 * _SECOND
                if _offset(zone, middle) == offset:
                    start = middle
                else:
                    stop = middle
            return stop
        start = stop
    return end


def _offset(zone: tzinfo, moment: datetime) -> timedelta:
    return moment.replace(tzinfo=UTC).astimezone(zone).utcoffset() or timedelta(0)
