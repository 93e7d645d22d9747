"""What a service of the hot path sleeps on: it rings at once, or at a time at the latest, and costs nothing while it is set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """An alarm of one sleeper. Rung while nobody sleeps, it lets the next sleep end at once."""

    __slots__ = ("_due", "_loop", "_rung", "_sleeper", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sleeper: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None
        self._rung = False

    def ring(self) -> None:
        """End the sleep now."""
        self._rung = True
        self._wake()

    def ring_in(self, seconds: float) -> None:
        """End the sleep in so many seconds at the latest."""
        if self._rung:
            return
        if seconds <= 0:
            self.ring()
            return
        self._set_timer(seconds, self.ring)

    async def sleep(self, seconds: float) -> bool:
        """Sleep until it rings, at most so many seconds; whether it rang."""
        try:
            if not self._rung:
                self._set_timer(seconds, self._wake)
                self._sleeper = self._loop.create_future()
                await self._sleeper
            return self._rung
        finally:
            self._sleeper, self._due, self._rung = None, None, False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _set_timer(self, seconds: float, then: Callable[[], None]) -> None:
        """Keep the earliest of what was asked for."""
        due = self._loop.time() + seconds
        if self._due is None or due < self._due:
            self._due = due
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(seconds, then)

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
