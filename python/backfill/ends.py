"""Ends as types: how a job finished, the filter that selects ends, and a page of them.

The client's verbs for ends use them. Only tasks with `keep=` have ends that outlive their jobs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from backfill.checks import IDENTIFIER_LIMIT, KEY_LIMIT, check_text, check_time
from backfill.errors import InvalidJobError, PayloadDecodeError
from backfill.payloads import decode_plain


class EndHow(StrEnum):
    """How a job finished."""

    COMPLETED = "completed"
    """Its handler returned."""
    FAILED = "failed"
    """Its last attempt failed; it is among the dead letters."""
    DISCARDED = "discarded"
    """Its handler ended it by `Discard`."""
    CANCELLED = "cancelled"
    """An operator ended it."""
    SUPERSEDED = "superseded"
    """It was replaced or removed by its key while it ran, and that run failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """How a job finished.

    Attributes:
        job_id: the job's id.
        task_identifier: the task's name.
        how: in which way it finished.
        attempts: how many runs were counted.
        max_attempts: how many runs were allowed.
        priority: the job's priority; lower ran first.
        queue_name: the serial queue, or None.
        job_key: its key, or None.
        created_at: when it was made; None where no datetime can hold it.
        run_at: when it was due last; None where no datetime can hold it.
        started_at: when its last attempt was claimed.
        ended_at: when its end was written.
        expires_at: until when this end is kept.
        worker_id: the worker that ran it.
        error: what it failed with, why it was discarded, or why there is no result; None where none of these applies.
        result_bytes: what its handler returned, as JSON; None where it did not return, or the result could not be kept.
    """

    job_id: int
    task_identifier: str
    how: EndHow
    attempts: int
    max_attempts: int
    priority: int
    queue_name: str | None
    job_key: str | None
    created_at: datetime | None
    run_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None
    worker_id: str | None
    error: str | None = field(repr=False)
    result_bytes: bytes | None = field(repr=False)

    @property
    def result(self) -> Any:
        """What the handler returned, as plain JSON values; None where there is no result.

        Raises:
            PayloadDecodeError: another program wrote what Python's decoder refuses.
        """
        try:
            return None if self.result_bytes is None else decode_plain(self.result_bytes)
        except PayloadDecodeError as error:
            raise self.unreadable(error) from error

    def unreadable(self, error: PayloadDecodeError) -> PayloadDecodeError:
        """An error that names the job and repeats what the result's decoder said; `result_bytes` holds the text."""
        return PayloadDecodeError(
            f"job {self.job_id} ({self.task_identifier}): result: {str(error).removeprefix('payload: ')}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndFilter:
    """Which ends are meant; an argument that is not given does not filter.

    Args:
        task_identifier: the task's name.
        how: in which way the jobs finished.
        queue_name: the serial queue's name; "" for parallel jobs.
        job_key: the job's key.
        worker_id: the worker that ran the jobs.
        ended_after: jobs that ended at this time or later; an aware time.
        ended_before: jobs that ended at this time or earlier; an aware time.

    Raises:
        InvalidJobError: a value is out of range; the error names it.
    """

    task_identifier: str | None = None
    how: EndHow | None = None
    queue_name: str | None = None
    job_key: str | None = None
    worker_id: str | None = None
    ended_after: datetime | None = None
    ended_before: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse values that no end could match."""
        limits = {"task_identifier": IDENTIFIER_LIMIT, "job_key": KEY_LIMIT, "worker_id": KEY_LIMIT}
        for name, limit in limits.items():
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name), limit)
        if self.queue_name is not None and self.queue_name != "":
            check_text("queue_name", self.queue_name, IDENTIFIER_LIMIT)
        check_time("ended_after", self.ended_after)
        check_time("ended_before", self.ended_before)
        if self.how is not None:
            try:
                object.__setattr__(self, "how", EndHow(self.how))
            except ValueError:
                raise InvalidJobError("how", self.how, " or ".join(EndHow)) from None


@dataclass(frozen=True, slots=True)
class EndList:
    """A page of ends.

    Attributes:
        ends: the ends, newest first.
        cursor: where the next page begins; None on the last page.
    """

    ends: list[JobEnd]
    cursor: str | None = None
