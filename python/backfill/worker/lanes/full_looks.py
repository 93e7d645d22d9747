"""Decides when a lane looks at the queue from the very start, and whether the second line should make the look.

A look from the start reads the dead rows of all jobs that ran before, and while an old snapshot is held their number
grows. So after such a look a lane waits for many times as long as the look took. Where it takes much longer than the
looks that begin at floors, it is left to the worker's second line, so that no job waits behind it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SHARE: Final = 24.0
"""After a look that may cost at most a twentieth of the time, the wait is this many times as long as it took.

With 19 in place of 24 there would be no room for the other costs of its turn.
"""
DEAR_SECONDS: Final = 0.002
"""Looks from the start are dear if each of the last ones took over this many seconds longer than other looks."""
DEAR_SHARE: Final = 49.0
"""After a dear look the wait is this many times as long as it took, since a whole fleet reads the same dead rows."""
PATIENCE_SECONDS: Final = 2.0
_UNDER_WAY: Final = 1.0
"""How long no other look from the start begins while one is under way, in seconds."""
_WEIGHT: Final = 1 / 8
_LAST: Final = 5
_USUAL: Final = 3
"""A slow look counts as the middle one of so many did, since a single one may have waited for something."""


class FullLooks:
    """What one lane has learnt of its looks from the start.

    Args:
        patience: how many seconds pass at least between two of these looks where they are dear.
        apart: whether the second line may make them; false for a lane where one can see in which order jobs begin.

    Attributes:
        at: when the next look can be afforded, in monotonic seconds.
        found_all: whether the last look brought less than it wanted, so that nothing was left before the floors.
    """

    __slots__ = ("_apart", "_excess", "_patience", "_plain", "_took", "at", "found_all")

    def __init__(self, *, patience: float, apart: bool) -> None:
        self._patience = patience
        self._apart = apart
        self._plain: float | None = None
        self._excess: deque[float] = deque(maxlen=_LAST)
        self._took: deque[float] = deque(maxlen=_USUAL)
        self.at = 0.0
        self.found_all = False

    @property
    def are_apart(self) -> bool:
        """Whether the second line makes the next look: the last ones were all dear, so that this is no accident."""
        return self._apart and self._are_dear

    @property
    def _are_dear(self) -> bool:
        return len(self._excess) == _LAST and min(self._excess) > DEAR_SECONDS

    def allow_apart(self, apart: bool) -> None:
        """Say anew whether the second line may make them; one that is under way there ends there."""
        self._apart = apart

    def begin(self, now: float) -> None:
        """Note that a look from the start begins."""
        self.at = now + _UNDER_WAY

    def end(self, seconds: float, now: float, *, found_all: bool) -> None:
        """Note that a look from the start has ended, after `seconds`."""
        self._excess.append(0.0 if self._plain is None else seconds - self._plain)
        self.found_all = found_all
        seconds = max(seconds, 0.0)
        self._took.append(seconds)
        usual = min(seconds, sorted(self._took)[(len(self._took) - 1) // 2])
        self.at = now + (max(DEAR_SHARE * usual, self._patience) if self._are_dear else SHARE * usual)

    def note_other(self, seconds: float) -> None:
        """Note how long a look took that began at floors."""
        self._plain = seconds if self._plain is None else self._plain + (seconds - self._plain) * _WEIGHT

    def want(self) -> None:
        """Let the next look from the start come at once."""
        self.at = 0.0
        self.found_all = False
