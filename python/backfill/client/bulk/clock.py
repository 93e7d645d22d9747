"""The database's time as a client can tell it between two answers.

`writing` takes the times of a long call's jobs from it.
"""

from __future__ import annotations

import time


class ServerClock:
    """The database's time as far as a client can tell without asking again: never ahead of it, and never going back.

    Args:
        told: what the server's clock showed, in PostgreSQL's microseconds, before its answer arrived (which was just
            now).
    """

    def __init__(self, told: int) -> None:
        self._told = told
        self._arrived = time.monotonic()

    def now(self) -> int:
        """The time in PostgreSQL's microseconds."""
        # Two clocks that are being set right may differ by a thousandth (500 parts in a million each).
        return self._told + int((time.monotonic() - self._arrived) * 999_000)
