"""The keeper: has the partitions made that kept ends will need, and those dropped whose day is over.

A partition that is missing harms nobody, since the table has a default one; so all of this may fail and is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import psycopg

from backfill.client import BackfillClient
from backfill.errors import BackfillError
from backfill.worker.backoff import Backoff
from backfill.worker.service import Service, wait_for_event

logger = logging.getLogger(__name__)

INTERVAL: Final = 900.0
"""Seconds between two looks. A partition is made a day ahead, so a few may fail."""
BUSY_INTERVAL: Final = 60.0
"""The same where somebody held a table."""
TIMEOUT: Final = 60.0


class Keeper(Service):
    """Tends the partitions of ends, on a connection of the worker's pool.

    Args:
        client: the worker's.
        keeps: how long the worker's tasks keep their ends; without any, what has expired is dropped all the same, since
            a worker that knew such tasks may have left it.
    """

    def __init__(self, client: BackfillClient, keeps: Iterable[timedelta]) -> None:
        super().__init__("keeper")
        self._client = client
        self._keeps = sorted(set(keeps))

    async def _run(self) -> None:
        await self._until_stopped(self._tend_again_and_again())

    async def tend(self) -> None:
        """Tend them once; a failure is told and left to the next time."""
        try:
            await self._tend()
        except (BackfillError, psycopg.Error, TimeoutError, OSError) as error:
            logger.log(self._level(Backoff()), "the partitions of ends could not be looked after: %s", _line(error))

    async def _tend_again_and_again(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._tend()
            except psycopg.errors.LockNotAvailable as error:
                # While it waited, settlements waited behind it: it must not do so again and again.
                logger.debug("the partitions of ends are in use: %s", _line(error))
                await wait_for_event(self._stopping, BUSY_INTERVAL)
            except (BackfillError, psycopg.Error, TimeoutError, OSError) as error:
                logger.log(self._level(backoff), "the partitions of ends could not be looked after: %s", _line(error))
                await backoff.wait(self._stopping)
            else:
                backoff.reset()
                await wait_for_event(self._stopping, INTERVAL)
            if self._stopping.is_set():
                return

    def _level(self, backoff: Backoff) -> int:
        """Who keeps no ends need not be told that a role of an older version may not drop theirs."""
        return backoff.level() if self._keeps else logging.DEBUG

    async def _tend(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            made, dropped = await self._client.tend_ends(self._keeps)
        if made or dropped:
            logger.debug("made %d partitions of ends, dropped %d of them and of rows that had none", made, dropped)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
