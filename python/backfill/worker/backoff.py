"""Pauses between attempts to reach the database: growing, and jittered so that a fleet does not come back at once."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Final

from backfill.worker.service import wait_for_event

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_REMINDER: Final = 60.0


class Backoff:
    """The pauses of one part of a worker."""

    def __init__(self) -> None:
        self._pause = _FIRST_PAUSE
        self._said: float | None = None

    def reset(self) -> None:
        """Begin again after a success."""
        self._pause = _FIRST_PAUSE
        self._said = None

    def level(self) -> int:
        """At which level to log a failure: a warning at an outage's begin and once a minute, else for debugging."""
        now = time.monotonic()
        if self._said is not None and now - self._said < _REMINDER:
            return logging.DEBUG
        self._said = now
        return logging.WARNING

    async def wait(self, unless: asyncio.Event) -> bool:
        """Pause; whether the event was set meanwhile."""
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return await wait_for_event(unless, pause)
