"""How a claim holds its job, by kinds: what fences its statements, how its end is written, how it is compared and renewed.

Today there is one kind: the claim that is written into the job's row. A claim of another kind, such as one that holds only
the row's lock in an open transaction, is another class here, with statements of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from backfill._native import pack_array
from backfill.storage.wire import Parameter

if TYPE_CHECKING:
    from backfill.storage.attempts import Attempt


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that a worker has on a job.

    Attributes:
        locked_at: since when, in PostgreSQL's microseconds.
        attempts: the row's.
        queue_locked_at: since when the worker has its queue locked; None where it has not.
    """

    locked_at: int
    attempts: int
    queue_locked_at: int | None


class ClaimKind(Protocol):
    """What those who settle, compare and renew claims must know of one kind of them."""

    @property
    def in_row(self) -> bool:
        """Whether the claim stands in the job's row, so that it can be looked for there and is to be renewed."""
        ...

    def statement(self, name: str) -> str:
        """The name of the statement that does for claims of this kind what the one of that name does for those in rows."""
        ...

    def fences(self, attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
        """What names attempts in a statement, so that it matches none which somebody else has now."""
        ...

    def compared(self, attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
        """How their jobs were when they were claimed, so that a statement sees whether they were replaced or removed."""
        ...

    def claimed_at(self, attempt: Attempt) -> int | None:
        """When it was claimed, in PostgreSQL's microseconds; it does not change when its lock is renewed."""
        ...

    def is_held(self, attempt: Attempt, lock: Lock | None) -> bool:
        """Whether a lock that was found is still this claim's; what an answer that was lost has changed is taken over."""
        ...


class ClaimInRow:
    """The claim that is written into the row of the job, and into that of its serial queue: the worker and the time."""

    @property
    def in_row(self) -> bool:
        """It does."""
        return True

    def statement(self, name: str) -> str:
        """The statements of that name are for this kind."""
        return name

    def fences(self, attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
        """Their jobs and queues, with the times of their locks.

        Raises:
            ValueError: one of the jobs was not locked when it was read, so that nothing could name its attempt.
        """
        times = [attempt.locked_at for attempt in attempts]
        if None in times:
            raise ValueError(f"{attempts[times.index(None)].job!r} is not locked: only a claimed job has an attempt")
        return (
            pack_array([attempt.job.id for attempt in attempts], "int8"),
            pack_array(times, "timestamptz"),
            pack_array([attempt.job.job_queue_id for attempt in attempts], "int4"),
            pack_array([attempt.queue_locked_at for attempt in attempts], "timestamptz"),
        )

    def compared(self, attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
        """The attempts of their rows, and whether they had keys."""
        return (
            pack_array([attempt.job.attempts for attempt in attempts], "int2"),
            pack_array([attempt.job.key is not None for attempt in attempts], "bool"),
        )

    def claimed_at(self, attempt: Attempt) -> int | None:
        """The time of its lock as the claim gave it back."""
        return attempt.job.locked_at_micros

    def is_held(self, attempt: Attempt, lock: Lock | None) -> bool:
        """Whether there is a lock at all. One of the same attempt has the newest times, which are taken over."""
        if lock is None:
            return False
        if lock.attempts == attempt.job.attempts:
            attempt.locked_at = lock.locked_at
            if attempt.is_serial and lock.queue_locked_at is not None:
                attempt.queue_locked_at = lock.queue_locked_at
        return True


IN_ROW: Final = ClaimInRow()
