"""Says when a source may ask for shares again, after the database gave it fewer than it wanted."""

from __future__ import annotations

import random
from typing import Final

FIRST_PAUSE: Final = 0.02
"""How long a refused source waits at most before it asks again; each further pause is twice as long."""
LONGEST_PAUSE: Final = 0.5
BUSY_PAUSE: Final = 0.004
"""How long it waits where another worker was just taking shares of the same limit."""
_SMALL_FLEET: Final = 16
"""In a fleet of more workers than these, the pauses are longer in proportion, since all of them ask."""


class AskAgain:
    """When one source may ask for shares.

    Attributes:
        at: the time, in monotonic seconds.
        busy: whether the last answer was that another worker was just taking shares.
        frees: how many shares of this worker have fallen free.
    """

    __slots__ = ("_pause", "at", "busy", "frees")

    def __init__(self) -> None:
        self.at = 0.0
        self.busy = False
        self.frees = 0
        self._pause = FIRST_PAUSE

    def refused(self, now: float, *, frees: int, wait: float | None, busy: bool, fleet: int) -> None:
        """Take note that the database gave fewer shares than were asked for.

        If as many jobs run as may run, but a share of this worker has fallen free since the database was asked, then
        that share may be had now, and the answer is no reason to wait.

        Args:
            now: the time, in monotonic seconds.
            frees: what `frees` was when the database was asked.
            wait: how many seconds the database says to wait, for a rate or for a breaker; None where it says nothing.
            busy: whether another worker was just taking shares; else as many jobs run as may run.
            fleet: how many live workers there are; the more of them ask, the less often each one does.
        """
        self.busy = busy
        if busy:
            self.at = now + BUSY_PAUSE * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
        elif wait is not None:
            self.at = now + wait
        elif frees == self.frees:
            scale = max(fleet / _SMALL_FLEET, 1.0)
            self.at = now + self._pause * scale * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def hurry(self) -> None:
        """Let the source ask at once: it got what it asked for, or the limit is another one."""
        self.at, self.busy, self._pause = 0.0, False, FIRST_PAUSE

    def freed(self) -> None:
        """Let the source ask at once, since a share of this worker has fallen free."""
        self.hurry()
        self.frees += 1
