"""A limit on how often something is done that anybody can ask for.

An example is a look at the queue after a notification: any role that may connect can send one. Used by the worker's
listener and by the client where it waits for the ends of jobs.
"""

from __future__ import annotations

import time


class Ration:
    """Allows a number of actions at once, and then a number per second; actions that turned out useful do not count.

    Args:
        burst: how many actions are allowed at once.
        per_second: how many more are allowed each second.
    """

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._left = self._burst
        self._at = time.monotonic()

    def earn(self, count: int) -> None:
        """Give back what `count` actions used up, since they turned out useful."""
        self._left = min(self._left + count, self._burst)

    def wait(self) -> float:
        """Seconds until the next action is allowed; 0 where it is allowed now."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._at) * self._per_second, self._burst)
        self._at = now
        return 0.0 if self._left >= 1.0 else (1.0 - self._left) / self._per_second

    def take(self) -> None:
        """Count one action that is done now, whether or not it should have waited."""
        self.wait()
        self._left = max(self._left - 1.0, 0.0)
