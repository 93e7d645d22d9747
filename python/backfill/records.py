"""A job as a row of the queue, as claims, producers' calls and `get_job` return it.

The class is native. This module holds the parts that the class leaves to Python because they are needed rarely: the
payload's values, the times and the flags.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from backfill._native import Job
from backfill.errors import PayloadDecodeError

__all__ = [
    "CANCEL_FLAG",
    "DEAD_LETTER_FLAG",
    "LIMITED_FLAG",
    "LIMIT_FLAG",
    "PG_EPOCH",
    "PROGRESS_FLAG",
    "REMOVED_FLAG",
    "TRACE_FLAG",
    "TRACE_STATE_FLAG",
    "UNSAMPLED",
    "UNSAMPLED_FLAG",
    "Job",
    "Mark",
    "flags_from_jsonb",
    "moment_of",
    "payload_of",
    "rebuild_job",
    "time_of_micros",
]

CANCEL_FLAG: Final = "backfill.cancel"
"""The flag of a job that was cancelled while a worker held it; its value says by whom, when and why."""
DEAD_LETTER_FLAG: Final = "backfill.dead_letter:"
"""The prefix of the flag that marks a job without a key as requeued from a dead letter; the letter's id follows it."""
REMOVED_FLAG: Final = "backfill.removed"
"""The flag of a batch that was removed while a worker of ours held it, so that its items are dropped if they fail."""
LIMITED_FLAG: Final = "backfill.limited"
"""The flag of a job whose payload has a value for its task's limit; an index of such jobs alone looks for it."""
LIMIT_FLAG: Final = "backfill.limit:"
"""The prefix of the flag that names this value."""
PROGRESS_FLAG: Final = "backfill.progress"
"""The flag of a job whose handler has said how far it has come, so that its next attempt reads its checkpoint."""
TRACE_FLAG: Final = "traceparent:"
"""The prefix of the flag that carries the trace context of the call that added a job, as W3C writes it.

It does not begin with `backfill.`, since programs of any kind may set it: in SQL, in Node, and by a producer's rights.
"""
TRACE_STATE_FLAG: Final = "tracestate:"
"""The prefix of the flag that carries the rest of that context, which tracing systems have for themselves."""
UNSAMPLED_FLAG: Final = f"{TRACE_FLAG}unsampled"
"""The flag of a job that was added within a trace which is not sampled."""
PG_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
INFINITY: Final = 2**63 - 1
NEGATIVE_INFINITY: Final = -(2**63)
_MARKS: Final = (DEAD_LETTER_FLAG, LIMIT_FLAG, TRACE_FLAG, TRACE_STATE_FLAG)
_WHOLE_MARKS: Final = (CANCEL_FLAG, LIMITED_FLAG, PROGRESS_FLAG, REMOVED_FLAG)
_MICROSECOND: Final = timedelta(microseconds=1)


class Mark(str):
    """A flag that this package has set on a job, as it was read from the job's row.

    It is a string like any other. Its class lets a program copy all flags of one job to a new job: the mark says
    something about the first job only, so it is recognised by its class and left out of the new one.
    """

    __slots__ = ()


def time_of_micros(micros: int) -> datetime:
    """The time that PostgreSQL holds as microseconds since 2000-01-01 UTC.

    Raises:
        OverflowError: the time is outside Python's years 1 to 9999.
    """
    return PG_EPOCH + micros * _MICROSECOND


UNSAMPLED: Final = (Mark(UNSAMPLED_FLAG),)
"""The flags of such a job; as they are read from rows they are this very object."""
_UNSAMPLED_ROW: Final = b'\x01{"%s": true}' % UNSAMPLED_FLAG.encode()


def payload_of(job: Job) -> Any:
    """A job's payload as plain JSON values; the native class calls this function.

    Raises:
        PayloadDecodeError: PostgreSQL's json holds texts that Python's decoder refuses (lone surrogates, 1e999999).
    """
    try:
        return orjson.loads(job.payload_bytes)
    except orjson.JSONDecodeError as error:
        raise PayloadDecodeError(f"job {job.id} ({job.task_identifier}): payload: {error}") from error


def moment_of(job: Job, column: str, micros: int) -> datetime:
    """One of a job's times; the native class calls this function.

    Raises:
        PayloadDecodeError: the time is infinite, or outside Python's years.
    """
    try:
        return time_of_micros(micros)
    except OverflowError:
        raise PayloadDecodeError(
            f"job {job.id} ({job.task_identifier}): {column} is {_infinity(micros)}, beyond Python's years 1 to 9999"
        ) from None


def flags_from_jsonb(raw: bytes) -> tuple[str, ...]:
    """The names in a job's flags, read from jsonb's binary form (a version byte, then the text).

    The native class calls this function.
    """
    if raw == _UNSAMPLED_ROW:
        return UNSAMPLED
    try:
        value = orjson.loads(raw[1:])
    except orjson.JSONDecodeError:
        try:  # a flag's value may be a number too large for a machine word; only names matter
            value = json.loads(raw[1:], parse_int=str, parse_float=str)
        except ValueError:
            return ()
    if not isinstance(value, (dict, list)):
        return ()
    texts = tuple(str(flag) for flag in value)
    return tuple(Mark(flag) if flag.startswith(_MARKS) or flag in _WHOLE_MARKS else flag for flag in texts)


def rebuild_job(fields: dict[str, Any]) -> Job:
    """Make a job again from the fields that were pickled or copied."""
    return Job(**fields)


def _infinity(micros: int) -> str:
    if micros == INFINITY:
        return "infinity"
    return "-infinity" if micros == NEGATIVE_INFINITY else f"{micros} microseconds from 2000-01-01"
