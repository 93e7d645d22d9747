"""The alarm on which a service of the hot path sleeps: it rings at once, or at the latest at a time that was set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """An alarm for one sleeper. If it rings while nobody sleeps, the next sleep ends at once."""

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
        """End the sleep after `seconds` at the latest."""
        if self._rung:
            return
        if seconds <= 0:
            self.ring()
            return
        self._set_timer(seconds, self.ring)

    async def sleep(self, seconds: float) -> bool:
        """Sleep until it rings, at most `seconds`; return whether it rang."""
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
        """Set the timer, unless it is set for an earlier time already."""
        due = self._loop.time() + seconds
        if self._due is None or due < self._due:
            self._due = due
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(seconds, then)

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
