"""Attempts as types: what is kept of an attempt that did not complete, and in which way it ended.

The client's verb `attempts` and the handlers' context use them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class AttemptHow(StrEnum):
    """In which way an attempt ended without completing its job."""

    FAILED = "failed"
    """Its handler raised an error, or its payload could not be decoded."""
    TIMED_OUT = "timed_out"
    """It ran longer than its timeout."""
    DEADLINE = "deadline"
    """Its job's deadline was reached, while it ran or before it began."""
    SNOOZED = "snoozed"
    """Its handler put the job off by `Snooze`."""
    INTERRUPTED = "interrupted"
    """Its worker stopped, and gave the job back while its handler ran."""
    CANCELLED = "cancelled"
    """An operator cancelled the job."""
    LOST = "lost"
    """Its worker died, so that nobody knows how far it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """An attempt that did not complete.

    Attributes:
        attempt: which run of the job it was, as `ctx.attempt` said. The next run has the same number if this one did
            not count: it was snoozed or interrupted.
        how: in which way it ended.
        worker_id: the worker that ran it; None if it is not known.
        started_at: when it was claimed. Of a lost attempt it is when its lock was last renewed.
        ended_at: when its end was written.
        error_type: the dotted path of the error's class, such as `builtins.ValueError` or `app.errors.NoSuchUser`; None
            if there was no error.
        message: the error's message, or what else is known; None if there is none.
        traceback: where the error came from, one line for each frame, the innermost last; None if there was no error.
    """

    attempt: int
    how: AttemptHow
    worker_id: str | None
    started_at: datetime | None
    ended_at: datetime | None
    error_type: str | None
    message: str | None = field(repr=False)
    traceback: str | None = field(repr=False)

    @property
    def duration(self) -> timedelta | None:
        """How long it took from the claim to its end; None if one of the times is not known."""
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at
