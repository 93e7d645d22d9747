"""The sweeper: moves jobs to the dead letters that other programs have failed for good, at the start and now and then."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import psycopg

from backfill.client import BackfillClient
from backfill.errors import BackfillError
from backfill.worker.backoff import Backoff
from backfill.worker.service import Service, wait_for_event

logger = logging.getLogger(__name__)

SWEEP_TIMEOUT: Final = 600.0


class Sweeper(Service):
    """Sweeps on a connection of the worker's pool.

    Args:
        client: the worker's.
        interval: seconds between sweeps.
    """

    def __init__(self, client: BackfillClient, *, interval: float) -> None:
        super().__init__("sweeper")
        self._client = client
        self._interval = interval

    async def _run(self) -> None:
        await self._until_stopped(self._sweep_again_and_again())

    async def _sweep_again_and_again(self) -> None:
        backoff = Backoff()
        while True:
            try:
                async with asyncio.timeout(SWEEP_TIMEOUT):
                    moved = await self._client.process_failed_jobs()
            except (BackfillError, psycopg.Error, TimeoutError, OSError) as error:
                logger.log(backoff.level(), "dead letters could not be swept up: %s", " ".join(str(error).split()))
                await backoff.wait(self._stopping)
                continue
            backoff.reset()
            if moved:
                logger.info("moved %d jobs to the dead letters that other programs had failed for good", moved)
            if await wait_for_event(self._stopping, self._interval):
                return
