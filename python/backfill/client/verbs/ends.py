"""Statements that find and list ends, and those that make and drop their partitions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from backfill.checks import check_duration
from backfill.client.prepare import Parameters, moment
from backfill.client.verbs.asked import Steps, Verb
from backfill.client.verbs.jobs import JobReference, reference_id
from backfill.client.verbs.pages import check_limit, page_of, place_of
from backfill.ends import EndFilter, EndHow, EndList, JobEnd
from backfill.errors import InvalidJobError
from backfill.storage.arrays import number_array
from backfill.storage.results import Row, first, rows

if TYPE_CHECKING:
    from backfill.storage.results import Result

_MOST_TENDED: Final = 100
_TENDED_AT_ONCE: Final = 10


class JobSeen(NamedTuple):
    """Whether a job may still run, and its end.

    Attributes:
        id: the job's id.
        waits: whether the job may still run.
        end: how the job finished; None if no end is kept.
    """

    id: int
    waits: bool
    end: JobEnd | None


def end(job: JobReference) -> Steps[JobEnd | None]:
    """Read how one job finished."""
    return _end(reference_id("job", job))


def ends(filter: EndFilter, *, limit: int, cursor: str | None) -> Verb[EndList]:
    """Read a page of the ends that match."""
    check_limit(limit)
    parameters = (*filter_parameters(filter), *place_of(cursor), str(limit + 1))
    return Verb("list_ends", parameters, lambda found: EndList(*page_of(found, limit, read_end, id_column="job_id")))


def find_ends(ids: list[int]) -> Steps[list[JobSeen]]:
    """Read, for each of some ids, whether the job still exists, and its end.

    If neither the job nor an end is found, the function looks once more: a statement that was planned before may miss
    rows that are just being moved to a partition of their own.
    """
    seen = yield from _see(ids)
    missed = [job.id for job in seen if not job.waits and job.end is None]
    if missed:
        again = {job.id: job for job in (yield from _see(missed))}
        seen = [again.get(job.id, job) for job in seen]
    return seen


def tend_ends(keeps: Iterable[timedelta]) -> Steps[tuple[int, int]]:
    """Make and drop partitions; the answer is how many of each."""
    return _tend_ends(_seconds(keeps))


def filter_parameters(filter: EndFilter) -> Parameters:
    """Return a filter as the first seven parameters of list_ends."""
    if not isinstance(filter, EndFilter):
        raise InvalidJobError("filter", filter, "an EndFilter")
    return (
        filter.task_identifier,
        filter.how,
        filter.queue_name,
        filter.job_key,
        filter.worker_id,
        moment(filter.ended_after),
        moment(filter.ended_before),
    )


def read_end(row: Row) -> JobEnd:
    """Make an end from a row of list_ends or find_ends."""
    return JobEnd(
        job_id=row.whole("job_id"),
        task_identifier=row.word("task_identifier"),
        how=EndHow(row.word("how")),
        attempts=row.whole("attempts"),
        max_attempts=row.whole("max_attempts"),
        priority=row.whole("priority"),
        queue_name=row.text("queue_name"),
        job_key=row.text("job_key"),
        created_at=row.time("created_at"),
        run_at=row.time("run_at"),
        started_at=row.time("started_at"),
        ended_at=row.time("ended_at"),
        expires_at=row.time("expires_at"),
        worker_id=row.text("worker_id"),
        error=row.text("error"),
        result_bytes=row.raw("result"),
    )


def _end(number: int) -> Steps[JobEnd | None]:
    [job] = yield from find_ends([number])
    return job.end


def _see(ids: list[int]) -> Verb[list[JobSeen]]:
    parameters = (number_array(ids),)
    return Verb("find_ends", parameters, _seen, for_producers=Verb("producer_see_ends", parameters, _seen))


def _seen(found: Result) -> list[JobSeen]:
    return [
        JobSeen(row.whole("id"), row.flag("waits"), None if row.raw("job_id") is None else read_end(row))
        for row in rows(found)
    ]


def _tend_ends(seconds: list[float]) -> Steps[tuple[int, int]]:
    made = dropped = 0
    for start in range(0, len(seconds), _TENDED_AT_ONCE):
        some = (number_array(seconds[start : start + _TENDED_AT_ONCE]),)
        made += yield from Verb("make_end_partitions", some, lambda found: first(found).whole("made"))
    for _ in range(_MOST_TENDED):
        gone = yield from Verb("drop_end_partitions", (), lambda found: first(found).whole("dropped"))
        dropped += gone
        if not gone:
            break
    return made, dropped


def _seconds(keeps: Iterable[timedelta]) -> list[float]:
    """Return how long ends are kept, in seconds, each duration once, the shortest first."""
    if not isinstance(keeps, Iterable):
        raise InvalidJobError("keeps", keeps, "a list of timedeltas")
    given = list(keeps)
    for place, keep in enumerate(given):
        if not isinstance(keep, timedelta):
            raise InvalidJobError(f"keeps[{place}]", keep, "a datetime.timedelta")
        check_duration(f"keeps[{place}]", keep, zero=False)
    return sorted({keep.total_seconds() for keep in given})
