"""Statements that read, remove, complete, fail and reschedule jobs that are in the queue already.

A role with a producer's grants has no rights on the tables, so most verbs also name the function that such a role calls
instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from backfill.checks import BIGINT, KEY_LIMIT, SMALLINT, check_int, check_text
from backfill.client.prepare import Parameters, due
from backfill.client.verbs.asked import Steps, Verb
from backfill.errors import InvalidJobError
from backfill.jobs import EnqueueOutcome
from backfill.records import Job
from backfill.retry import MAX_ATTEMPTS_LIMIT
from backfill.storage.arrays import number_array, text_array
from backfill.storage.results import Row, first
from backfill.storage.rows import decode_jobs

JobReference = int | Job | EnqueueOutcome[Any]
REASON_LIMIT: Final = 100_000


@dataclass(frozen=True, slots=True)
class Change:
    """A change to jobs.

    Attributes:
        verb: the statement; None if no job was given.
        many: whether the statement may hold several jobs at once, so that it and others could wait for each other.
    """

    verb: Verb[list[Job]] | None
    many: bool

    def steps(self) -> Steps[list[Job]]:
        """Return the change as steps, whose answer is the jobs that were changed."""
        return [] if self.verb is None else (yield from with_names(self.verb))


def get_job(job: JobReference) -> Verb[list[Job]]:
    """Read one job; the answer is an empty list if there is none."""
    parameters = (str(reference_id("job", job)),)
    return _jobs("get_job", parameters, for_producers=_jobs("producer_see_job", parameters))


def remove_job(job_key: str | None, id: JobReference | None) -> Verb[list[Job]]:
    """Remove the job that has a key or an id; the answer is an empty list if there is none."""
    if id is None:
        if not isinstance(job_key, str):
            raise InvalidJobError("job_key", job_key, "a job's key, which is a string; id= takes a job's id")
        check_text("job_key", job_key, KEY_LIMIT)
        return _removal(None, job_key)
    if job_key is not None:
        raise InvalidJobError("id", id, "give job_key or id, not both")
    return _removal(str(reference_id("id", id)), None)


def complete_jobs(jobs: Iterable[JobReference]) -> Change:
    """Delete jobs as done."""
    ids = _ids(jobs)
    return _change(ids, _jobs("complete_jobs", (number_array(ids),)))


def fail_jobs(jobs: Iterable[JobReference], reason: str | None) -> Change:
    """Fail jobs for good."""
    ids = _ids(jobs)
    if reason is not None:
        check_text("reason", reason, REASON_LIMIT)
    return _change(ids, _jobs("permanently_fail_jobs", (number_array(ids), reason)))


def reschedule_jobs(
    jobs: Iterable[JobReference],
    job_keys: Iterable[str],
    *,
    run_at: datetime | None,
    delay: timedelta | None,
    priority: int | None,
    attempts: int | None,
    max_attempts: int | None,
) -> Change:
    """Change when and how jobs run."""
    when = due(run_at, delay)
    check_int("priority", priority, SMALLINT)
    check_int("attempts", attempts, range(MAX_ATTEMPTS_LIMIT + 1))
    check_int("max_attempts", max_attempts, range(1, MAX_ATTEMPTS_LIMIT + 1))
    ids, keys = _ids(jobs), list(_listed("job_keys", job_keys, "keys"))
    for index, key in enumerate(keys):
        check_text(f"job_keys[{index}]", key, KEY_LIMIT)
    parameters = (
        number_array(ids),
        *when,
        *(None if value is None else str(int(value)) for value in (priority, attempts, max_attempts)),
        text_array(keys),
    )
    for_producers = _jobs("producer_reschedule_jobs", parameters)
    return _change([*ids, *keys], _jobs("reschedule_jobs", parameters, for_producers=for_producers))


def with_names(verb: Verb[list[Job]]) -> Steps[list[Job]]:
    """Run a statement that gives jobs, and complete the names of these jobs.

    If another program has made a task or a queue meanwhile, its name is not known here and is looked up.
    """
    jobs = yield from verb
    for job in jobs:
        if not job.task_identifier:
            yield from put_names(job)
    return jobs


def put_names(job: Job) -> Steps[None]:
    """Look up the names of a job's task and serial queue, and put them into it."""
    queue = None if job.job_queue_id is None else str(job.job_queue_id)
    found = yield from Verb("name_job", (str(job.task_id), queue), first)
    _put(job, found)


def reference_id(field: str, job: object) -> int:
    """Return the id of a job that is given by its id, its row or its outcome, or raise InvalidJobError."""
    value = job.id if isinstance(job, (Job, EnqueueOutcome)) else job
    if not isinstance(value, int) or isinstance(value, bool) or value not in BIGINT:
        raise InvalidJobError(field, job, "a job's id: an integer from -2^63 to 2^63 - 1, a Job or an EnqueueOutcome")
    return value


def _put(job: Job, names: Row) -> None:
    job.task_identifier, job.queue_name = names.word("task_identifier"), names.text("queue_name")


def _jobs(statement: str, parameters: Parameters, *, for_producers: Verb[list[Job]] | None = None) -> Verb[list[Job]]:
    return Verb(statement, parameters, decode_jobs, binary=True, for_producers=for_producers)


def _removal(number: str | None, job_key: str | None) -> Verb[list[Job]]:
    parameters = (number, job_key)
    return _jobs("remove_job", parameters, for_producers=_jobs("producer_remove_job", parameters))


def _change(jobs: Sequence[int | str], verb: Verb[list[Job]]) -> Change:
    return Change(verb if jobs else None, many=len(jobs) > 1)


def _listed(field: str, given: object, what: str) -> Iterable[Any]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise InvalidJobError(field, given, f"a list of {what}; for one job, a list of one: [{what.removesuffix('s')}]")
    return given


def _ids(jobs: object) -> list[int]:
    return [reference_id(f"jobs[{index}]", job) for index, job in enumerate(_listed("jobs", jobs, "ids"))]
