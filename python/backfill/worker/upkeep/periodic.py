"""The base of services that do something now and then on a connection of the pool, and soon again after a failure."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import psycopg

from backfill.errors import BackfillError
from backfill.said import said
from backfill.storage.backoff import Backoff
from backfill.worker.service import Service, wait_for_event

logger = logging.getLogger(__name__)

_TROUBLES: Final = (BackfillError, psycopg.Error, TimeoutError, OSError)


class Periodic(Service):
    """Does one round soon after its start and one each interval; subclasses define `_round`.

    Args:
        name: the service's name.
        first: seconds until the first round, since a worker that starts has more urgent work.
        interval: seconds between rounds.
        timeout: seconds that a round may take.
        complaint: the log message for a round that failed.
    """

    def __init__(self, name: str, *, first: float, interval: float, timeout: float, complaint: str) -> None:
        super().__init__(name)
        self._first = first
        self._interval = interval
        self._timeout = timeout
        self._complaint = complaint

    async def tend(self) -> None:
        """Do one round now, as a drain does, which has no services; a failure is logged and raises nothing."""
        try:
            await self._round_in_time()
        except _TROUBLES as error:
            logger.warning("%s: %s", self._complaint, said(error) or "out of time")

    async def _run(self) -> None:
        await self._until_stopped(self._rounds())

    async def _rounds(self) -> None:
        backoff, wait = Backoff(), self._first
        while not await wait_for_event(self._stopping, wait):
            try:
                await self._round_in_time()
            except _TROUBLES as error:
                logger.log(backoff.level(), "%s: %s", self._complaint, said(error) or "out of time")
                await backoff.wait(self._stopping)
                wait = 0.0
            else:
                backoff.reset()
                wait = self._interval

    async def _round_in_time(self) -> None:
        async with asyncio.timeout(self._timeout):
            await self._round()

    async def _round(self) -> None:
        raise NotImplementedError
