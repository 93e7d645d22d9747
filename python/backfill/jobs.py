"""The words of the queue as types: a job, a job that is not enqueued yet, and what came of enqueuing it.

Imported by client, worker and storage alike; it knows neither. How a job is to be run is said by `specs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """What a job needs to know of a registered task; `tasks.Task` has it."""

    @property
    def identifier(self) -> str:
        """The task's name in the database."""
        ...

    @property
    def default_max_attempts(self) -> int | None:
        """The runs that the task's own policy allows, if it has one."""
        ...

    def given(self, payload: object) -> object:
        """The payload that a job has.

        It is the one that was given, if that is of the handler's class, or what stands for none.
        """
        ...


@dataclass(frozen=True, slots=True)
class NewJob(Generic[R_co]):
    """A job that is not enqueued yet; `R` is what its task returns.

    `task.job(payload)` makes one that type checkers know; `NewJob("name", payload, JobSpec(...))` makes one by name.

    Raises:
        InvalidJobError: what names no task, or is no spec.
        InvalidPayloadError: a payload that is not of the class that the task's handler takes.
    """

    task: str
    payload: object = field(repr=False)  # it may be a secret, and a job is shown in messages
    spec: JobSpec
    default_max_attempts: int | None
    source: Task[Any, Any] | None = field(repr=False, compare=False)
    """The registered task that made it, which knows what its results are; None where it was made by name."""
    defaults: JobSpec = field(repr=False, compare=False)
    """What the task says of its jobs, where neither the job's spec nor the call says otherwise."""

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
            defaults = source.defaults_for(payload)
        elif payload is NOTHING:
            payload = None
        if type(name) is not str or name not in _CHECKED:
            _check_name(name)
        if spec is not None and not isinstance(spec, JobSpec):
            raise InvalidJobError("spec", spec, "a JobSpec")
        # A producer may make millions: the slots themselves, which take half the time of object.__setattr__.
        _set_task(self, name)
        _set_payload(self, payload)
        _set_spec(self, UNSAID if spec is None else spec)
        _set_default_max_attempts(self, attempts)
        _set_source(self, source)
        _set_defaults(self, defaults)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without the task that made it, which holds a function."""
        return _rebuilt, (self.task, self.payload, self.spec, self.default_max_attempts, self.defaults)

    @property
    def max_attempts(self) -> int:
        """Who decides the number of runs: the spec, its policy, the task, the task's policy, else 8."""
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
"""Tasks' names that were checked lately."""


def job_of(
    task: Task[Any, Any], default_max_attempts: int | None, payload: object, spec: JobSpec | None, defaults: JobSpec
) -> NewJob[Any]:
    """A job of a registered task, whose name was checked when it was registered, and its payload by the task."""
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
    """A waiting job of that key was replaced."""
    KEPT = "kept"
    """A waiting job of that key was left as it was (unsafe_dedupe)."""
    ALREADY_IN_PROGRESS = "already_in_progress"
    """A job of that key is running, and was left as it was (unsafe_dedupe)."""
    EXHAUSTED = "exhausted"
    """A job of that key is out of attempts, and was left as it was (unsafe_dedupe): nothing will run."""


@dataclass(frozen=True, slots=True)
class EnqueueOutcome(Generic[R_co]):
    """What came of enqueuing one job; `R` is what its task returns.

    Attributes:
        status: what was done.
        id: of the job that has the key now, or of the new one.
        job: its row as it was written.
        revision: how often a job of this row was replaced or kept; 0 for a new one.
        source: the registered task, by which `client.result` reads what its handler returned; None where it was named.
    """

    status: EnqueueStatus
    id: int
    job: Job
    revision: int = 0
    source: Task[Any, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def is_enqueued(self) -> bool:
        """Whether this call's payload will be run: added, or in the place of another."""
        return self.status in (EnqueueStatus.ADDED, EnqueueStatus.REPLACED)

    @property
    def is_already_in_progress(self) -> bool:
        """Whether a running job kept this one out."""
        return self.status is EnqueueStatus.ALREADY_IN_PROGRESS


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """What came of a bulk enqueue.

    Attributes:
        written: how many jobs were added or applied to a job of their key.
        ids: theirs, in the order given, where they were asked for, else None.
    """

    written: int
    ids: list[int] | None = None


def _reference(task: Any) -> tuple[str, int | None, Any]:
    if not hasattr(task, "identifier"):
        raise InvalidJobError("task", task, "a task's name or a registered task")
    return task.identifier, task.default_max_attempts, task if hasattr(task, "decode_result") else None
