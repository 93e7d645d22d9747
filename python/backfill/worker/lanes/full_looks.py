"""When a lane looks at the queue from the very start, and whether that costs too much for the line that it claims on.

A look from the start reads the dead rows of all jobs that ran before, and under an old snapshot those become more and more. It
is repeated only after many times what it took. Where it takes much longer than the looks that begin at floors, it is left to
the worker's second line, so that no job waits behind it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SHARE: Final = 24.0
"""A look that may cost at most a twentieth of the time is repeated after 24 times what it took: 19 would leave no room for
what its turn costs besides."""
DEAR_SECONDS: Final = 0.002
"""How much longer than other looks the last ones from the start must all have taken to be left to the second line."""
DEAR_SHARE: Final = 49.0
"""A dear one is repeated after 49 times what it took: a whole fleet makes them, and all of them read the same dead rows."""
PATIENCE_SECONDS: Final = 2.0
_UNDER_WAY: Final = 1.0
"""How long nobody else begins a look from the start while one is under way."""
_WEIGHT: Final = 1 / 8
_LAST: Final = 5


class FullLooks:
    """What one lane has learnt of its looks from the start.

    Args:
        patience: how many seconds pass between two of them where they are dear, at least.
        apart: whether the second line may have them; not where the order in which jobs begin is seen.

    Attributes:
        at: when the next one can be afforded.
        found_all: whether the last one brought less than it wanted, so that nothing was left before the floors.
    """

    __slots__ = ("_apart", "_excess", "_patience", "_plain", "at", "found_all")

    def __init__(self, *, patience: float, apart: bool) -> None:
        self._patience = patience
        self._apart = apart
        self._plain: float | None = None
        self._excess: deque[float] = deque(maxlen=_LAST)
        self.at = 0.0
        self.found_all = False

    @property
    def are_apart(self) -> bool:
        """Whether the next one is for the second line: the last ones were all dear, so that it is no chance."""
        return self._apart and self._are_dear

    @property
    def _are_dear(self) -> bool:
        return len(self._excess) == _LAST and min(self._excess) > DEAR_SECONDS

    def begin(self, now: float) -> None:
        """One begins."""
        self.at = now + _UNDER_WAY

    def end(self, seconds: float, now: float, *, found_all: bool) -> None:
        """One has ended, after so many seconds."""
        self._excess.append(0.0 if self._plain is None else seconds - self._plain)
        self.found_all = found_all
        seconds = max(seconds, 0.0)
        self.at = now + (max(DEAR_SHARE * seconds, self._patience) if self._are_dear else SHARE * seconds)

    def note_other(self, seconds: float) -> None:
        """A look that began at floors took so long."""
        self._plain = seconds if self._plain is None else self._plain + (seconds - self._plain) * _WEIGHT

    def want(self) -> None:
        """Let the next one come at once."""
        self.at = 0.0
        self.found_all = False
