"""The words of the queue as types: a job, what a producer asks for, and what came of it.

Imported by client, worker and storage alike; it knows neither. What a caller can get wrong is refused here, at once, with
the field, the value and the limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, overload

from backfill.checks import (
    IDENTIFIER_LIMIT,
    KEY_LIMIT,
    SMALLINT,
    check_duration,
    check_int,
    check_text,
    check_time,
)
from backfill.errors import InvalidJobError
from backfill.flags import given_flags
from backfill.records import Job
from backfill.retry import MAX_ATTEMPTS_LIMIT, RetryPolicy

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

DEFAULT_MAX_ATTEMPTS: Final = 8


class Priority(IntEnum):
    """Six levels with names; any smallint is allowed. Lower runs first."""

    EMERGENCY = -20
    FAST_HIGH = -10
    FAST_DEFAULT = -5
    BULK_DEFAULT = 0
    BULK_LOW = 5
    BULK_LOWEST = 10


class JobKeyMode(StrEnum):
    """What adding a job does where a job of that key is waiting already."""

    REPLACE = "replace"
    """Everything is replaced, run_at too; attempts start again."""
    PRESERVE_RUN_AT = "preserve_run_at"
    """Everything but run_at is replaced, unless the job waits for a retry."""
    UNSAFE_DEDUPE = "unsafe_dedupe"
    """The job that is there stays as it is, even one that is running or out of attempts."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Where a job runs: in parallel with all others, or in a serial queue, one job at a time in the whole fleet."""

    name: str | None = None

    def __post_init__(self) -> None:
        """Refuse a name that PostgreSQL would refuse later."""
        if self.name is not None:
            check_text("queue", self.name, IDENTIFIER_LIMIT)

    @classmethod
    def parallel(cls) -> Queue:
        """No serial queue: the default."""
        return cls()

    @classmethod
    def serial(cls, name: str) -> Queue:
        """The serial queue of that name, 1 to 128 characters; made when it is first used."""
        if name is None:
            raise InvalidJobError("queue", name, "a name; Queue.parallel() is the queue without one")
        return cls(name)

    @classmethod
    def serial_for(cls, entity: str, id: object) -> Queue:
        """The serial queue of one thing, named `entity:id`: all jobs of one user, one account, one order."""
        return cls(f"{entity}:{id}")

    @property
    def is_parallel(self) -> bool:
        """Whether jobs in it run beside each other."""
        return self.name is None

    @property
    def is_serial(self) -> bool:
        """Whether at most one job in it runs at a time."""
        return self.name is not None

    @property
    def metric_label(self) -> str:
        """`parallel` or `serial`: a label that cannot grow with the number of queues."""
        return "parallel" if self.name is None else "serial"

    def __str__(self) -> str:
        """The queue's name, or `parallel`."""
        return "parallel" if self.name is None else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """How a job is to be run: a frozen bundle of the keywords that `enqueue` takes. None means: not said.

    Args:
        run_at: not before this time; aware. Now, if neither it nor `delay` is given.
        delay: not before this long from now, by the database's clock; zero or more.
        priority: -32,768 to 32,767, lower first; 0 if not said.
        queue: a serial queue; parallel if not said.
        max_attempts: all runs, the first included, 1 to 32,767; else the policy's, else the task's policy's, else 8.
        retry: the job's own retry policy; it travels in the flags.
        timeout: how long one attempt may run; more than zero. It travels in the flags.
        deadline: when the job is no longer worth running; aware. It travels in the flags.
        flags: names that workers can be told to leave alone.
        job_key: 1 to 512 characters; at most one waiting job has it.
        job_key_mode: what happens to a waiting job of that key; replace if not said.

    Raises:
        InvalidJobError: a value out of range, a naive time, NUL or lone surrogates in text.
    """

    run_at: datetime | None = None
    delay: timedelta | None = None
    priority: int | None = None
    queue: Queue | None = None
    max_attempts: int | None = None
    retry: RetryPolicy | None = None
    timeout: timedelta | None = None
    deadline: datetime | None = None
    flags: Iterable[str] | None = None
    job_key: str | None = None
    job_key_mode: JobKeyMode | None = None

    def __post_init__(self) -> None:
        """Refuse bad input where it is given, not where it would be written."""
        if self.run_at is not None and self.delay is not None:
            raise InvalidJobError("delay", self.delay, "give run_at or delay, not both")
        check_time("run_at", self.run_at)
        check_time("deadline", self.deadline)
        check_duration("delay", self.delay, zero=True)
        check_duration("timeout", self.timeout, zero=False)
        check_int("priority", self.priority, SMALLINT)
        check_int("max_attempts", self.max_attempts, range(1, MAX_ATTEMPTS_LIMIT + 1))
        if self.queue is not None and not isinstance(self.queue, Queue):
            raise InvalidJobError("queue", self.queue, f"a Queue, such as Queue.serial({self.queue!r})")
        if self.retry is not None and not isinstance(self.retry, RetryPolicy):
            raise InvalidJobError("retry", self.retry, "a RetryPolicy, such as RetryPolicy.fast()")
        if self.job_key is not None:
            check_text("job_key", self.job_key, KEY_LIMIT)
        if self.job_key_mode is not None:
            _settle(self, "job_key_mode", _mode(self.job_key_mode))
            if self.job_key is None:
                raise InvalidJobError("job_key_mode", self.job_key_mode.value, "a mode needs a job_key")
        if self.flags is not None:
            _settle(self, "flags", given_flags(self.flags))

    def merged(self, **given: Any) -> JobSpec:
        """This spec with the keywords that are not None added.

        Raises:
            TypeError: a keyword that the spec has said already.
        """
        said = {name: value for name, value in given.items() if value is not None}
        if not said:
            return self
        mine = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        for name in said.keys() & mine.keys():
            raise TypeError(
                f"{name} was given twice: as a keyword ({said[name]!r}) and in the JobSpec ({mine[name]!r})"
            )
        return JobSpec(**mine, **said)


UNSAID: Final = JobSpec()
"""The spec that says nothing; one object for all jobs without a spec of their own."""


def max_attempts_of(spec: JobSpec, default: int | None) -> int:
    """Who decides the number of runs: the spec, its policy, the task's policy (`default`), else 8."""
    if spec.max_attempts is not None:
        return spec.max_attempts
    if spec.retry is not None:
        return spec.retry.max_attempts
    return DEFAULT_MAX_ATTEMPTS if default is None else default


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

    def check_payload(self, payload: object) -> None:
        """Refuse a payload that is not of the class that the handler takes."""
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

    @overload
    def __init__(self, task: Task[None, R_co], payload: None = None, spec: JobSpec | None = None) -> None: ...
    @overload
    def __init__(self, task: Task[P, R_co], payload: PayloadOf[P], spec: JobSpec | None = None) -> None: ...
    @overload
    def __init__(self: NewJob[Any], task: str, payload: object = None, spec: JobSpec | None = None) -> None: ...
    def __init__(
        self, task: str | TaskReference | Task[Any, Any], payload: object = None, spec: JobSpec | None = None
    ) -> None:
        name, attempts, source = (task, None, None) if isinstance(task, str) else _reference(task, payload)
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

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without the task that made it, which holds a function."""
        return _rebuilt, (self.task, self.payload, self.spec, self.default_max_attempts)

    @property
    def max_attempts(self) -> int:
        """Who decides the number of runs: the spec, its policy, the task's policy, else 8."""
        return max_attempts_of(self.spec, self.default_max_attempts)


_SLOTS: Final[Mapping[str, Any]] = vars(NewJob)
_set_task = _SLOTS["task"].__set__
_set_payload = _SLOTS["payload"].__set__
_set_spec = _SLOTS["spec"].__set__
_set_default_max_attempts = _SLOTS["default_max_attempts"].__set__
_set_source = _SLOTS["source"].__set__
_CHECKED: Final[set[str]] = set()
"""Tasks' names that were checked lately."""


def job_of(
    task: Task[Any, Any], default_max_attempts: int | None, payload: object, spec: JobSpec | None
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
    return job


def _rebuilt(task: str, payload: object, spec: JobSpec, default_max_attempts: int | None) -> NewJob[Any]:
    job: NewJob[Any] = NewJob(task, payload, spec)
    _set_default_max_attempts(job, default_max_attempts)
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


def _reference(task: Any, payload: object) -> tuple[str, int | None, Any]:
    if not hasattr(task, "identifier"):
        raise InvalidJobError("task", task, "a task's name or a registered task")
    task.check_payload(payload)
    return task.identifier, task.default_max_attempts, task if hasattr(task, "decode_result") else None


def _settle(spec: JobSpec, name: str, value: object) -> None:
    object.__setattr__(spec, name, value)


def _mode(value: object) -> JobKeyMode:
    try:
        return JobKeyMode(value)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidJobError("job_key_mode", value, " or ".join(mode.value for mode in JobKeyMode)) from None
