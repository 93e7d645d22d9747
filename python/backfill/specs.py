"""How a job is to be run: priorities, serial queues, job keys, and the bundle of all that a producer may say.

What a caller can get wrong is refused here, at once, with the field, the value and the limit.
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
    check_text,
    check_time,
)
from backfill.errors import InvalidJobError
from backfill.flags import given_flags
from backfill.retry import MAX_ATTEMPTS_LIMIT, RetryPolicy

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
    """Where a job runs: in parallel with all others, or in a serial queue, one job at a time in the whole fleet.

    Args:
        name: the serial queue's name, 1 to 128 characters; None for parallel jobs.
        block_on_retry: as for `Queue.serial`.

    Raises:
        InvalidJobError: a name that is empty or too long, or `block_on_retry` without a name.
    """

    name: str | None = None
    block_on_retry: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that PostgreSQL would refuse later, and a parallel queue that is to be kept for one job."""
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
        """No serial queue: the default."""
        return cls()

    @classmethod
    def serial(cls, name: str, *, block_on_retry: bool = False) -> Queue:
        """The serial queue of that name; it is made when it is first used.

        Args:
            name: 1 to 128 characters.
            block_on_retry: whether the queue waits for this job when an attempt fails, is snoozed or is cut off. No other
                job of the queue runs then until this one has ended, so that order holds under retries. Without it the
                queue runs its next job meanwhile. It belongs to the job, not to the queue: it travels in the job's
                flags, as `backfill.block_on_retry`.

        Raises:
            InvalidJobError: the name is None, empty or too long, or `block_on_retry` is no bool.
        """
        if name is None:
            raise InvalidJobError("queue", name, "a name; Queue.parallel() is the queue without one")
        return cls(name, block_on_retry)

    @classmethod
    def serial_for(cls, entity: str, id: object, *, block_on_retry: bool = False) -> Queue:
        """The serial queue of one thing, named `entity:id`: all jobs of one user, one account, one order.

        Args:
            entity: the kind of thing, such as `user`; without a colon, so that no two pairs give one name.
            id: which one, such as 123 or "a-1"; not None.
            block_on_retry: as for `serial`.

        Raises:
            InvalidJobError: one of them cannot be used.
        """
        if not isinstance(entity, str) or ":" in entity:
            raise InvalidJobError("entity", entity, "text without a colon: the queue is named entity:id")
        if id is None:
            raise InvalidJobError("id", id, "what tells one thing from the others, such as a number; not None")
        return cls(f"{entity}:{id}", block_on_retry)

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
            raise InvalidJobError("queue", self.queue, f"a Queue, such as Queue.serial({_name_in(self.queue)!r})")
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


def _settle(spec: JobSpec, name: str, value: object) -> None:
    object.__setattr__(spec, name, value)


def _mode(value: object) -> JobKeyMode:
    try:
        return JobKeyMode(value)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidJobError("job_key_mode", value, " or ".join(mode.value for mode in JobKeyMode)) from None


def _name_in(queue: object) -> str:
    """What a message proposes as a queue's name; anything but text may be a payload in the wrong place."""
    return queue if isinstance(queue, str) else "name"
