"""Frees the serial queues that are held for jobs which have ended without a worker: removed or failed by hand.

It also renews the locks of the queues that are still held, since other programs take a lock of 4 hours for abandoned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import psycopg

from backfill.client.lent import ServicesClient
from backfill.said import said
from backfill.worker.upkeep.periodic import Periodic

logger = logging.getLogger(__name__)

_TIMEOUT: Final = 60.0
_EVERY: Final = 10
"""Every worker takes one round in this many, in case the first worker's version does not know held queues."""


class HeldQueues(Periodic):
    """Frees such queues, on a connection of the worker's pool. The first live worker of the fleet does so each round.

    Args:
        client: the services' client.
        interval: seconds between two rounds.
        worker: returns this worker's id.
    """

    def __init__(self, client: ServicesClient, *, interval: float, worker: Callable[[], str]) -> None:
        super().__init__(
            "held queues", first=0.0, interval=interval, timeout=_TIMEOUT,
            complaint="serial queues that are held for ended jobs could not be looked for",
        )  # fmt: skip
        self._client = client
        self._worker = worker
        self._rounds_taken = 0

    async def _round(self) -> None:
        self._rounds_taken += 1
        if self._rounds_taken % _EVERY != 1 and not await self._client.is_first_worker(self._worker()):
            return
        try:
            freed = await self._client.free_held_queues()
        except psycopg.errors.InsufficientPrivilege as error:
            logger.debug("held queues are left to other workers: %s", said(error))
        else:
            if freed:
                logger.info("freed %d serial queues that were held for jobs which have ended", freed)
