"""Statements that read, fold and write counters, and one that looks for unknown tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, cast, get_args

from backfill.checks import IDENTIFIER_LIMIT, KEY_LIMIT, check_text, check_time
from backfill.client.prepare import Parameters, moment
from backfill.client.verbs.asked import Steps, Verb
from backfill.client.verbs.series import filled, whole_spans
from backfill.counts import Counts, Histogram, Span, UnknownFound, UnknownTask
from backfill.errors import InvalidJobError
from backfill.storage.arrays import number_array, text_array
from backfill.storage.counters import FOLD_BATCH, FOLDS, KEPT_DAYS, MinuteCounts, counts_json
from backfill.storage.results import Row, first, rows

if TYPE_CHECKING:
    from backfill.storage.results import Result

_LOOKED_AT: Final = 10_000
_DUE_SECONDS: Final = 2.0
"""Workers of other programs look for jobs every 2 seconds: a job due for less time may be about to be taken."""
_NAMED: Final = 11
_ALWAYS: Final = "-infinity"


def counters(
    *,
    task: str | None,
    worker: str | None,
    since: datetime | None,
    until: datetime | None,
    by: Span | None,
    by_worker: bool,
    fill: bool,
) -> Verb[list[Counts]]:
    """Read how attempts ended; with `fill` each span of the range is there, and is counted whole."""
    for name, value, limit in (("task", task, IDENTIFIER_LIMIT), ("worker", worker, KEY_LIMIT)):
        if value is not None:
            check_text(name, value, limit)
    check_time("since", since)
    check_time("until", until)
    if by is not None and by not in get_args(Span):
        raise InvalidJobError("by", by, f"one of {', '.join(get_args(Span))}")
    apart = by_worker or worker is not None
    spans = whole_spans(by, since, until) if fill else None
    if spans is not None:
        since, until = spans.first, None if until is None else spans.end
    parameters = (task, worker, moment(since), moment(until), by, str(apart).lower())

    def read(result: Result) -> list[Counts]:
        found = [_counts(row) for row in rows(result)]
        return found if spans is None else filled(found, spans, task=task, worker=worker)

    return Verb("read_counters", parameters, read)


def fold_counters() -> Steps[int]:
    """Fold and delete all old counters, a batch per statement; the answer is how many rows there were.

    Each statement is complete by itself, so that each may run on another connection.
    """
    batch = str(FOLD_BATCH)
    folds: list[tuple[str, Parameters]] = [
        ("fold_counters", (span, coarser, str(by_worker).lower(), str(days), batch))
        for span, coarser, by_worker, days in FOLDS
    ]
    count = 0
    for statement, parameters in [*folds, ("forget_counters", (str(KEPT_DAYS), batch))]:
        taken = FOLD_BATCH
        while taken == FOLD_BATCH:
            taken = yield from Verb(statement, parameters, lambda found: first(found).whole("taken"))
            count += taken
    return count


def write_counters(worker: str, counts: Sequence[MinuteCounts]) -> Verb[float]:
    """Write a worker's counts as they are now; the answer is the database's time in Unix seconds."""
    return Verb(
        "write_counters",
        (worker, counts_json(counts)),
        lambda found: first(found).whole("now_micros") / 1_000_000,
    )


def find_unknown_tasks(worker: str, floors: Mapping[int, int]) -> Verb[UnknownFound]:
    """Look for tasks with due jobs that none of our live workers knows; each priority begins at its floor."""
    levels = [(level, level, floors[level]) for level in sorted(floors)]
    edges = [-32_769, *sorted(floors), 32_768]
    gaps = [(low + 1, high - 1, None) for low, high in pairwise(edges) if high - low > 1]
    spans = sorted([*levels, *gaps], key=lambda span: span[0])
    parameters = (
        number_array([low for low, _, _ in spans]),
        number_array([high for _, high, _ in spans]),
        text_array([_ALWAYS if floor is None else _time_of(floor).isoformat() for _, _, floor in spans]),
        worker, str(_LOOKED_AT), str(_DUE_SECONDS), str(_NAMED),
    )  # fmt: skip
    return Verb("find_unknown_tasks", parameters, _unknown_found)


def _unknown_found(found: Result) -> UnknownFound:
    """Read the unknown tasks, if there are any; every row repeats the values that hold for all of them."""
    tasks = [
        UnknownTask(name, row.whole("jobs"), row.time("oldest"), row.flag("whole"))
        for row in rows(found)
        if (name := row.text("identifier")) is not None
    ]
    row = first(found)
    return UnknownFound(
        tasks,
        answered=row.flag("answered"),
        whole=row.flag("whole"),
        due_before=row.whole("now_micros") - int(_DUE_SECONDS * 1_000_000),
        levels=row.items("levels"),
        known=row.text("known"),
    )


def _time_of(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def _counts(row: Row) -> Counts:
    return Counts(
        task=row.word("task"),
        worker=row.text("of_worker"),
        started=cast("datetime", row.time("started")),
        span=cast("Span", row.text("coarsest")),
        done=row.whole("done"),
        failed=row.whole("failed"),
        retried=row.whole("retried"),
        dead=row.whole("dead"),
        snoozed=row.whole("snoozed"),
        discarded=row.whole("discarded"),
        given_back=row.whole("given_back"),
        wait=_histogram(row, "wait"),
        run=_histogram(row, "run"),
    )


def _histogram(row: Row, of: str) -> Histogram:
    return Histogram(tuple(row.items(of)), timedelta(seconds=row.fraction(f"{of}_seconds")))
