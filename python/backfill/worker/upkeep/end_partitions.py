"""The keeper: makes the partitions that kept ends will need, and drops those whose ends have expired.

A missing partition does no harm, since the table has a default partition, from which rows are moved later.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import psycopg

from backfill.client.lent import ServicesClient
from backfill.said import said
from backfill.worker.upkeep.periodic import Periodic

logger = logging.getLogger(__name__)

INTERVAL: Final = 600.0
"""Seconds between two looks. A partition is made a day ahead, so a few looks may fail."""
TIMEOUT: Final = 60.0


class EndPartitions(Periodic):
    """Makes and drops the partitions of ends, on a connection of the worker's pool.

    Args:
        client: the services' client.
        keeps: how long the worker's tasks keep their ends. Where there are none, expired partitions are still dropped,
            since a worker that knew such tasks may have left them.
    """

    def __init__(self, client: ServicesClient, keeps: Iterable[timedelta]) -> None:
        super().__init__(
            "keeper", first=0.0, interval=INTERVAL, timeout=TIMEOUT,
            complaint="the partitions of ends could not be looked after",
        )  # fmt: skip
        self._client = client
        self._keeps = frozenset(keeps)

    async def _round(self) -> None:
        try:
            made, dropped = await self._client.tend_ends(self._keeps)
        except psycopg.errors.LockNotAvailable as error:
            # While it waited for the lock, settlements waited behind it, so it does not try again at once.
            logger.debug("the partitions of ends are in use: %s", said(error))
        except psycopg.errors.InsufficientPrivilege:
            if self._keeps:  # else nobody needs to know that a role with older grants may not drop others' partitions
                raise
        else:
            if made or dropped:
                logger.debug("made %d partitions of ends, dropped %d and rows that had none", made, dropped)
