"""The database's time, as a client can estimate it between two answers of the server.

`writing` and `producers` take the times of a long call's jobs from this clock.
"""

from __future__ import annotations

import time


class ServerClock:
    """Estimates the database's time without asking the server again; it is never ahead of it and never goes back.

    Args:
        told: the time of the server's clock, in PostgreSQL's microseconds, from an answer that has just arrived.
    """

    def __init__(self, told: int) -> None:
        self._told = told
        self._arrived = time.monotonic()

    def now(self) -> int:
        """Return the time in PostgreSQL's microseconds."""
        # While two clocks are being adjusted, their rates may differ by a thousandth (500 parts in a million each).
        return self._told + int((time.monotonic() - self._arrived) * 999_000)
