"""A job as a row of the queue: what claims, producers' calls and `get_job` give back.

The Python form; `jobs.py` re-exports the class, so that a native one can take its place without anybody noticing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from backfill.errors import PayloadDecodeError

PG_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
INFINITY: Final = 2**63 - 1
NEGATIVE_INFINITY: Final = -(2**63)
_MICROSECOND: Final = timedelta(microseconds=1)


class Job:
    """One row of the queue, as it was when it was read.

    Times are decoded when asked for: PostgreSQL holds some that Python cannot (infinity, years past 9999), and asking
    for one of those raises `PayloadDecodeError`. The payload stays bytes until asked for.
    """

    __slots__ = (
        "_created_at",
        "_locked_at",
        "_run_at",
        "_updated_at",
        "attempts",
        "flags",
        "id",
        "job_queue_id",
        "key",
        "last_error",
        "locked_by",
        "max_attempts",
        "payload_bytes",
        "priority",
        "queue_name",
        "revision",
        "task_id",
        "task_identifier",
    )

    def __init__(
        self,
        *,
        id: int,
        task_identifier: str,
        payload_bytes: bytes = b"{}",
        queue_name: str | None = None,
        priority: int = 0,
        attempts: int = 0,
        max_attempts: int = 25,
        last_error: str | None = None,
        key: str | None = None,
        revision: int = 0,
        flags: tuple[str, ...] = (),
        locked_by: str | None = None,
        task_id: int = 0,
        job_queue_id: int | None = None,
        run_at_micros: int = 0,
        created_at_micros: int = 0,
        updated_at_micros: int = 0,
        locked_at_micros: int | None = None,
    ) -> None:
        self.id = id
        self.task_identifier = task_identifier
        self.payload_bytes = payload_bytes
        self.queue_name = queue_name
        self.priority = priority
        self.attempts = attempts
        self.max_attempts = max_attempts
        self.last_error = last_error
        self.key = key
        self.revision = revision
        self.flags = flags
        self.locked_by = locked_by
        self.task_id = task_id
        self.job_queue_id = job_queue_id
        self._run_at = run_at_micros
        self._created_at = created_at_micros
        self._updated_at = updated_at_micros
        self._locked_at = locked_at_micros

    @property
    def payload(self) -> Any:
        """The payload as plain JSON values.

        Raises:
            PayloadDecodeError: PostgreSQL's json holds texts that Python's decoder refuses (lone surrogates, 1e999999).
        """
        try:
            return orjson.loads(self.payload_bytes)
        except orjson.JSONDecodeError as error:
            raise PayloadDecodeError(f"job {self.id} ({self.task_identifier}): payload: {error}") from error

    @property
    def run_at(self) -> datetime:
        """Not before this time."""
        return self._time("run_at", self._run_at)

    @property
    def created_at(self) -> datetime:
        """When the row was made."""
        return self._time("created_at", self._created_at)

    @property
    def updated_at(self) -> datetime:
        """When a producer or a settlement last changed the row."""
        return self._time("updated_at", self._updated_at)

    @property
    def locked_at(self) -> datetime | None:
        """Since when a worker holds the job, or None."""
        return None if self._locked_at is None else self._time("locked_at", self._locked_at)

    def _time(self, column: str, micros: int) -> datetime:
        try:
            return PG_EPOCH + micros * _MICROSECOND
        except OverflowError:
            raise PayloadDecodeError(
                f"job {self.id} ({self.task_identifier}): {column} is {_infinity(micros)}, beyond Python's years 1 to 9999"
            ) from None

    def __repr__(self) -> str:
        """What identifies the job; never its payload."""
        return f"Job(id={self.id}, task={self.task_identifier!r}, attempts={self.attempts}/{self.max_attempts})"


def _infinity(micros: int) -> str:
    if micros == INFINITY:
        return "infinity"
    return "-infinity" if micros == NEGATIVE_INFINITY else f"{micros} microseconds from 2000-01-01"
