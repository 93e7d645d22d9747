"""Which runs of a recurring item are due: those since its last one, and those that were missed.

A run is on time, however late it is, if a scheduler was there when it was due, since that scheduler would have enqueued
it if it had not been asleep or cut off from the database. A run at whose time no scheduler was there is missed. Missed
runs are made up for as far as the item says (`fill` and `missed`), once, when a scheduler looks at the item for the
first time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Final

from backfill.cron.runs import next_runs, runs_between
from backfill.cron.schedule import Missed, Schedule

MOST_RUNS: Final = 1_000
"""How many runs of an item are enqueued at once; the oldest of more are dropped."""
MOST_COUNTED: Final = 10_000
"""How many dropped runs are counted: beyond that the exact number says nothing more, and takes long to find."""
_FIRST_WINDOW: Final = timedelta(minutes=16)
_WIDER: Final = 8
_LEAST: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Known:
    """What the database remembers of an item.

    Attributes:
        known_since: when the item was registered; it has no runs up to then.
        last_execution: the last run that was enqueued, or None.
    """

    known_since: datetime
    last_execution: datetime | None = None

    @property
    def ground(self) -> datetime:
        """The time after which runs are looked for."""
        return self.known_since if self.last_execution is None else self.last_execution


@dataclass(frozen=True, slots=True)
class DueRun:
    """A run that is due.

    Attributes:
        at: when it was due.
        backfilled: whether it is made up for, since no scheduler was there at that time.
    """

    at: datetime
    backfilled: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """Runs that were due and are not enqueued, since there are more than `MOST_RUNS`.

    Attributes:
        count: how many; `MOST_COUNTED` may also mean more.
        first: the first of them.
        before: the first run that is enqueued.
    """

    count: int
    first: datetime
    before: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """The runs of an item that are due, the oldest first.

    Attributes:
        runs: the runs.
        dropped: what was dropped, or None.
    """

    runs: tuple[DueRun, ...] = ()
    dropped: Dropped | None = None


def due_runs(
    schedule: Schedule,
    known: Known,
    *,
    now: datetime,
    alive_since: datetime,
    since: datetime | None = None,
    covered: datetime | None = None,
) -> Due:
    """The runs of an item that are due now.

    Args:
        schedule: the item.
        known: what the database remembers of it.
        now: the database's time.
        alive_since: since when a scheduler has been there that enqueues the item's runs.
        since: a time before which no run is made up for, because operators said so.
        covered: the time up to which this scheduler has looked at the item already; None at its first look, which
            alone makes up for missed runs. Where it is earlier than `alive_since`, runs after it are on time too.

    Example:
        >>> from datetime import UTC, datetime
        >>> from backfill.cron import Schedule
        >>> from backfill.cron.due import Known, due_runs
        >>> known = Known(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 4, tzinfo=UTC))
        >>> now, alive_since = datetime(2026, 1, 1, 6, 30, tzinfo=UTC), datetime(2026, 1, 1, 3, tzinfo=UTC)
        >>> found = due_runs(Schedule("report", "@hourly"), known, now=now, alive_since=alive_since)
        >>> [(run.at.hour, run.backfilled) for run in found.runs]
        [(5, False), (6, False)]
    """
    ground = known.ground if since is None else max(known.ground, since)
    alive = alive_since if covered is None else min(alive_since, covered)
    begin, last_missed = max(ground, alive), list[datetime]()
    if covered is None:
        filled_from = _earlier(now, schedule.fill)
        if schedule.missed is Missed.ALL:
            begin = max(ground, min(alive, filled_from))
        else:
            last_missed = _newest(schedule, max(ground, filled_from), min(alive, now), 1)
    found = last_missed + _newest(schedule, begin, now, MOST_RUNS + 1)
    kept = found[-MOST_RUNS:]
    runs = tuple(DueRun(at, backfilled=at <= alive) for at in kept)
    if len(found) <= MOST_RUNS:
        return Due(runs)
    left_out = chain(last_missed, runs_between(schedule, begin + _LEAST, kept[0]))
    dropped = list(islice(left_out, MOST_COUNTED))
    return Due(runs, Dropped(len(dropped), dropped[0], kept[0]))


def _earlier(moment: datetime, span: timedelta) -> datetime:
    """A time that is earlier by a span, or the first of all times."""
    try:
        return moment - span
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _newest(schedule: Schedule, after: datetime, until: datetime, most: int) -> list[datetime]:
    """The last runs of a window, `most` at most, the oldest first.

    Runs can be computed forwards only. So that a long window costs little, a short one at its end is searched first,
    and longer ones as long as they hold too few.

    Args:
        schedule: the item.
        after: the time after which the window begins.
        until: the time at which it ends; a run at this very time is in it.
        most: how many runs are wanted.
    """
    span = _FIRST_WINDOW
    while True:
        start = max(after, _earlier(until, span))
        if start >= until:
            return []
        found = deque(next_runs(schedule, start, until=until), maxlen=most)
        if len(found) == most or start == after:
            return list(found)
        span *= _WIDER
