"""The basic terms of the queue as types: a job, a job that is not enqueued yet, and the result of enqueuing it.

Client, worker and storage import this module; it imports none of them. `specs` says how a job is to be run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, overload

from backfill.checks import IDENTIFIER_LIMIT, check_text
from backfill.errors import InvalidJobError
from backfill.payloads import NOTHING, Nothing
from backfill.records import Job
from backfill.specs import DEFAULT_MAX_ATTEMPTS, UNSAID, JobKeyMode, JobSpec, Priority, Queue, max_attempts_of

if TYPE_CHECKING:
    from backfill.tasks import PayloadOf, Task

__all__ = [
    "DEFAULT_MAX_ATTEMPTS",
    "UNSAID",
    "BulkOutcome",
    "EnqueueOutcome",
    "EnqueueStatus",
    "Job",
    "JobKeyMode",
    "JobSpec",
    "NewJob",
    "Priority",
    "Queue",
    "TaskReference",
    "max_attempts_of",
]

P = TypeVar("P")
R_co = TypeVar("R_co", covariant=True)


class TaskReference(Protocol):
    """What a job needs to know of a registered task; `tasks.Task` provides it."""

    @property
    def identifier(self) -> str:
        """The task's name in the database."""
        ...

    @property
    def default_max_attempts(self) -> int | None:
        """The number of runs that the task's own policy allows; None if it has no policy."""
        ...

    def given(self, payload: object) -> object:
        """The payload of a job that is made with a given one.

        It is the given payload, if that is of the handler's class. If none was given, it is what stands for none.
        """
        ...


@dataclass(frozen=True, slots=True)
class NewJob(Generic[R_co]):
    """A job that is not enqueued yet; `R` is what its task returns.

    `task.job(payload)` makes a job whose types are checked; `NewJob("name", payload, JobSpec(...))` makes one by name.

    Raises:
        InvalidJobError: `task` does not name a task, or `spec` is not a JobSpec.
        InvalidPayloadError: the payload is not of the class that the task's handler takes.
    """

    task: str
    payload: object = field(repr=False)  # the payload may be secret, and messages show jobs
    spec: JobSpec
    default_max_attempts: int | None
    source: Task[Any, Any] | None = field(repr=False, compare=False)
    """The registered task that made the job and knows the type of its results; None if it was made by name."""
    defaults: JobSpec = field(repr=False, compare=False)
    """The task's settings for its jobs; they hold where neither the job's spec nor the call says otherwise."""

    @overload
    def __init__(
        self, task: Task[None, R_co], payload: Nothing | None = NOTHING, spec: JobSpec | None = None
    ) -> None: ...
    @overload
    def __init__(self, task: Task[P, R_co], payload: PayloadOf[P], spec: JobSpec | None = None) -> None: ...
    @overload
    def __init__(self: NewJob[Any], task: str, payload: object = NOTHING, spec: JobSpec | None = None) -> None: ...
    def __init__(
        self, task: str | TaskReference | Task[Any, Any], payload: object = NOTHING, spec: JobSpec | None = None
    ) -> None:
        name, attempts, source = (task, None, None) if isinstance(task, str) else _reference(task)
        defaults = UNSAID
        if source is not None:
            payload = source.given(payload)
            keyed = isinstance(spec, JobSpec) and spec.job_key is not None
            defaults = source.defaults_for(payload, keyed=keyed)
        elif payload is NOTHING:
            payload = None
        if type(name) is not str or name not in _CHECKED:
            _check_name(name)
        if spec is not None and not isinstance(spec, JobSpec):
            raise InvalidJobError("spec", spec, "a JobSpec")
        # A producer may make millions of jobs, and setting the slots takes half the time of object.__setattr__.
        _set_task(self, name)
        _set_payload(self, payload)
        _set_spec(self, UNSAID if spec is None else spec)
        _set_default_max_attempts(self, attempts)
        _set_source(self, source)
        _set_defaults(self, defaults)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without the task that made the job, since the task holds a function."""
        return _rebuilt, (self.task, self.payload, self.spec, self.default_max_attempts, self.defaults)

    @property
    def max_attempts(self) -> int:
        """The number of runs: from the spec, else its policy, else the task, else the task's policy, else 8."""
        default = self.defaults.max_attempts
        return max_attempts_of(self.spec, self.default_max_attempts if default is None else default)


_SLOTS: Final[Mapping[str, Any]] = vars(NewJob)
_set_task = _SLOTS["task"].__set__
_set_payload = _SLOTS["payload"].__set__
_set_spec = _SLOTS["spec"].__set__
_set_default_max_attempts = _SLOTS["default_max_attempts"].__set__
_set_source = _SLOTS["source"].__set__
_set_defaults = _SLOTS["defaults"].__set__
_CHECKED: Final[set[str]] = set()
"""The names of tasks that were checked lately."""


def job_of(
    task: Task[Any, Any], default_max_attempts: int | None, payload: object, spec: JobSpec | None, defaults: JobSpec
) -> NewJob[Any]:
    """A job of a registered task; the name was checked at registration, and the task has checked the payload."""
    if spec is None:
        spec = UNSAID
    elif not isinstance(spec, JobSpec):
        raise InvalidJobError("spec", spec, "a JobSpec")
    job: NewJob[Any] = object.__new__(NewJob)
    _set_task(job, task.identifier)
    _set_payload(job, payload)
    _set_spec(job, spec)
    _set_default_max_attempts(job, default_max_attempts)
    _set_source(job, task)
    _set_defaults(job, defaults)
    return job


def with_payload(job: NewJob[Any], payload: object) -> NewJob[Any]:
    """A job like another one, with another payload.

    A registered task checks the payload as it checks that of any job, and chooses the job's queue and its key by it if
    it has functions for that.

    Raises:
        InvalidPayloadError: the payload is not of the class that the task's handler takes.
    """
    source = job.source
    if source is not None:
        payload = source.given(payload)
        # Where the task could have chosen the key and did not, the call gives another one.
        keyed = job.spec.job_key is not None or (source.key_of is not None and job.defaults.job_key is None)
        defaults = source.defaults_for(payload, keyed=keyed)
        return job_of(source, job.default_max_attempts, payload, job.spec, defaults)
    return _rebuilt(job.task, payload, job.spec, job.default_max_attempts, job.defaults)


def _rebuilt(
    task: str, payload: object, spec: JobSpec, default_max_attempts: int | None, defaults: JobSpec
) -> NewJob[Any]:
    job: NewJob[Any] = NewJob(task, payload, spec)
    _set_default_max_attempts(job, default_max_attempts)
    _set_defaults(job, defaults)
    return job


def _check_name(name: str) -> None:
    check_text("task", name, IDENTIFIER_LIMIT)
    if len(_CHECKED) >= 1024:
        _CHECKED.clear()
    _CHECKED.add(name)


class EnqueueStatus(StrEnum):
    """What adding a job did."""

    ADDED = "added"
    """A new job is waiting."""
    REPLACED = "replaced"
    """A waiting job with the same key was replaced."""
    KEPT = "kept"
    """Nothing was written: a waiting job was left as it was (unsafe_dedupe), or the key is reserved (unique_for)."""
    ALREADY_IN_PROGRESS = "already_in_progress"
    """A job with the same key is running, and was left as it was (unsafe_dedupe)."""
    EXHAUSTED = "exhausted"
    """A job with the same key is out of attempts, and was left as it was (unsafe_dedupe): nothing will run."""


@dataclass(frozen=True, slots=True)
class EnqueueOutcome(Generic[R_co]):
    """The result of enqueuing one job; `R` is what its task returns.

    Attributes:
        status: what was done.
        id: the id of the new job, or of the job that has the key now.
        job: the row of that job as it was written.
        revision: how often the job of this row was replaced or kept; 0 for a new job.
        source: the registered task, with which `client.result` reads what the handler returned; None if the task was
            given by name.
        reserved_until: until when no second job of the key is added; None if `unique_for` was not given.
        in_queue: whether the job of this id was in the queue when the call looked. It is False only if `unique_for` was
            given and that job has ended; of `job`, only the id and the key are then true.
    """

    status: EnqueueStatus
    id: int
    job: Job
    revision: int = 0
    source: Task[Any, Any] | None = field(default=None, repr=False, compare=False)
    reserved_until: datetime | None = None
    in_queue: bool = True

    @property
    def is_enqueued(self) -> bool:
        """Whether the payload of this call will be run, because its job was added or has replaced another."""
        return self.status in (EnqueueStatus.ADDED, EnqueueStatus.REPLACED)

    @property
    def is_already_in_progress(self) -> bool:
        """Whether this job was not added because a job with the same key is running."""
        return self.status is EnqueueStatus.ALREADY_IN_PROGRESS


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """The result of a bulk enqueue.

    Attributes:
        written: how many jobs were added or applied to a job with the same key.
        ids: the ids of these jobs in the given order; None if ids were not asked for.
        skipped: how many items were left out, because an interceptor of `BeforeJobSchedule` said Skip.
        skipped_indexes: the zero-based positions of these items; None if ids were not asked for. `ids` has no place for
            them.
        kept: how many jobs with `unique_for` were not added, because their keys are reserved; `ids` has the ids of the
            jobs that hold the reservations. `written` does not count them.
    """

    written: int
    ids: list[int] | None = None
    skipped: int = 0
    skipped_indexes: list[int] | None = None
    kept: int = 0


def _reference(task: Any) -> tuple[str, int | None, Any]:
    if not hasattr(task, "identifier"):
        raise InvalidJobError("task", task, "a task's name or a registered task")
    return task.identifier, task.default_max_attempts, task if hasattr(task, "decode_result") else None
