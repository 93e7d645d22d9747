"""A job as a row of the queue: what claims, producers' calls and `get_job` give back.

The class is native; what it leaves to Python, because it is asked for rarely, is here: the payload's values, times,
flags.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from backfill._native import Job
from backfill.errors import PayloadDecodeError

__all__ = [
    "DEAD_LETTER_FLAG",
    "PG_EPOCH",
    "Job",
    "Mark",
    "flags_from_jsonb",
    "moment_of",
    "payload_of",
    "rebuild_job",
    "time_of_micros",
]

DEAD_LETTER_FLAG: Final = "backfill.dead_letter:"
"""Begins the mark of a job without a key that was requeued from an entry of the dead letters, whose number follows."""
PG_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
INFINITY: Final = 2**63 - 1
NEGATIVE_INFINITY: Final = -(2**63)
_MICROSECOND: Final = timedelta(microseconds=1)


class Mark(str):
    """A flag that this package has set on a job, as it was read from its row.

    It is a string like any other. That it is known by its class lets a program copy all flags of a job to a new one:
    the mark says something of the job that it was read from alone, so it is left out there.
    """

    __slots__ = ()


def time_of_micros(micros: int) -> datetime:
    """A time as PostgreSQL holds it, microseconds since 2000-01-01 UTC.

    Raises:
        OverflowError: it is beyond Python's years 1 to 9999.
    """
    return PG_EPOCH + micros * _MICROSECOND


def payload_of(job: Job) -> Any:
    """A job's payload as plain JSON values; called by the native class.

    Raises:
        PayloadDecodeError: PostgreSQL's json holds texts that Python's decoder refuses (lone surrogates, 1e999999).
    """
    try:
        return orjson.loads(job.payload_bytes)
    except orjson.JSONDecodeError as error:
        raise PayloadDecodeError(f"job {job.id} ({job.task_identifier}): payload: {error}") from error


def moment_of(job: Job, column: str, micros: int) -> datetime:
    """One of a job's times; called by the native class.

    Raises:
        PayloadDecodeError: it is infinite, or beyond Python's years.
    """
    try:
        return time_of_micros(micros)
    except OverflowError:
        raise PayloadDecodeError(
            f"job {job.id} ({job.task_identifier}): {column} is {_infinity(micros)}, beyond Python's years 1 to 9999"
        ) from None


def flags_from_jsonb(raw: bytes) -> tuple[str, ...]:
    """The names in a job's flags, from jsonb's binary form (a byte of version, then the text).

    The native class calls it.
    """
    try:
        value = orjson.loads(raw[1:])
    except orjson.JSONDecodeError:
        try:  # a number that no machine word holds, as a flag's value: only the names matter
            value = json.loads(raw[1:], parse_int=str, parse_float=str)
        except ValueError:
            return ()
    if not isinstance(value, (dict, list)):
        return ()
    texts = tuple(str(flag) for flag in value)
    return tuple(Mark(flag) if flag.startswith(DEAD_LETTER_FLAG) else flag for flag in texts)


def rebuild_job(fields: dict[str, Any]) -> Job:
    """A job that was pickled or copied."""
    return Job(**fields)


def _infinity(micros: int) -> str:
    if micros == INFINITY:
        return "infinity"
    return "-infinity" if micros == NEGATIVE_INFINITY else f"{micros} microseconds from 2000-01-01"
