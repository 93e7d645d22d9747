"""How long the attempts of a limited task take, and so how many of its jobs are claimed ahead of their shares."""

from __future__ import annotations

from typing import Final

from backfill.worker.lanes.lane import AHEAD_SECONDS

_WEIGHT: Final = 1 / 8


class Pace:
    """How long attempts took lately, in one source."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds = AHEAD_SECONDS

    def note(self, seconds: float) -> None:
        """Note how long an attempt had its slot."""
        self._seconds += (seconds - self._seconds) * _WEIGHT

    def ahead(self, shares: int, most: int) -> int:
        """How many jobs will start within about 50 ms with so many shares, `most` at most; none where jobs are long."""
        if self._seconds >= AHEAD_SECONDS:
            return 0
        return min(int(shares * AHEAD_SECONDS / max(self._seconds, 1e-6)), most)
