"""Rows of jobs out of libpq's binary results, read so that no row can harm its neighbours.

The driver's own loaders refuse a whole result for one infinite time or one undecodable text; here every column becomes
plain bytes, integers or text, and what cannot be held in Python is found when it is asked for. Used by claims and by the
client's verbs. The Python form of what the native module will do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson

from backfill.errors import PayloadDecodeError
from backfill.records import PG_EPOCH, Job

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_INT2: Final = struct.Struct("!h").unpack
_INT4: Final = struct.Struct("!i").unpack
_INT8: Final = struct.Struct("!q").unpack


def decode_jobs(result: PGresult, identifiers: Mapping[int, str] | None = None) -> list[Job]:
    """The jobs of a result in binary format, whatever their order of columns.

    Args:
        result: of a statement that returns a job's columns by their names.
        identifiers: task identifiers by task id, where the result has no column `task_identifier`.
    """
    columns = [_column(result, index) for index in range(result.nfields)]
    named = identifiers or {}
    jobs = []
    for row in range(result.ntuples):
        values: dict[str, Any] = {}
        for index, (name, decode) in enumerate(columns):
            raw = result.get_value(row, index)
            if raw is not None:
                values[name] = decode(raw)
        if "task_identifier" not in values:
            values["task_identifier"] = named.get(values["task_id"], "")
        jobs.append(Job(**values))
    return jobs


def unreadable(job: Job) -> str | None:
    """Why a row cannot be handed to a handler (a time that Python cannot hold), or None where it can."""
    try:
        _ = job.run_at, job.created_at, job.updated_at, job.locked_at
    except PayloadDecodeError as error:
        return str(error)
    return None


def micros(moment: datetime) -> int:
    """A time as PostgreSQL holds it: microseconds since 2000-01-01 UTC."""
    return (moment.astimezone(UTC) - PG_EPOCH) // timedelta(microseconds=1)


def _column(result: PGresult, index: int) -> tuple[str, Callable[[bytes], Any]]:
    name = (result.fname(index) or b"").decode()
    return _COLUMNS[name]


def _int2(raw: bytes) -> int:
    return int(_INT2(raw)[0])


def _int4(raw: bytes) -> int:
    return int(_INT4(raw)[0])


def _int8(raw: bytes) -> int:
    return int(_INT8(raw)[0])


def _text(raw: bytes) -> str:
    # A database in SQL_ASCII may send any bytes; a replaced character harms less than a lost batch.
    return raw.decode("utf-8", "replace")


def _flags(raw: bytes) -> tuple[str, ...]:
    try:
        value = orjson.loads(raw[1:])  # jsonb's binary form has one byte of version before the text
    except orjson.JSONDecodeError:
        return ()
    return tuple(str(flag) for flag in value) if isinstance(value, (dict, list)) else ()


_COLUMNS: Final[dict[str, tuple[str, Callable[[bytes], Any]]]] = {
    "id": ("id", _int8),
    "task_id": ("task_id", _int4),
    "task_identifier": ("task_identifier", _text),
    "job_queue_id": ("job_queue_id", _int4),
    "queue_name": ("queue_name", _text),
    "payload": ("payload_bytes", bytes),
    "priority": ("priority", _int2),
    "run_at": ("run_at_micros", _int8),
    "attempts": ("attempts", _int2),
    "max_attempts": ("max_attempts", _int2),
    "last_error": ("last_error", _text),
    "created_at": ("created_at_micros", _int8),
    "updated_at": ("updated_at_micros", _int8),
    "key": ("key", _text),
    "locked_at": ("locked_at_micros", _int8),
    "locked_by": ("locked_by", _text),
    "revision": ("revision", _int4),
    "flags": ("flags", _flags),
}
