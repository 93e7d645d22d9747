"""Statements that requeue and add dead letters, and the steps that move jobs there which others failed for good."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import psycopg

from backfill.checks import SMALLINT, check_int, check_text
from backfill.client.metering import count_buried, count_requeued
from backfill.client.prepare import Parameters, due, flags_json
from backfill.client.verbs.asked import Steps, Together, Verb
from backfill.client.verbs.dead_letters import BATCH, get_dlq_job
from backfill.client.verbs.jobs import get_job, with_names
from backfill.dead_letters import DlqJob
from backfill.errors import DlqJobNotFoundError, InvalidJobError
from backfill.payloads import encode
from backfill.records import Job
from backfill.said import said
from backfill.storage.arrays import number_array
from backfill.storage.results import Result, first, rows

logger = logging.getLogger(__name__)

KEEP: Final[Any] = type("Keep", (), {"__repr__": lambda _: "KEEP"})()
"""Stands for the entry's own payload, which is then not changed."""
TEXT_LIMIT: Final = 100_000
NOTES_LIMIT: Final = 10_000
PASSING: Final = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
"""The errors that arise if an entry was changed meanwhile or two calls waited for each other: nothing was done."""
_TRIES: Final = 10


class Requeued(NamedTuple):
    """An entry and the job that was added from it, with the names of its task and its queue."""

    entry: int
    job_id: int
    task: str
    queue: str | None


def edits(
    notes: str | None, payload: Any, priority: int | None, run_at: datetime | None, delay: timedelta | None
) -> Parameters:
    """Return what is changed in entries when they are requeued, as the parameters that follow their ids."""
    if notes is not None:
        check_text("notes", notes, NOTES_LIMIT)
    when = due(run_at, delay)
    check_int("priority", priority, SMALLINT)
    return (
        notes,
        None if payload is KEEP else encode(payload),
        None if priority is None else str(int(priority)),
        *when,
    )


def requeue_dlq_job(id: int, changed: Parameters) -> Together[Job]:
    """Add an entry's job again, and update the entry in the same transaction.

    Args:
        id: the entry's id.
        changed: the parameters that `edits` returned.
    """
    return Together(_requeue_one(id, changed))


def requeue_dlq_jobs(ids: list[int], changed: Parameters) -> Verb[list[Requeued]]:
    """Add the jobs of entries again; the answer is the jobs that were added."""
    return Verb(
        "requeue_dead_letters",
        (number_array(ids), *changed),
        lambda found: [
            Requeued(row.whole("entry"), row.whole("job_id"), row.word("task"), row.text("queue"))
            for row in rows(found)
        ],
    )


def add_to_dlq(job: Job, reason: str, last_error: str | None) -> Together[DlqJob]:
    """Add a job to the dead letters; the answer is its entry."""
    if not isinstance(job, Job):
        raise InvalidJobError("job", job, "a Job, as get_job gives it")
    check_text("reason", reason, TEXT_LIMIT)
    if last_error is not None:
        check_text("last_error", last_error, TEXT_LIMIT)
    flags = flags_json([str(flag) for flag in job.flags])  # a mark of ours is of a class that JSON refuses as a key
    parameters = (
        str(job.id), job.task_identifier, job.queue_name, job.payload_bytes, str(job.priority), job.key,
        str(job.attempts), str(job.max_attempts), flags, job.created_at.isoformat(),
        job.run_at.isoformat(), last_error or job.last_error, reason,
    )  # fmt: skip
    return Together(_add_to_dlq(parameters))


def process_failed_jobs() -> Steps[int]:
    """Move jobs that others failed for good and nobody holds to the dead letters; the answer is how many.

    Each statement is complete by itself, so that each may run on another connection.
    """
    moved, after, wanted = 0, 0, BATCH
    while True:
        sweep = Verb("sweep_dead_letters", (str(wanted), str(after)), _moved)
        try:
            some, taken, dead = yield from sweep
        except psycopg.Error as error:
            if concerns_all(error) and not isinstance(error, PASSING):
                raise
            if wanted > 1:
                wanted = 1  # one at a time, to find the job that is refused
                continue
            refused = yield from _next_exhausted(after)
            if refused is None:
                return moved
            logger.warning("job %d cannot be moved to the dead letters: %s", refused, said(error))
            after = refused
            continue
        moved += some
        count_buried(dead)
        if taken < wanted:
            return moved
        wanted = min(2 * wanted, BATCH)


def concerns_all(error: psycopg.Error) -> bool:
    """Tell whether an error that refused many rows would refuse each of them by itself too."""
    if isinstance(error, (*PASSING, psycopg.errors.ProgramLimitExceeded)):
        return False
    return isinstance(error, (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege, psycopg.InterfaceError))


def _requeue_one(id: int, changed: Parameters) -> Steps[Job]:
    for _ in range(_TRIES):  # a job that prevents the requeueing may end before it is read
        added = yield from requeue_dlq_jobs([id], changed)
        if added:
            [job] = yield from with_names(get_job(added[0].job_id))
            count_requeued((one.task, one.queue) for one in added)
            return job
        entry = yield from get_dlq_job(id)
        if entry is None:
            break
        if entry.requeued_job_id is not None:
            there = yield from with_names(get_job(entry.requeued_job_id))
            if there:
                return there[0]
    raise DlqJobNotFoundError(id)


def _add_to_dlq(parameters: Parameters) -> Steps[DlqJob]:
    written = yield from Verb("add_dead_letter", parameters, lambda found: first(found).whole("entry"))
    entry = yield from get_dlq_job(written)
    if entry is None:
        raise DlqJobNotFoundError(written)
    return entry


def _moved(found: Result) -> tuple[int, int, list[tuple[str, bool]]]:
    row = first(found)
    return row.whole("moved"), row.whole("taken"), row.items("dead")


def _next_exhausted(after: int) -> Verb[int | None]:
    return Verb("next_exhausted_job", (str(after),), lambda found: next((row.whole("id") for row in rows(found)), None))
