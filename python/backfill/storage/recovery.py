"""The values that the recovery of a dead worker's jobs takes and gives back.

Its steps are in `client/verbs/recovery.py`.
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
    def has_orders(self) -> bool:
        """Whether the job has a flag that may tell a worker something."""
        return bool(self.flags)


@dataclass(frozen=True, slots=True)
class Next:
    """What becomes of a job whose worker died.

    Attributes:
        delay: seconds until the job's next attempt, unless that is its second, which is due when the first was; None
            for the contract's schedule.
        keep: for how many seconds the job's end is kept where no attempt follows; None where it is not kept.
        batch: whether the job is a batch: where it was replaced while it ran, its items are kept as a dead letter. None
            where nobody knows; then it counts as one if its payload is an array, so that no item is lost.
    """

    delay: float | None = None
    keep: float | None = None
    batch: bool | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What one page of a recovery did.

    Attributes:
        ids: the jobs that were unlocked, deleted or buried.
        dead_letters: how many of these jobs were buried.
        superseded: the jobs that were deleted, since they had been replaced or removed while they ran.
        last: the id after which the next page begins; None where nothing more was found.
        refused: the jobs that stay as they are, since the database refuses the change, and why it does.
    """

    ids: tuple[int, ...] = ()
    dead_letters: int = 0
    superseded: tuple[int, ...] = ()
    last: int | None = None
    refused: tuple[str, ...] = ()
