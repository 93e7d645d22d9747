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
        self._next = 0.0

    def pause(self, lived: float, *, was_well: bool) -> float:
        """How many seconds to wait after a process has died: none the first time, then 1 s, 2 s and so on, up to 30 s.

        A process that never was well gains nothing by a restart at once, so there the pauses begin at 1 s.

        Args:
            lived: how many seconds the process lived. After a minute of life the pauses begin anew.
            was_well: whether it had started, so that it could work.
        """
        pause = 0.0 if lived >= WELL_SECONDS else self._next
        if not was_well:
            pause = max(pause, FIRST_PAUSE)
        self._next = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
        return pause


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
            "worker process %d (pid %d) %s after %.1f s; it is started again %s%s",
            number, pid, said_of(code), lived, f"in {pause:g} s" if pause else "at once", before,
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
