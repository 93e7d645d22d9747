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
            logger.warning("the partitions of ends could not be looked after: %s", _line(error))

    async def _tend_again_and_again(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._tend()
            except (BackfillError, psycopg.Error, TimeoutError, OSError) as error:
                busy = isinstance(error, psycopg.errors.LockNotAvailable)
                logger.log(
                    logging.DEBUG if busy else backoff.level(),
                    "the partitions of ends could not be looked after: %s", _line(error),
                )  # fmt: skip
                await backoff.wait(self._stopping)
            else:
                backoff.reset()
                await wait_for_event(self._stopping, INTERVAL)
            if self._stopping.is_set():
                return

    async def _tend(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            made, dropped = await self._client.tend_ends(self._keeps)
        if made or dropped:
            logger.debug("made %d partitions of ends, dropped %d of them and of rows that had none", made, dropped)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
