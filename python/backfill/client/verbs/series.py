"""Counts as series that can be drawn: each span of a range of time is there, also those in which nothing ended."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from backfill.counts import Counts, Histogram, Span
from backfill.errors import InvalidJobError

MOST_SPANS: Final = 20_000
"""How many spans a series may have: two weeks of minutes, or two years of hours."""
WIDTHS: Final[dict[Span, timedelta]] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Final = Histogram((), timedelta(0))


class Range(NamedTuple):
    """Whole spans, one after the other, in UTC.

    Attributes:
        by: how long each is.
        first: when the first begins.
        number: how many there are; 0 or more.
    """

    by: Span
    first: datetime
    number: int

    @property
    def end(self) -> datetime | None:
        """When the last span is over; None where that is beyond the year 9999."""
        try:
            return self.first + WIDTHS[self.by] * self.number
        except OverflowError:
            return None

    def until(self, last: datetime) -> Range:
        """The spans from the first on to that which begins at a time, where it is later than the last of these."""
        return self._replace(number=max(self.number, (last - self.first) // WIDTHS[self.by] + 1))

    def begins(self) -> Iterable[datetime]:
        """When each of the spans begins."""
        return (self.first + WIDTHS[self.by] * place for place in range(self.number))


def whole_spans(by: Span | None, since: datetime | None, until: datetime | None) -> Range:
    """The spans in which a range of time lies, wholly or in part.

    Args:
        by: how long the spans are.
        since: when the range begins.
        until: when the range ends; this moment, by this machine's clock, if None.

    Raises:
        InvalidJobError: `by` or `since` is None, or there would be more than 20,000 spans.
    """
    if by is None:
        raise InvalidJobError("by", by, "minute, hour or day, since `fill` gives every span")
    if since is None:
        raise InvalidJobError("since", since, "a time, since `fill` gives every span from then on")
    # Two times of one zone are compared by what its clocks show, and those are put back once a year.
    since, end = since.astimezone(UTC), datetime.now(UTC) if until is None else until.astimezone(UTC)
    first = _EPOCH + (since - _EPOCH) // WIDTHS[by] * WIDTHS[by]
    number = -((first - end) // WIDTHS[by]) if end > since else 0
    if number > MOST_SPANS:
        raise InvalidJobError("since", since, f"a time at most {MOST_SPANS:,} spans of a {by} before {end.isoformat()}")
    return Range(by, first, number)


def filled(found: list[Counts], spans: Range, *, task: str | None, worker: str | None) -> list[Counts]:
    """The counts with an empty one for each span in which a task, or a worker, has none; oldest first.

    Args:
        found: counts whose spans are in the range, or after it.
        spans: the range; it goes on to the last of the counts where that is later.
        task: a task that has a series in any case.
        worker: the worker of that series.
    """
    if found:
        spans = spans.until(max(counts.started for counts in found))
    names = {(counts.task, counts.worker) for counts in found}
    if task is not None and not names:
        names = {(task, worker)}
    there = {(counts.started, counts.task, counts.worker): counts for counts in found}
    ordered = sorted(names, key=lambda name: (name[0], name[1] is None, name[1] or ""))
    return [
        there.get((started, *name)) or _nothing(*name, started, spans.by)
        for started in spans.begins()
        for name in ordered
    ]


def _nothing(task: str, worker: str | None, started: datetime, span: Span) -> Counts:
    return Counts(
        task=task, worker=worker, started=started, span=span, wait=_NOTHING, run=_NOTHING,
        done=0, failed=0, retried=0, dead=0, snoozed=0, discarded=0, given_back=0,
    )  # fmt: skip
