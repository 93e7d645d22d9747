"""Adds a job whose key then stays reserved for a while, so that no second job of the key is added meanwhile.

Used by `enqueue`, and by `bulk/reserving.py` for the rows of a bulk call. A function of the schema writes the
reservation in the transaction that adds the job.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from backfill._native import decode_rows
from backfill.client.carrier import AnyConnection
from backfill.client.execute import repeated, run, run_own
from backfill.client.prepare import JobShape, Parameters, add_job_parameters, interval, status_of
from backfill.errors import BackfillError
from backfill.jobs import EnqueueOutcome, EnqueueStatus
from backfill.records import time_of_micros
from backfill.storage.results import Result, binary_rows

if TYPE_CHECKING:
    from backfill.records import Job
    from backfill.tasks import Task

_TRIES: Final = 5
_NO_COLUMNS_OF_A_JOB: Final = (b"reserved_until", b"kept", b"in_queue")


@dataclass(frozen=True, slots=True)
class Reserved:
    """What came of a job with `unique_for`.

    Attributes:
        job: the row of the job that has the key; of one that is not in the queue any more, only the id and the key are
            true.
        status: what was done.
        until: until when the key is reserved; None if nothing is reserved, because a waiting job was left as it was.
        in_queue: whether the job is in the queue.
    """

    job: Job
    status: EnqueueStatus
    until: datetime | None
    in_queue: bool
    is_kept: bool
    """Whether nothing was written, because the key is reserved."""

    def outcome(self, source: Task[Any, Any] | None) -> EnqueueOutcome[Any]:
        """Return this as the outcome of a call."""
        return EnqueueOutcome(
            self.status,
            self.job.id,
            self.job,
            self.job.revision,
            source,
            reserved_until=self.until,
            in_queue=self.in_queue,
        )


async def add_reserving(
    connection: AnyConnection,
    schema: str,
    shape: JobShape,
    payload: bytes,
    *,
    own: bool,
    tell: bool,
    by_functions: bool,
) -> Reserved:
    """Add a job with `unique_for`, unless its key is reserved.

    Args:
        connection: the connection to write on.
        schema: the queue's schema.
        shape: the job's settings, with a key and `unique_for`.
        payload: the payload's JSON.
        own: whether the connection is the client's, in autocommit, so that the statement can be repeated.
        tell: whether the workers are notified.
        by_functions: whether the connection's role is a producer's.

    Raises:
        BackfillError: another program's add_job lost the race for the key five times.
    """
    span = None if shape.unique_for is None else interval(shape.unique_for)
    parameters: Parameters = (*add_job_parameters(shape, payload), span, "true" if tell else "false")
    statement = "producer_add_unique" if by_functions else "add_unique"
    for _ in range(_TRIES):
        if own:
            result = await repeated(lambda: run_own(connection, statement, schema, parameters))
        else:
            result = await run(connection, statement, schema, parameters, binary=True)
        done = _reserved(result, shape)
        if done is not None:
            return done
    raise BackfillError(
        f"task {shape.task!r}, job_key {shape.key!r}: add_job gave no row, {_TRIES} times; the key is being fought over"
    )


def _reserved(result: Result, shape: JobShape) -> Reserved | None:
    """Read the statement's answer; None if the call lost a race for the key and is to be made again."""
    found = list(binary_rows(result))
    if not found:
        return None
    [row] = found
    columns = [column for column in range(result.nfields) if result.fname(column) not in _NO_COLUMNS_OF_A_JOB]
    names = [result.fname(column) or b"" for column in columns]
    [job] = decode_rows(names, [[result.get_value(0, column) for column in columns]], None, False)
    kept = row.flag("kept")
    status = EnqueueStatus.KEPT if kept else status_of(job, shape.mode)
    until = None if row.raw("reserved_until") is None else time_of_micros(row.integer("reserved_until"))
    return Reserved(job, status, until, row.flag("in_queue"), kept)
