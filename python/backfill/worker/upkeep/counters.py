"""Counters: writes what a worker counts of its attempts, every few seconds and at its end, and folds old counts.

A flush that fails loses no counts, and one whose answer was lost is repeated without counting twice, since it writes
each minute's whole count and not what was added to it. A process that is killed loses what it counted since its last
flush.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

import psycopg

from backfill.client.lent import ServicesClient
from backfill.errors import BackfillError
from backfill.said import why
from backfill.storage.attempts import Attempt
from backfill.storage.backoff import Backoff
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.service import Service, wait_for_event
from backfill.worker.upkeep.periodic import Periodic
from backfill.worker.upkeep.tallies import Tallies

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 5.0
FLUSH_TIMEOUT: Final = 30.0
CLOCK_TIMEOUT: Final = 5.0
LAST_SECONDS: Final = 4.0
"""How many seconds a worker that ends tries to write its counts; less than a service has to stop."""
FOLD_FIRST_SECONDS: Final = 60.0
FOLD_SECONDS: Final = 3600.0
_FOLD_TIMEOUT: Final = 600.0
_BATCH: Final = 500
_TROUBLES: Final = (BackfillError, psycopg.Error, TimeoutError, OSError)


class Counters(Service):
    """Writes a worker's counts on a connection of its pool.

    Args:
        client: the services' client.
        worker: the worker's id.
        spare: makes a separate client for the last flush, used where somebody has cancelled every task of the loop. The
            tasks of the worker's pool are then cancelled too, so it may have no connection and cannot make one.
    """

    def __init__(
        self, client: ServicesClient, *, worker: str, spare: Callable[[], ServicesClient] | None = None
    ) -> None:
        super().__init__("counters")
        self._client = client
        self._spare = spare
        self._worker = worker
        self._tallies = Tallies()
        self._flushing = asyncio.Lock()

    def to_database(self) -> float:
        """The database's clock less this process's monotonic clock, in seconds."""
        return self._tallies.clock

    def settled(self, batch: Sequence[HeldJob], missing: Collection[Attempt]) -> None:
        """Count a batch of attempts whose ends are written; the counters are one of the settler's listeners."""
        self._tallies.count(batch, missing)

    async def flush(self) -> None:
        """Write what is counted and not written yet.

        Raises:
            DatabaseConnectionError: the database is away; neither this nor any other error loses counts.
            psycopg.Error: the database refused.
        """
        async with self._flushing:
            while changes := self._tallies.changes(_BATCH):
                async with asyncio.timeout(FLUSH_TIMEOUT):
                    began = time.monotonic()
                    now = await self._client.write_counters(self._worker, [change.counts for change in changes])
                    ended = time.monotonic()
                self._tallies.written(changes)
                self._tallies.set_clock(now, (began + ended) / 2)

    async def learn_clock(self) -> None:
        """Ask for the database's time before anything is counted; after a failure this machine's time is used."""
        try:
            async with asyncio.timeout(CLOCK_TIMEOUT):
                began = time.monotonic()
                now = await self._client.write_counters(self._worker, [])
                self._tallies.set_clock(now, (began + time.monotonic()) / 2)
        except _TROUBLES as error:
            logger.warning("the counters cannot be written: %s", why(error))

    async def _run(self) -> None:
        await self._until_stopped(self._flush_again_and_again())
        await self._flush_at_last()

    async def _flush_again_and_again(self) -> None:
        backoff = Backoff()
        while not await wait_for_event(self._stopping, FLUSH_SECONDS):
            try:
                await self.flush()
            except _TROUBLES as error:
                logger.log(backoff.level(), "the counters could not be written, trying again: %s", why(error))
                lost = self._tallies.drop_old()
                if lost:
                    logger.warning("%d attempts of a day ago are missing from the counters", lost)
                await backoff.wait(self._stopping)
            else:
                backoff.reset()

    async def _flush_at_last(self) -> None:
        """Write the remaining counts; where that fails, try again for a few seconds."""
        backoff, never = Backoff(), asyncio.Event()
        reason = "no answer in time"
        try:
            async with asyncio.timeout(LAST_SECONDS):
                while True:
                    try:
                        await self._flush_by_spare()
                    except _TROUBLES as error:
                        reason = why(error)
                        await backoff.wait(never)
                    else:
                        return
        except TimeoutError:
            logger.warning("%d attempts are missing from the counters: %s", self._tallies.pending, reason)

    async def _flush_by_spare(self) -> None:
        """Flush, with a separate client where somebody else has cancelled the worker's tasks."""
        if self._spare is None or not self.was_cancelled or not self._tallies.pending:
            await self.flush()
            return
        async with self._spare() as self._client:
            await self.flush()


class CounterFolder(Periodic):
    """Folds old counts a minute after a worker's start and then once an hour; several workers may do so at once.

    Args:
        client: the services' client.
    """

    def __init__(self, client: ServicesClient) -> None:
        super().__init__(
            "folder", first=FOLD_FIRST_SECONDS, interval=FOLD_SECONDS, timeout=_FOLD_TIMEOUT,
            complaint="the counters could not be folded",
        )  # fmt: skip
        self._client = client

    async def _round(self) -> None:
        folded = await self._client.fold_counters()
        if folded:
            logger.info("folded %d rows of the counters", folded)
