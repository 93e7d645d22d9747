"""The kinds of claims, which differ in how a claim holds its job.

A kind says how statements identify an attempt, which statement writes its end, and how its claim is compared and
renewed. One kind is here: the claim that is written into the job's row. The other one only holds the row's lock, in the
open transaction of a window; its class is with the windows (`worker/express/window.py`), whose state it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from backfill._native import pack_array
from backfill.errors import BackfillError
from backfill.storage.wire import Parameter

if TYPE_CHECKING:
    from backfill.storage.attempts import Attempt


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that a worker has on a job.

    Attributes:
        locked_at: since when the job is locked, in PostgreSQL's microseconds.
        attempts: the number of attempts in the job's row.
        queue_locked_at: since when the worker has the job's queue locked; None where it has not locked a queue.
    """

    locked_at: int
    attempts: int
    queue_locked_at: int | None


class ClaimKind(Protocol):
    """What code that settles, compares and renews claims must know of one kind of claims."""

    @property
    def in_row(self) -> bool:
        """Whether the claim is written into the job's row, so that it can be looked for there and must be renewed."""
        ...

    def statement(self, name: str) -> str:
        """The statement of this kind that does what the statement `name` does for claims in rows."""
        ...

    def fences(self, attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
        """The parameters that identify attempts, so that a statement matches none that another worker has now."""
        ...

    def compared(self, attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
        """How the jobs were when they were claimed, so that a statement notices those replaced or removed since."""
        ...

    def claimed_at(self, attempt: Attempt) -> int | None:
        """When the job was claimed, in PostgreSQL's microseconds; a renewal of its lock does not change that time."""
        ...

    def is_held(self, attempt: Attempt, lock: Lock | None) -> bool:
        """Whether a lock that was found still belongs to this claim.

        If so, the lock's times are written into the attempt, since the answer to a renewal may have been lost.
        """
        ...

    def ask_for_row(self) -> None:
        """Have the claim written into the job's row soon; nothing where it is there already."""
        ...

    async def enter_row(self) -> None:
        """Wait until the claim is written into the job's row.

        Raises:
            LostClaimError: it cannot be written, since the job is not this worker's any more.
        """
        ...


class ClaimInRow:
    """The claim that is written, as worker and time, into the row of the job and into that of its serial queue."""

    @property
    def in_row(self) -> bool:
        """True: the claim is written into the job's row."""
        return True

    def statement(self, name: str) -> str:
        """The name itself, since the statements of these names are for this kind."""
        return name

    def fences(self, attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
        """The attempts' jobs and queues, with the times of their locks.

        Raises:
            ValueError: one of the jobs was not locked when it was read, so that nothing identifies its attempt.
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
        """The numbers of attempts in the jobs' rows when they were claimed, and whether the jobs had keys."""
        return (
            pack_array([attempt.job.attempts for attempt in attempts], "int2"),
            pack_array([attempt.job.key is not None for attempt in attempts], "bool"),
        )

    def claimed_at(self, attempt: Attempt) -> int | None:
        """The time of the lock as the claim returned it."""
        return attempt.job.locked_at_micros

    def is_held(self, attempt: Attempt, lock: Lock | None) -> bool:
        """Whether there is a lock at all; if it is of the same attempt, its times are written into the attempt."""
        if lock is None:
            return False
        if lock.attempts == attempt.job.attempts:
            attempt.locked_at = lock.locked_at
            if attempt.is_serial and lock.queue_locked_at is not None:
                attempt.queue_locked_at = lock.queue_locked_at
        return True

    def ask_for_row(self) -> None:
        """Do nothing: the claim is written there."""

    async def enter_row(self) -> None:
        """Return at once: the claim is written there."""


IN_ROW: Final = ClaimInRow()


class LostClaimError(BackfillError):
    """Raised where a claim was lost before it could be written into its job's row: others may run the job."""
