"""Rows of jobs from libpq's binary results, decoded natively so that a bad row does no harm to the others.

The driver's own loaders refuse a whole result for one infinite time or one undecodable text. Here every column becomes
plain bytes, integers or text, and a value that Python cannot hold is noticed only when it is asked for. Used by claims
and by the client's verbs. Where libpq cannot be reached natively (psycopg's pure Python form, Windows), values are
fetched one by one.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg.pq

from backfill._native import Job, decode_result, decode_rows, reach_libpq
from backfill.errors import PayloadDecodeError
from backfill.records import PG_EPOCH

if TYPE_CHECKING:
    from backfill.storage.results import Result


def _reach_libpq() -> bool:
    """Whether results can be read in place: psycopg's C part is loaded, and libpq's functions are found through it."""
    if psycopg.pq.__impl__ not in ("c", "binary"):
        return False
    module = importlib.import_module(f"psycopg_{psycopg.pq.__impl__}.pq")
    return reach_libpq(module.__file__ or "", psycopg.pq.PGresult)


IN_PLACE = _reach_libpq()


def decode_jobs(result: Result, identifiers: Mapping[int, str] | None = None, *, ordered: bool = False) -> list[Job]:
    """The jobs of a result in binary format, whatever the order of its columns.

    Args:
        result: the result of a statement that returns a job's columns by their names.
        identifiers: task identifiers by task id, where the result has no column `task_identifier`.
        ordered: whether to put the jobs in the contract's order: priority, run_at, id.
    """
    if IN_PLACE and isinstance(result, psycopg.pq.PGresult):
        return decode_result(result, identifiers, ordered)
    columns = range(result.nfields)
    names = [result.fname(column) or b"" for column in columns]
    rows = [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]
    return decode_rows(names, rows, identifiers, ordered)


def unreadable(job: Job) -> str | None:
    """Why a row cannot be handed to a handler (a time that Python cannot hold), or None where it can."""
    if job.readable:
        return None
    try:
        _ = job.run_at, job.created_at, job.updated_at, job.locked_at
    except PayloadDecodeError as error:
        return str(error)
    return None


def micros(moment: datetime) -> int:
    """A time as PostgreSQL holds it: microseconds since 2000-01-01 UTC."""
    return (moment.astimezone(UTC) - PG_EPOCH) // timedelta(microseconds=1)
