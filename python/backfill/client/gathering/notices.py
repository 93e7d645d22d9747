"""How often a client notifies the workers of the jobs that it adds, if it is told to do so no more than now and then.

Used by `connect`, which owns a client's state, and by the verbs that add jobs. Workers that are not notified find the
jobs when they look by themselves (`poll_interval`).
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable
from contextvars import Context
from os import getpid
from typing import Final

import psycopg

from backfill.errors import BackfillError
from backfill.said import why

logger = logging.getLogger(__name__)

_CLOSING_SECONDS: Final = 5.0


class Notices:
    """The notifications of one open client, at most one in each interval.

    The first job is told at once, with its own statement. Jobs that come within the interval are told together at its
    end, by a task that this object owns.

    Args:
        seconds: the interval.
        tell: notifies the workers of so many jobs.
    """

    def __init__(self, seconds: float, tell: Callable[[int], Awaitable[None]]) -> None:
        self._seconds = seconds
        self._tell = tell
        self._loop = get_running_loop()
        self._pid = getpid()
        self._next = self._loop.time()
        self._untold = 0
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    @property
    def is_here(self) -> bool:
        """Whether this object belongs to the running event loop and to this process."""
        return self._loop is get_running_loop() and self._pid == getpid()

    def may_tell(self) -> bool:
        """Tell whether a statement that is sent now may notify the workers; if so, the interval begins."""
        now = self._loop.time()
        if self._task is not None or now < self._next:
            return False
        self._next = now + self._seconds
        return True

    def add(self, count: int) -> None:
        """Have the workers notified later of jobs that are committed now."""
        self._untold += count
        if self._task is None:
            # The task outlives the call, whose context, such as the job that it runs in, is not the task's.
            self._task = self._loop.create_task(self._later(), name="backfill notices", context=Context())

    async def close(self) -> None:
        """Notify the workers now of what they were not told."""
        self._hurry.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_CLOSING_SECONDS)

    async def _later(self) -> None:
        count = 0
        try:
            try:
                async with asyncio.timeout_at(self._next):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            count, self._untold = self._untold, 0
            self._next = self._loop.time() + self._seconds
            await self._tell(count)
        except (BackfillError, psycopg.Error) as error:  # the jobs are there, and workers find them by themselves
            logger.warning("the workers were not notified of %d jobs, and will find them later: %s", count, why(error))
        finally:
            self._task = None
        if self._untold:
            self.add(0)
