"""Tells the scheduler that operators may have said something of recurring jobs."""

from __future__ import annotations

import asyncio


class ScheduleNews:
    """A duty of the control reader that wakes the scheduler, which then reads for itself.

    Args:
        news: the event that the scheduler waits for.
    """

    name = "recurring jobs"
    before_claims = False

    def __init__(self, news: asyncio.Event) -> None:
        self._news = news

    async def look(self, *, news: bool) -> None:
        """Wake the scheduler, if there may be something new."""
        if news:
            self._news.set()
