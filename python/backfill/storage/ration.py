"""How often something may be done that anybody can ask for, as by a notification, which any role that may connect can send.

Used by the worker's listener and by the client's waiting for ends.
"""

from __future__ import annotations

import time


class Ration:
    """So many at once, and so many a second after that; what turned out to be worth while is not counted.

    Args:
        burst: how many may be done at once.
        per_second: how many more each second.
    """

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._left = self._burst
        self._at = time.monotonic()

    def earn(self, count: int) -> None:
        """So many were worth while."""
        self._left = min(self._left + count, self._burst)

    def wait(self) -> float:
        """Seconds until the next may be done; 0 for now."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._at) * self._per_second, self._burst)
        self._at = now
        return 0.0 if self._left >= 1.0 else (1.0 - self._left) / self._per_second

    def take(self) -> None:
        """One is done now, whether or not it was to wait."""
        self.wait()
        self._left = max(self._left - 1.0, 0.0)
