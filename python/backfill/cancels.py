"""Cancellations as types: what came of a request to cancel jobs, and what a handler sees of it.

The client's verbs for cancelling give these values, and a handler's context has a `Cancellation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class CancelStatus(StrEnum):
    """What came of a request to cancel one job."""

    REMOVED = "removed"
    """It waited, and is deleted: it does not run."""
    REQUESTED = "requested"
    """A worker holds it and is asked to end it: it does not run again."""
    FOREIGN = "foreign"
    """A worker of another program holds it, such as Node's or the Rust crate's; it is left as it is."""
    NOT_FOUND = "not_found"
    """There is no such job that waits or runs: it has ended, or it was never there."""


@dataclass(frozen=True, slots=True)
class CancelOutcome:
    """What came of a request to cancel a job.

    Attributes:
        id: the job's id.
        status: whether the job is removed, or its worker is asked to end it, or neither.
        worker_id: the worker that holds the job; None where none does.
        reason: the reason that counts: that of the first request, where the job was cancelled before.
    """

    id: int
    status: CancelStatus
    worker_id: str | None = None
    reason: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the job does not run again: it is removed, or its worker is asked to end it."""
        return self.status in (CancelStatus.REMOVED, CancelStatus.REQUESTED)


@dataclass(frozen=True, slots=True)
class CancelCounts:
    """What came of a request to cancel many jobs.

    Attributes:
        removed: how many jobs waited and are deleted.
        requested: how many jobs workers hold that are asked to end them.
        foreign: how many jobs workers of other programs hold; these jobs are left as they are.
    """

    removed: int = 0
    requested: int = 0
    foreign: int = 0

    def __add__(self, other: CancelCounts) -> CancelCounts:
        """The sums of both."""
        return CancelCounts(
            self.removed + other.removed, self.requested + other.requested, self.foreign + other.foreign
        )


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A request to end a job that runs, as its handler sees it.

    Attributes:
        by: the database role that asked.
        reason: why, if a reason was given.
        at: when, by the database's clock; None if the time cannot be read.
    """

    by: str
    reason: str | None = None
    at: datetime | None = None
