"""Statements that cancel jobs, and those by which a worker finds out which of its jobs were cancelled.

All roles cancel jobs by a function of the owner's, which a producer's role may call too. A filter for many jobs needs
rights on the tables.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from backfill.cancels import CancelCounts, Cancellation, CancelOutcome, CancelStatus
from backfill.checks import BIGINT, check_text
from backfill.client.prepare import Parameters, moment
from backfill.client.verbs.asked import Verb
from backfill.client.verbs.jobs import JobReference, reference_id
from backfill.errors import InvalidJobError
from backfill.job_filter import JobFilter
from backfill.jobs import EnqueueOutcome
from backfill.storage.arrays import number_array, text_array
from backfill.storage.claims import anchored
from backfill.storage.results import first, rows

if TYPE_CHECKING:
    from backfill.storage.results import Result

REASON_LIMIT: Final = 1_000
BATCH: Final = 500
"""The largest number of jobs that are cancelled in one transaction."""
LOOKED_AT: Final = 10_000
"""How many ids the statement for many jobs looks at."""
LOWEST: Final = BIGINT.start


class Page(NamedTuple):
    """What one statement for many jobs did; `lowest` is where the next one begins, None at the end."""

    counts: CancelCounts
    lowest: int | None


@dataclass(frozen=True, slots=True)
class CancelledFound:
    """Which of a worker's jobs were cancelled.

    Attributes:
        jobs: by the jobs' ids, who cancelled each and why.
        looked_at: the database's time of the look, in PostgreSQL's microseconds.
    """

    jobs: dict[int, Cancellation]
    looked_at: int


def cancel(job: JobReference, reason: str | None) -> Verb[CancelOutcome]:
    """Cancel one job; its end is kept as long as its task says, where the job is the outcome of a task's enqueue."""
    number = reference_id("job", job)
    _check_reason(reason)
    source = job.source if isinstance(job, EnqueueOutcome) else None
    keep = None if source is None or source.keep is None else str(source.keep.total_seconds())

    def read(found: Result) -> CancelOutcome:
        for row in rows(found):
            return CancelOutcome(number, CancelStatus(row.word("status")), row.text("worker"), row.text("reason"))
        return CancelOutcome(number, CancelStatus.NOT_FOUND)

    return Verb("cancel_jobs", (number_array([number]), reason, keep), read)


def check_filter(filter: JobFilter, reason: str | None, *, everything: bool) -> None:
    """Refuse a filter that means every job unless the caller says so, and a reason that is no text."""
    if not isinstance(filter, JobFilter):
        raise InvalidJobError("filter", filter, "a JobFilter")
    if filter.is_empty and not everything:
        raise InvalidJobError("filter", filter, "say which jobs are meant, or give everything=True to mean all of them")
    _check_reason(reason)


def cancel_page(filter: JobFilter, reason: str | None, lowest: int, wanted: int) -> Verb[Page]:
    """Cancel some of the jobs that match a filter, from an id on.

    Of the filter's ids only those are sent that the statement looks at, since there may be a million of them.
    """
    looked_at = filter
    if filter.ids is not None:
        ids = tuple(filter.ids)  # a JobFilter has sorted them
        first_id = bisect_left(ids, lowest)
        looked_at = replace(filter, ids=ids[first_id : first_id + LOOKED_AT])
    return Verb("cancel_matching", (*filter_parameters(looked_at), str(lowest), str(wanted), reason), _page)


def filter_parameters(filter: JobFilter) -> Parameters:
    """Return a filter as the first twelve parameters of a statement with the part job_filter."""
    queues = None if filter.queues is None else list(filter.queues)
    priority = filter.priority
    if isinstance(priority, int):
        priority = range(priority, priority + 1)
    return (
        None if filter.ids is None else number_array(list(filter.ids)),
        None if filter.tasks is None else text_array(anchored(list(filter.tasks))),
        None if queues is None else text_array(anchored([glob for glob in queues if glob])),
        "true" if queues is not None and "" in queues else "false",
        filter.key_prefix,
        None if priority is None else str(int(priority.start)),
        None if priority is None else str(int(priority.stop) - 1),
        moment(filter.run_at_from),
        moment(filter.run_at_until),
        filter.state,
        None if filter.flags is None else text_array(list(filter.flags)),
        None if filter.older_than is None else str(filter.older_than.total_seconds()),
    )


def find_cancelled(worker: str, held: Collection[int]) -> Verb[CancelledFound]:
    """Find out which of the jobs that a worker holds were cancelled."""
    return Verb("find_cancelled", (worker, number_array(held)), _found)


def _check_reason(reason: str | None) -> None:
    if reason is not None:
        check_text("reason", reason, REASON_LIMIT)


def _page(found: Result) -> Page:
    row = first(found)
    last = row.number("last")
    lowest = None if last is None or last + 1 not in BIGINT else last + 1
    return Page(CancelCounts(row.whole("removed"), row.whole("requested"), row.whole("held_elsewhere")), lowest)


def _found(found: Result) -> CancelledFound:
    jobs = {}
    looked_at = 0
    for row in rows(found):
        looked_at = row.whole("looked_at")
        if (number := row.number("id")) is not None:
            jobs[number] = Cancellation(row.word("cancelled_by"), row.text("reason"), _time(row.text("cancelled_at")))
    return CancelledFound(jobs, looked_at)


def _time(text: str | None) -> datetime | None:
    """The time that a flag names; None where the flag was not written by the function that cancels jobs."""
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
