"""Counts as series: every span of a range is there once, in order, with what was counted in it or with nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backfill import Counts, Histogram, InvalidJobError
from backfill.client.verbs.series import MOST_SPANS, WIDTHS, Range, filled, whole_spans
from backfill.counts import Span

from strategies import series_ranges

BY = st.sampled_from(["minute", "hour", "day"])
_LATE = datetime(2024, 10, 27, 2, tzinfo=ZoneInfo("Europe/Berlin"))
"""An hour that comes twice: what the clocks show 20 minutes earlier may be 40 minutes later."""
SOME = Histogram((1, 2), timedelta(seconds=1))


def counted(task: str, worker: str | None, started: datetime, done: int) -> Counts:
    """Counts of one span."""
    return Counts(
        task=task, worker=worker, started=started, span="minute", done=done, failed=0, retried=0, dead=0, snoozed=0,
        discarded=0, given_back=0, wait=SOME, run=SOME,
    )  # fmt: skip


@given(series_ranges, BY)
@example((_LATE.replace(minute=30), _LATE.replace(minute=10, fold=1)), "minute")
def test_a_range_lies_in_its_spans(ends: tuple[datetime, datetime], by: Span) -> None:
    """Spans begin where UTC's do; the first has the range's beginning, and the last its end."""
    since, until = (end.astimezone(UTC) for end in ends)
    spans = whole_spans(by, *ends)
    begins, width = list(spans.begins()), WIDTHS[by]
    assert all(before + width == after for before, after in pairwise(begins))
    if until <= since:
        assert begins == []
        return
    assert begins[0] <= since < begins[0] + width
    assert begins[-1] < until <= begins[-1] + width == spans.end
    for begin in (begins[0], begins[-1]):
        assert begin.tzinfo is UTC
        assert (begin.second, begin.microsecond) == (0, 0)
        assert by == "minute" or begin.minute == 0
        assert by != "day" or begin.hour == 0


@given(
    BY,
    st.integers(0, 30),
    st.dictionaries(st.tuples(st.integers(0, 40), st.sampled_from("ab"), st.sampled_from(["w", None])), st.integers(1)),
    st.none() | st.sampled_from("ac"),
)
def test_each_series_has_all_spans(
    by: Span, number: int, drawn: dict[tuple[int, str, str | None], int], task: str | None
) -> None:
    """What was counted stays as it is, all else is empty, and all series have the same spans, the oldest first."""
    first = datetime(2024, 2, 28, tzinfo=UTC)
    found = [
        counted(of, worker, first + WIDTHS[by] * at, done) for (at, of, worker), done in sorted(drawn.items(), key=repr)
    ]
    series = filled(found, Range(by, first, number), task=task, worker=None)
    last = max([number, *(at + 1 for at, _, _ in drawn)])
    spans = [first + WIDTHS[by] * place for place in range(last)]
    names = {(of, worker) for _, of, worker in drawn} or ({(task, None)} if task else set())
    assert [counts.started for counts in series] == [span for span in spans for _ in names]
    for name in names:
        assert [counts.started for counts in series if (counts.task, counts.worker) == name] == spans
    assert [counts for counts in series if counts.done] == sorted(
        found, key=lambda counts: (counts.started, counts.task, counts.worker is None)
    )
    for counts in series:
        if not counts.done:
            assert (counts.span, counts.failed, counts.wait.count, counts.run.p95) == (by, 0, 0, None)


def test_the_end_of_all_time() -> None:
    """The last span of the year 9999 has no end that could be told, and the first of the year 1 begins with it."""
    last = datetime.max.replace(tzinfo=UTC)
    spans = whole_spans("hour", last - timedelta(hours=1), last)
    assert (spans.number, spans.end) == (2, None)
    first = datetime.min.replace(tzinfo=UTC)
    assert list(whole_spans("day", first, first + timedelta(hours=1)).begins()) == [first]


def test_what_cannot_be_filled_is_refused() -> None:
    """A series needs to know its spans and its beginning, and there is a limit to how long it may be."""
    now = datetime.now(UTC)
    with pytest.raises(InvalidJobError, match=r"by = None: minute, hour or day"):
        whole_spans(None, now, None)
    with pytest.raises(InvalidJobError, match=r"since = None: a time"):
        whole_spans("hour", None, now)
    with pytest.raises(InvalidJobError, match=r"at most 20,000 spans of a minute before"):
        whole_spans("minute", now - timedelta(minutes=MOST_SPANS + 1), now)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    assert whole_spans("minute", start, start + timedelta(minutes=MOST_SPANS)).number == MOST_SPANS
    assert whole_spans("minute", now - timedelta(minutes=5), None).number in {6, 7}
