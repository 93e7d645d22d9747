"""Turns a producer's call into the parameters of a statement, without any I/O.

Keywords and specs become a shape; a shape and a payload become parameters. Used by every verb that adds jobs, and by
any client, synchronous or asynchronous, that sends the parameters to the database. All parameters are text (or None)
which the statements cast, so that no adapter of a caller's connection can change them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypedDict

import orjson

from backfill._native import limit_value
from backfill.checks import check_duration, check_time
from backfill.errors import InvalidJobError, InvalidPayloadError
from backfill.flags import flags_of, limit_flags, limit_value_of
from backfill.jobs import UNSAID, EnqueueStatus, JobKeyMode, JobSpec, NewJob, Queue, max_attempts_of
from backfill.payloads import encode
from backfill.records import LIMITED_FLAG, Job
from backfill.retry import RetryPolicy
from backfill.storage.arrays import text_array

if TYPE_CHECKING:
    from backfill.task import Task

Parameters = tuple[str | bytes | None, ...]
"""Each is text; bytes are text in UTF-8, such as a payload's JSON, and are sent to the server unchanged."""
PAYLOAD_LIMIT: Final = 2**30 - 2**16
"""PostgreSQL holds no row of a gigabyte (2**30 bytes); the difference is left for a job's other columns."""
_KEYWORDS: Final = frozenset(one.name for one in fields(JobSpec))
_ALLOWED: Final = _KEYWORDS | {"notify"}
_REMEMBERED: Final = 4096
"""How many values of a limit a shape knows; when there are more, it begins anew."""


class SharedKeywords(TypedDict, total=False):
    """The keywords that every producer's call takes, in bulk too; `JobSpec` says what each means.

    Only `notify` is no setting of a job: it says whether the workers are notified of the call's jobs.
    """

    run_at: datetime | None
    delay: timedelta | None
    timeout: timedelta | None
    deadline: datetime | None
    flags: Iterable[str] | None
    limit_by: str | None
    unique_for: timedelta | None
    notify: bool


class SerialKeywords(SharedKeywords, total=False):
    """The keywords for one job whose queue and priority are arguments."""

    job_key: str | None
    job_key_mode: JobKeyMode | None


class QueuedKeywords(SharedKeywords, total=False):
    """The keywords for many jobs whose priority and retries are set by the function's name."""

    queue: Queue | None


class KeyedKeywords(QueuedKeywords, total=False):
    """The keywords for one job whose priority and retries are set by the function's name."""

    job_key: str | None
    job_key_mode: JobKeyMode | None


class BulkKeywords(QueuedKeywords, total=False):
    """The keywords of a bulk call for all its jobs; a job key belongs to one job, so it is not among them."""

    priority: int | None
    max_attempts: int | None
    retry: RetryPolicy | None


class JobKeywords(BulkKeywords, total=False):
    """The keywords of `enqueue`: the same settings as in a `JobSpec`."""

    job_key: str | None
    job_key_mode: JobKeyMode | None


@dataclass(frozen=True, slots=True, eq=False)
class JobShape:
    """All settings of a job except its payload, ready to be written; jobs with the same spec share a shape.

    Attributes:
        task: the task's identifier.
        queue: the serial queue's name, or None.
        priority: lower runs first.
        run_at: the earliest time at which the job runs, or None for now.
        delay: the same as a span from now, or None.
        max_attempts: the number of runs in all.
        flags: the caller's own flags and ours; empty if there are none.
        key: the job key, or None.
        mode: what happens to a waiting job with the same key.
        unique_for: how long no second job of the key is added, even when this one has ended; None to reserve nothing.
        encode: writes the job's payload, if the task knows the payload's type; None for plain JSON.
        limit_by: the path of the payload's value for which the job counts in a limit of its task, or None.
        by_value: the shapes that were made for values of it.
    """

    task: str
    queue: str | None
    priority: int
    run_at: datetime | None
    delay: timedelta | None
    max_attempts: int
    flags: tuple[str, ...]
    key: str | None
    mode: JobKeyMode
    encode: Callable[[Any], bytes] | None = None
    limit_by: str | None = None
    by_value: dict[str, JobShape] = field(default_factory=dict)
    unique_for: timedelta | None = None

    def payload(self, payload: object) -> bytes:
        """Return a payload's JSON, in UTF-8.

        Raises:
            InvalidPayloadError: the payload is not of its task's type, cannot be written as JSON, or is too long.
        """
        encoded = encode(payload) if self.encode is None else self.encode(payload)
        check_size(encoded)
        return encoded

    def written(self, payload: object) -> tuple[JobShape, bytes]:
        """Return the shape of a job with a payload, and the payload's JSON.

        It is another shape if the job counts for a value in a limit of its task: its flags name the value.

        Raises:
            InvalidPayloadError: as for `payload`.
        """
        encoded = self.payload(payload)
        if self.limit_by is None:
            return self, encoded
        value = limit_value(encoded, self.limit_by)
        return self if value is None else self.by_value.get(value) or self.for_value(value), encoded

    def for_value(self, value: str) -> JobShape:
        """Return the shape of jobs whose payload has this value where `limit_by` says; it is remembered."""
        if len(self.by_value) >= _REMEMBERED:
            self.by_value.clear()
        flags = (*self.flags, *limit_flags(value))
        shape = self.by_value[value] = replace(self, flags=flags, limit_by=None, by_value={})
        return shape


def with_flags(shape: JobShape, flags: tuple[str, ...]) -> JobShape:
    """Return a job's shape with more flags, unless it has one already that begins as the first of them does."""
    if not flags:
        return shape
    prefix = flags[0][: flags[0].index(":") + 1]
    if any(flag.startswith(prefix) for flag in shape.flags):
        return shape
    return replace(shape, flags=(*shape.flags, *flags), by_value={})


def check_keywords(verb: str, given: Mapping[str, Any], allowed: Iterable[str] = _ALLOWED) -> None:
    """Refuse a keyword that the verb does not know, whatever its value, as Python does; and a `notify` that is no bool.

    Raises:
        TypeError: a keyword is unknown; the error names the first one.
        InvalidJobError: `notify` is neither True nor False.
    """
    if not given:
        return
    if unknown := given.keys() - set(allowed):
        raise TypeError(f"{verb}() got an unexpected keyword argument {min(unknown)!r}")
    if not isinstance(given.get("notify", True), bool):
        raise InvalidJobError("notify", given["notify"], "True or False")


def check_size(payload: bytes) -> None:
    """Refuse a payload whose JSON PostgreSQL could not hold.

    Raises:
        InvalidPayloadError: the payload is too long; the error names its size.
    """
    if len(payload) > PAYLOAD_LIMIT:
        limit = f"at most {PAYLOAD_LIMIT} bytes of JSON, what a row of PostgreSQL can hold, not {len(payload)}"
        raise InvalidPayloadError("payload", payload, limit)


def spec_of(job: NewJob[Any], spec: JobSpec | None, keywords: Mapping[str, Any]) -> JobSpec:
    """Combine a job's own spec, the call's spec and its keywords; the task's defaults apply where these set nothing.

    Raises:
        TypeError: a setting was given twice.
        InvalidJobError: a value is out of range, or values contradict each other.
    """
    whole = job.spec
    if spec is not None:
        whole = whole.merged(**said(spec)) if whole is not UNSAID else checked_spec(spec)
    if keywords:
        whole = whole.merged(**keywords)
    return whole if job.defaults is UNSAID else with_defaults(whole, job.defaults)


def checked_spec(spec: object) -> JobSpec:
    """Return the spec, or raise an error if it is not a `JobSpec`."""
    if not isinstance(spec, JobSpec):
        raise InvalidJobError("spec", spec, "a JobSpec")
    return spec


def said(spec: JobSpec) -> dict[str, Any]:
    """Return the settings of a spec: its fields that are not None."""
    checked_spec(spec)
    return {name: value for name in _KEYWORDS if (value := getattr(spec, name)) is not None}


def with_defaults(spec: JobSpec, defaults: JobSpec) -> JobSpec:
    """Return a job's own spec, filled up with defaults where it gives no setting.

    `run_at` and `delay` count as one setting, given in two ways. A job's own retry policy replaces the default number
    of runs too.
    """
    if spec is UNSAID or defaults is UNSAID:
        return defaults if spec is UNSAID else checked_spec(spec)
    own = said(spec)
    shared = said(defaults)
    if own.keys() & {"run_at", "delay"}:
        shared = {name: value for name, value in shared.items() if name not in ("run_at", "delay")}
    if "retry" in own:
        shared.pop("max_attempts", None)
    return JobSpec(**{**shared, **own})


def shape_of(
    task: str, spec: JobSpec, default_max_attempts: int | None, source: Task[Any, Any] | None = None
) -> JobShape:
    """Return the shape of a task's jobs with a spec.

    The number of runs is the spec's own, else its policy's, else the task's policy's, else 8.

    Args:
        task: the task's name.
        spec: the settings of the jobs.
        default_max_attempts: the number of runs that the task's policy allows.
        source: the registered task, which knows its payload's type; None if only the name is known.
    """
    if spec is UNSAID:
        return _plain_shape(task, default_max_attempts, source)
    return _shape(task, spec, default_max_attempts, source)


@lru_cache(1024)
def _plain_shape(task: str, default_max_attempts: int | None, source: Task[Any, Any] | None) -> JobShape:
    return _shape(task, UNSAID, default_max_attempts, source)


def _shape(task: str, spec: JobSpec, default_max_attempts: int | None, source: Task[Any, Any] | None) -> JobShape:
    if spec.job_key is None:
        _refuse_keyless(task, spec)
    return JobShape(
        task=task,
        queue=None if spec.queue is None else spec.queue.name,
        priority=0 if spec.priority is None else int(spec.priority),
        run_at=None if spec.run_at is None else spec.run_at.astimezone(UTC),
        delay=spec.delay,
        max_attempts=max_attempts_of(spec, default_max_attempts),
        flags=tuple(flags_of(spec)),
        key=spec.job_key,
        mode=spec.job_key_mode or JobKeyMode.REPLACE,
        encode=None if source is None else source.encode,
        limit_by=spec.limit_by,
        unique_for=spec.unique_for,
    )


def _refuse_keyless(task: str, spec: JobSpec) -> None:
    if spec.job_key_mode is not None:
        limit = f"a mode needs a job_key, or a task with key_of; the job of task {task!r} has no key"
        raise InvalidJobError("job_key_mode", spec.job_key_mode.value, limit)
    if spec.unique_for is not None:
        limit = (
            f"it is a key that stays reserved: give a job_key, or key_of on the task; the job of {task!r} has no key"
        )
        raise InvalidJobError("unique_for", spec.unique_for, limit)


def insert_job(shape: JobShape, payload: bytes) -> tuple[str, Parameters]:
    """Return the name and the parameters of the statement that adds a job without a key; `payload` is JSON."""
    parameters = (
        shape.task,
        payload,
        None if shape.run_at is None else shape.run_at.isoformat(),
        None if shape.delay is None else interval(shape.delay),
        str(shape.max_attempts),
        str(shape.priority),
        flags_json(shape.flags),
    )
    return ("insert_job", parameters) if shape.queue is None else ("insert_serial_job", (*parameters, shape.queue))


def add_job_parameters(shape: JobShape, payload: bytes) -> Parameters:
    """Return the parameters of the statement `add_job`, for a job and its payload's JSON."""
    return (
        shape.task,
        payload,
        shape.queue,
        None if shape.run_at is None else shape.run_at.isoformat(),
        None if shape.delay is None else interval(shape.delay),
        str(shape.max_attempts),
        shape.key,
        str(shape.priority),
        text_array(shape.flags) if shape.flags else None,
        shape.mode.value,
    )


def flags_json(flags: Sequence[str]) -> str | None:
    """Return flags as the jobs table stores them: a JSON object whose keys are the flags, or null.

    The flag that marks a job of a limit has the limit's value as its own value, where an index finds it at once.
    """
    if not flags:
        return None
    stored: dict[str, bool | str] = dict.fromkeys(flags, True)
    if LIMITED_FLAG in stored:
        stored[LIMITED_FLAG] = limit_value_of(flags)
    return orjson.dumps(stored).decode()


def moment(time: datetime | None) -> str | None:
    """Return a time as a parameter, in UTC, since ISO 8601 cannot write an offset that has seconds."""
    return None if time is None else time.astimezone(UTC).isoformat()


def due(run_at: datetime | None, delay: timedelta | None) -> tuple[str | None, str | None]:
    """Return when a job is due, as parameters: a time, or a span from now.

    Raises:
        InvalidJobError: both are given, or one is out of range.
    """
    if run_at is not None and delay is not None:
        raise InvalidJobError("delay", delay, "give run_at or delay, not both")
    check_time("run_at", run_at)
    check_duration("delay", delay, zero=True)
    return moment(run_at), None if delay is None else interval(delay)


def status_of(job: Job, mode: JobKeyMode) -> EnqueueStatus:
    """Tell from the row that came back what adding a job did."""
    if job.revision == 0:
        return EnqueueStatus.ADDED
    if mode is not JobKeyMode.UNSAFE_DEDUPE:
        return EnqueueStatus.REPLACED
    if job.locked_by is not None:
        return EnqueueStatus.ALREADY_IN_PROGRESS
    return EnqueueStatus.EXHAUSTED if job.attempts >= job.max_attempts else EnqueueStatus.KEPT


def interval(duration: timedelta) -> str:
    """Write a duration exactly, as PostgreSQL reads it under any setting.

    It has no days, because the length of a day depends on the time zone.
    """
    minutes, seconds = divmod(duration.days * 86_400 + duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}.{duration.microseconds:06}"
