"""Pauses between attempts to reach the database: growing, and jittered so that a fleet does not come back at once.

Used by all that connects again by itself. It also knows when to speak of an outage: once when it begins and once when
it is over, not for each attempt, and not for each of many short ones.
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
"""How long after an outage that was told of the next one is not.

Connections that are cut again and again are one trouble.
"""


class Backoff:
    """The pauses of one part of a program, and what it has said.

    Args:
        first: seconds of the first pause at most; each one after it is twice as long, up to two seconds.
    """

    def __init__(self, first: float = FIRST_PAUSE) -> None:
        self._first = first
        self._pause = first
        self._told: float | None = None
        self._said = False

    def reset(self) -> bool:
        """Begin again after a success; whether an outage is over that was told of, so that this is to be told, too."""
        self._pause = self._first
        said, self._said = self._said, False
        return said

    def level(self) -> int:
        """At which level to log a failure: a warning once an outage, and at most once a minute, else for debugging."""
        now = time.monotonic()
        if self._said or (self._told is not None and now - self._told < QUIET_SECONDS):
            return logging.DEBUG
        self._told, self._said = now, True
        return logging.WARNING

    def pause(self) -> float:
        """How many seconds to pause now."""
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return pause

    async def wait(self, unless: asyncio.Event) -> bool:
        """Pause; whether the event was set meanwhile."""
        if unless.is_set():
            await asyncio.sleep(
                0
            )  # whoever repeats what fails at once must let the loop turn, so that it can be stopped
            return True
        try:
            async with asyncio.timeout(self.pause()):
                return await unless.wait()
        except TimeoutError:
            return False
