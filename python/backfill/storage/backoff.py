"""Pauses between attempts to reach the database.

They grow, and they are jittered so that the processes of a fleet do not all come back at once. Used by everything that
connects again by itself. A `Backoff` also knows when an outage is to be logged: once when it begins and once when it is
over, but not for each attempt, and not for each of many short outages.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Final

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0
QUIET_SECONDS: Final = 60.0
"""How many seconds after the warning of an outage no further outage is warned of.

Connections that are cut again and again have one cause, so they are warned of once.
"""


class Backoff:
    """The pauses of one part of a program, and which outages it has logged.

    Args:
        first: the longest that the first pause may be, in seconds; each further pause is twice as long.
        longest: the longest that any pause may be, in seconds.
    """

    def __init__(self, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> None:
        self._first = first
        self._longest = longest
        self._pause = first
        self._told: float | None = None
        self._said = False

    def reset(self) -> bool:
        """Begin again after a success; returns whether a logged outage is over, so that its end is to be logged."""
        self._pause = self._first
        said, self._said = self._said, False
        return said

    def level(self) -> int:
        """The level at which to log a failure: a warning once per outage and at most once a minute, else debug."""
        now = time.monotonic()
        if self._said or (self._told is not None and now - self._told < QUIET_SECONDS):
            return logging.DEBUG
        self._told, self._said = now, True
        return logging.WARNING

    def pause(self) -> float:
        """How many seconds to pause now."""
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        self._pause = min(self._pause * 2, self._longest)
        return pause

    async def wait(self, unless: asyncio.Event) -> bool:
        """Pause; returns whether the event was set meanwhile."""
        if unless.is_set():
            await asyncio.sleep(
                0
            )  # lets the loop turn, so that a caller which fails again and again at once can be stopped
            return True
        try:
            async with asyncio.timeout(self.pause()):
                return await unless.wait()
        except TimeoutError:
            return False
