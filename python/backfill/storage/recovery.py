"""What a worker's recovery of another one's jobs is told, and what it says: values only.

The steps are in `client/verbs/recovery.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CutOff:
    """A job whose worker died, and what its next attempt depends on."""

    id: int
    attempts: int
    max_attempts: int
    task_identifier: str
    flags: tuple[str, ...]

    @property
    def has_flags(self) -> bool:
        """Whether there are any."""
        return bool(self.flags)


@dataclass(frozen=True, slots=True)
class Next:
    """What becomes of such a job.

    Attributes:
        delay: seconds until its next attempt, where one follows that is not its second; None: by the contract's
            schedule.
        keep: for how many seconds its end is kept, if it has none; None keeps none.
    """

    delay: float | None = None
    keep: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What one page of a recovery did.

    Attributes:
        ids: the jobs that were unlocked, deleted or buried.
        dead_letters: how many of them were buried.
        superseded: those that were replaced or removed while they ran, and are deleted.
        last: the id to go on behind; None where nothing more was found.
        refused: the jobs that stay as they are since the database refuses it, and why.
    """

    ids: tuple[int, ...] = ()
    dead_letters: int = 0
    superseded: tuple[int, ...] = ()
    last: int | None = None
    refused: tuple[str, ...] = ()
