"""Statements that read the attempts of a job, and that delete attempts whose jobs are gone."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from backfill.attempts import AttemptHow, AttemptRecord
from backfill.client.verbs.asked import Steps, Verb
from backfill.client.verbs.jobs import reference_id
from backfill.dead_letters import DlqJob
from backfill.ends import JobEnd
from backfill.errors import InvalidJobError
from backfill.jobs import EnqueueOutcome
from backfill.records import Job
from backfill.storage.results import Row, first, rows

AttemptedJob = int | Job | EnqueueOutcome[Any] | JobEnd | DlqJob
PAGE: Final = 1_000
"""How many attempts a sweep looks at in one statement."""


class Place(NamedTuple):
    """A place among the attempts, which stand in the order of their jobs' ids.

    Attributes:
        job: the id of a job.
        id: the id of one of the job's attempts.
    """

    job: int
    id: int


FRONT: Final = Place(-(2**63), 0)


class Swept(NamedTuple):
    """What one page of a sweep did.

    Attributes:
        seen: how many attempts were looked at.
        deleted: how many of them were deleted.
        place: where the next page begins.
    """

    seen: int
    deleted: int
    place: Place


def attempts(job: AttemptedJob) -> Steps[list[AttemptRecord]]:
    """Read the attempts of a job that did not complete."""
    return _attempts(job_number("job", job))


def sweep_attempts(place: Place | None) -> Verb[Swept]:
    """Delete useless ones among a page of attempts, from a place on; from any place if none is given."""
    began = (None, str(FRONT.id)) if place is None else (str(place.job), str(place.id))
    return Verb("sweep_attempts", (*began, str(PAGE)), _swept)


def job_number(field: str, job: object) -> int | None:
    """The id of a job that is given as an argument; None if a dead letter does not say which job it was."""
    if isinstance(job, JobEnd):
        return job.job_id
    if isinstance(job, DlqJob):
        return job.original_job_id
    try:
        return reference_id(field, job)
    except InvalidJobError:
        raise InvalidJobError(
            field, job, "a job's id: an integer from -2^63 to 2^63 - 1; a Job, EnqueueOutcome, JobEnd or DlqJob"
        ) from None


def _attempts(number: int | None) -> Steps[list[AttemptRecord]]:
    if number is None:
        return []
    return (yield from Verb("list_attempts", (str(number),), lambda found: [_record(row) for row in rows(found)]))


def _record(row: Row) -> AttemptRecord:
    return AttemptRecord(
        attempt=row.whole("attempt"),
        how=AttemptHow(row.word("how")),
        worker_id=row.text("worker_id"),
        started_at=row.time("started_at"),
        ended_at=row.time("ended_at"),
        error_type=row.text("error_type"),
        message=row.text("message"),
        traceback=row.text("traceback"),
    )


def _swept(found: Any) -> Swept:
    row = first(found)
    last = row.number("job_id")
    return Swept(row.whole("seen"), row.whole("deleted"), FRONT if last is None else Place(last, row.whole("id")))
