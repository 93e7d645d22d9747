"""The times at which all of a worker's looks are due, whether anything has called for them or not.

A poll is due once in each interval; a look is due when the next of the waiting jobs falls due, and a little after
another process has added jobs that other workers look for first.
"""

from __future__ import annotations

import random
import time
from typing import Final

_FIRST_MOVERS: Final = 4
_STAGGER: Final = 0.004


class Timetable:
    """When to look.

    Args:
        poll_interval: seconds between looks that nothing asked for.

    Attributes:
        due_at: when the next of the jobs that wait for their time is due, in monotonic seconds; None where there is
            none, as far as is known.
        due_known: whether `due_at` is right; not where a job may have come since.
    """

    __slots__ = ("_late_at", "_late_looked", "_poll_at", "_poll_interval", "due_at", "due_known")

    def __init__(self, poll_interval: float) -> None:
        self._poll_interval = poll_interval
        self._poll_at = time.monotonic() + poll_interval
        self._late_at: float | None = None
        self._late_looked = False
        self.due_at: float | None = None
        self.due_known = False

    @property
    def next_at(self) -> float:
        """When the next look is due, in monotonic seconds."""
        return min(at for at in (self._poll_at, self._late_at, self.due_at) if at is not None)

    @staticmethod
    def moves_first(count: int, fleet: int) -> bool:
        """Whether this worker looks at once for `count` jobs that another process has added, in a fleet of this size.

        If each worker looked at once, a fleet of 500 idle workers would claim 500 times for one job. So only as many
        look at once as the jobs may need, and a few more.
        """
        return fleet <= _FIRST_MOVERS or random.random() * fleet < count + _FIRST_MOVERS  # noqa: S311 - spreads load

    def look_late(self, fleet: int) -> bool:
        """Have a look be due a little later; return whether this is new.

        Delays grow with the fleet's size, and there is at most one such look within a poll's interval.
        """
        now = time.monotonic()
        if self._late_at is not None or self._late_looked or self._poll_at - now <= self._poll_interval / 2:
            return False
        self._late_at = now + random.uniform(0.0, min(fleet * _STAGGER, self._poll_interval))  # noqa: S311
        return True

    def strike(self, now: float) -> bool:
        """Return whether a look is due now; the times that are over are struck out."""
        struck = False
        if now >= self._poll_at:
            self._poll_at = now + self._poll_interval
            self._late_at, self._late_looked, struck = None, False, True
        if self.due_at is not None and now >= self.due_at:
            self.due_at, self.due_known, struck = None, False, True
        if self._late_at is not None and now >= self._late_at:
            self._late_at, self._late_looked, self.due_known, struck = None, True, False, True
        return struck
