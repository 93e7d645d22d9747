"""What the log says of worker processes that ended although nobody told them to, and when they are started again."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("backfill.cli.supervise")

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
WELL_SECONDS: Final = 60.0
"""A process that has lived for so long was well; one that dies earlier may be in a loop of crashes."""
QUIET_SECONDS: Final = 60.0
"""How often the log tells of processes that die soon after their start."""


class Restarts:
    """When one post of the fleet gets its next process."""

    def __init__(self) -> None:
        self._short = 0

    def pause(self, lived: float) -> float:
        """How many seconds to wait after a process has died: 1 s, then twice as long each time, up to 30 s.

        Args:
            lived: how many seconds the process lived. After a minute of life it begins at 1 s again.
        """
        self._short = 1 if lived >= WELL_SECONDS else self._short + 1
        return min(FIRST_PAUSE * 2.0 ** min(self._short - 1, 10), LONGEST_PAUSE)


class Deaths:
    """Tells the log of processes that died: each one that was well before, and at most once a minute of all others.

    Args:
        clock: gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told = float("-inf")
        self._untold = 0

    def tell(self, number: int, pid: int, code: int, *, lived: float, pause: float) -> bool:
        """Tell of a process that died; return whether the log was told.

        Args:
            number: the process's number in the fleet.
            pid: its process id.
            code: its exit code, or the negative number of the signal that has killed it.
            lived: how many seconds it lived.
            pause: in how many seconds the next process is started in its place.
        """
        now = self._clock()
        soon = lived < WELL_SECONDS
        if soon and now - self._told < QUIET_SECONDS:
            self._untold += 1
            return False
        untold = 0
        if soon:
            self._told = now
            untold, self._untold = self._untold, 0
        before = f"; {untold} more of the fleet's processes died since this was last said" if untold else ""
        logger.error(
            "worker process %d (pid %d) %s after %.1f s; it is started again in %g s%s",
            number, pid, said_of(code), lived, pause, before,
            extra={"process_number": number, "pid": pid, "exit_code": code, "seconds": round(lived, 3), "more": untold},
        )  # fmt: skip
        return True


def said_of(code: int) -> str:
    """How a process ended: `ended with exit code 1`, or `was killed by signal 9 (SIGKILL)`.

    Args:
        code: its exit code, or the negative number of the signal that has killed it.
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = f" ({signal.Signals(-code).name})"
    except ValueError:
        name = ""
    return f"was killed by signal {-code}{name}"
