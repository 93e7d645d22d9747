"""The dead-letter processor: moves jobs that failed for good to the dead letters, in programs without our workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

import psycopg

from backfill.errors import BackfillError
from backfill.logs import outside_jobs
from backfill.said import named, why
from backfill.storage.backoff import Backoff
from backfill.storage.until import end_all

logger = logging.getLogger(__name__)

DEFAULT_INTERVAL: Final = timedelta(seconds=60)
SHORTEST_INTERVAL: Final = timedelta(seconds=1)
LONGEST_INTERVAL: Final = timedelta(days=1)
ROUND_SECONDS: Final = 600.0
"""How many seconds one round may take; it ends earlier if no job is left to be moved."""
STOP_SECONDS: Final = 5.0
"""For how many seconds a stop waits for the round that is under way, before it cancels it."""
_MOST_TIMES: Final = 32
_TROUBLES: Final = (BackfillError, psycopg.Error, TimeoutError, OSError)


class DlqProcessor:
    """Moves jobs that failed for good to the dead letters, at once and then each interval, while its block is open.

    `BackfillClient.start_dlq_processor` makes it. It is entered with `async with`, and belongs to the task that does
    so. At the end of the block it stops: a round under way has 5 seconds to end, and is cancelled then. Each job is
    moved by one statement, so a round that is cancelled leaves no job in both tables or in neither.

    Args:
        move: moves what there is to move, and returns how many jobs that were.
        interval: how long it waits after a round. After a round that failed it waits 2, 4, 8, 16 and then 32 times as
            long, until one has succeeded.
    """

    def __init__(self, move: Callable[[], Awaitable[int]], interval: timedelta) -> None:
        self._move = move
        self._interval = interval.total_seconds()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._outage = Backoff()
        self._moved = 0

    @property
    def moved(self) -> int:
        """How many jobs it has moved so far."""
        return self._moved

    @property
    def is_running(self) -> bool:
        """Whether it moves jobs: from the beginning of its block to the end."""
        return self._task is not None and not self._task.done()

    async def __aenter__(self) -> Self:
        """Begin with the first round.

        Raises:
            BackfillError: it runs already.
        """
        if self.is_running:
            raise BackfillError("this dead-letter processor runs already; start_dlq_processor() makes another one")
        self._stopping.clear()
        with outside_jobs():
            self._task = asyncio.create_task(self._rounds(), name="backfill dead-letter processor")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop within a few seconds; raise what has ended the processor before, unless the block itself has raised."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        try:
            await asyncio.wait([task], timeout=STOP_SECONDS)
        finally:
            await end_all(task)
        failed = task.exception() if task.done() and not task.cancelled() else None
        if failed is not None and error is None:
            raise failed

    async def _rounds(self) -> None:
        times = 1
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(ROUND_SECONDS):
                    moved = await self._move()
            except _TROUBLES as error:
                times = min(times * 2, _MOST_TIMES)
                logger.log(
                    self._outage.level(),
                    "jobs that failed for good could not be moved to the dead letters, the next try is in %g s: %s",
                    self._interval * times, why(error),
                )  # fmt: skip
            except Exception as error:
                logger.error("the dead-letter processor has ended, jobs that failed for good stay: %s", named(error))
                raise
            else:
                times = 1
                self._moved += moved
                if self._outage.reset():
                    logger.info("jobs that failed for good are moved to the dead letters again")
                if moved:
                    logger.info("moved %d jobs to the dead letters that other programs had failed for good", moved)
            await self._rest(self._interval * times)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
