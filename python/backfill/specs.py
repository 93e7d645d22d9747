"""How a job is to be run: priorities, serial queues, job keys, and the bundle of all settings that a producer may give.

Bad values are refused here at once; the error names the field, the value and the limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Final

from backfill.checks import (
    IDENTIFIER_LIMIT,
    KEY_LIMIT,
    SMALLINT,
    check_duration,
    check_int,
    check_path,
    check_text,
    check_time,
)
from backfill.errors import InvalidJobError
from backfill.flags import given_flags
from backfill.retry import MAX_ATTEMPTS_LIMIT, RetryPolicy

DEFAULT_MAX_ATTEMPTS: Final = 8
_SHORTEST_UNIQUE: Final = timedelta(milliseconds=1)
_LONGEST_UNIQUE: Final = timedelta(days=3650)


class Priority(IntEnum):
    """Six priorities that have names; any smallint is allowed, and a lower priority runs first."""

    EMERGENCY = -20
    FAST_HIGH = -10
    FAST_DEFAULT = -5
    BULK_DEFAULT = 0
    BULK_LOW = 5
    BULK_LOWEST = 10


class JobKeyMode(StrEnum):
    """What happens when a job is added and a job with the same key is waiting already."""

    REPLACE = "replace"
    """Everything is replaced, run_at too; attempts are counted from 0 again."""
    PRESERVE_RUN_AT = "preserve_run_at"
    """Everything but run_at is replaced; run_at is replaced too if the job waits for a retry."""
    UNSAFE_DEDUPE = "unsafe_dedupe"
    """The existing job stays as it is, even if it is running or out of attempts."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Where a job runs: in parallel with all others, or in a serial queue, which runs one job at a time fleet-wide.

    Args:
        name: the serial queue's name, 1 to 128 characters; None for parallel jobs.
        block_on_retry: as for `Queue.serial`.

    Raises:
        InvalidJobError: the name is empty or too long, or `block_on_retry` was given without a name.
    """

    name: str | None = None
    block_on_retry: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that PostgreSQL would refuse later, and `block_on_retry` for parallel jobs."""
        if self.name is not None:
            check_text("queue", self.name, IDENTIFIER_LIMIT)
        if not isinstance(self.block_on_retry, bool):
            raise InvalidJobError("block_on_retry", self.block_on_retry, "True or False")
        if self.block_on_retry and self.name is None:
            raise InvalidJobError(
                "block_on_retry", True, "False for parallel jobs; Queue.serial(name) makes a serial queue"
            )

    @classmethod
    def parallel(cls) -> Queue:
        """No serial queue: jobs run in parallel, as they do by default."""
        return cls()

    @classmethod
    def serial(cls, name: str, *, block_on_retry: bool = False) -> Queue:
        """The serial queue of that name; the queue is made when it is first used.

        Args:
            name: the queue's name, 1 to 128 characters.
            block_on_retry: whether the queue waits for this job when an attempt fails, is snoozed or is cut off. If it
                waits, no other job of the queue runs until this one has ended, so that retries do not change the order.
                If not, the queue runs its next job meanwhile. The setting belongs to the job, not to the queue: it
                travels in the job's flags, as `backfill.block_on_retry`.

        Raises:
            InvalidJobError: the name is None, empty or too long, or `block_on_retry` is not a bool.
        """
        if name is None:
            raise InvalidJobError("queue", name, "a name; Queue.parallel() is the queue without one")
        return cls(name, block_on_retry)

    @classmethod
    def serial_for(cls, entity: str, id: object, *, block_on_retry: bool = False) -> Queue:
        """The serial queue `entity:id` for all jobs of one thing, such as one user, one account or one order.

        Args:
            entity: the kind of thing, such as `user`; without a colon, so that no two pairs give the same name.
            id: which thing of that kind, such as 123 or "a-1"; not None.
            block_on_retry: as for `serial`.

        Raises:
            InvalidJobError: an argument cannot be used.
        """
        if not isinstance(entity, str) or ":" in entity:
            raise InvalidJobError("entity", entity, "text without a colon: the queue is named entity:id")
        if id is None:
            raise InvalidJobError("id", id, "what tells one thing from the others, such as a number; not None")
        return cls(f"{entity}:{id}", block_on_retry)

    @property
    def is_parallel(self) -> bool:
        """Whether the jobs in it run in parallel."""
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
    """How a job is to be run: a frozen bundle of the keywords that `enqueue` takes; None means not given.

    Args:
        run_at: the earliest time at which the job may run; an aware time. If neither `run_at` nor `delay` is given, it
            is now.
        delay: how long from now the job has to wait, by the database's clock; zero or more.
        priority: -32,768 to 32,767, lower first; 0 if not given.
        queue: a serial queue; if not given, the job runs in parallel with others.
        max_attempts: the number of all runs, the first included, 1 to 32,767. If not given, it comes from `retry`, else
            from the task, else from the task's policy, else it is 8.
        retry: the job's own retry policy; it travels in the flags.
        timeout: how long one attempt may run; more than zero. It travels in the flags.
        deadline: the time from which the job is no longer worth running; an aware time. It travels in the flags.
        flags: names by which workers can be told to leave the job alone.
        limit_by: a field of the payload, such as `"tenant_id"`, or a path to one, such as `"customer.id"`: the job
            counts for its value in a limit of its task. A task with such a limit says this itself; a producer that
            knows only the task's name says it here. The value travels in the flags.
        job_key: 1 to 512 characters; at most one waiting job has a given key.
        job_key_mode: what happens to a waiting job with the same key; replace if not given. `enqueue` refuses it
            where the job has no key.
        unique_for: how long no second job of the key is added after this one, even if this one has ended by then; 1
            millisecond to 3,650 days. It needs a `job_key`, or a task with `key_of`.

    Raises:
        InvalidJobError: a value is out of range, a time is naive, or a text has NUL or lone surrogates.
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
    limit_by: str | None = None
    job_key: str | None = None
    job_key_mode: JobKeyMode | None = None
    unique_for: timedelta | None = None

    def __post_init__(self) -> None:
        """Refuse bad input when it is given, not when it would be written."""
        if self.run_at is not None and self.delay is not None:
            raise InvalidJobError("delay", self.delay, "give run_at or delay, not both")
        check_time("run_at", self.run_at)
        check_time("deadline", self.deadline)
        check_duration("delay", self.delay, zero=True)
        check_duration("timeout", self.timeout, zero=False)
        check_int("priority", self.priority, SMALLINT)
        check_int("max_attempts", self.max_attempts, range(1, MAX_ATTEMPTS_LIMIT + 1))
        if self.queue is not None and not isinstance(self.queue, Queue):
            raise InvalidJobError("queue", self.queue, f"a Queue, such as Queue.serial({_name_in(self.queue)!r})")
        if self.retry is not None and not isinstance(self.retry, RetryPolicy):
            raise InvalidJobError("retry", self.retry, "a RetryPolicy, such as RetryPolicy.fast()")
        if self.job_key is not None:
            check_text("job_key", self.job_key, KEY_LIMIT)
        if self.job_key_mode is not None:
            _settle(self, "job_key_mode", _mode(self.job_key_mode))
        if self.unique_for is not None and not (
            isinstance(self.unique_for, timedelta) and _SHORTEST_UNIQUE <= self.unique_for <= _LONGEST_UNIQUE
        ):
            raise InvalidJobError("unique_for", self.unique_for, "a timedelta from 1 millisecond to 3,650 days")
        if self.limit_by is not None:
            check_path("limit_by", self.limit_by)
        if self.flags is not None:
            _settle(self, "flags", given_flags(self.flags))

    def merged(self, **given: Any) -> JobSpec:
        """A spec with the values of this one and all given keywords that are not None.

        Raises:
            TypeError: the spec has a value for a given keyword already.
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
"""The empty spec; all jobs without a spec of their own share this object."""


def max_attempts_of(spec: JobSpec, default: int | None) -> int:
    """The number of runs: from the spec, else its policy, else the task's policy (`default`), else 8."""
    if spec.max_attempts is not None:
        return spec.max_attempts
    if spec.retry is not None:
        return spec.retry.max_attempts
    return DEFAULT_MAX_ATTEMPTS if default is None else default


def _settle(spec: JobSpec, name: str, value: object) -> None:
    object.__setattr__(spec, name, value)


def _mode(value: object) -> JobKeyMode:
    try:
        return JobKeyMode(value)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidJobError("job_key_mode", value, " or ".join(mode.value for mode in JobKeyMode)) from None


def _name_in(queue: object) -> str:
    """The queue's name that a message proposes: a given text, else "name", since another value may be a payload."""
    return queue if isinstance(queue, str) else "name"
