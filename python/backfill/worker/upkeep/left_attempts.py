"""Deletes the records of attempts whose jobs are gone: other programs delete jobs without knowing those records.

The worker's own settlements delete the records of the jobs that they end, except for jobs that were only put off before
they completed. Records beyond the newest 20 of a job, which are left where somebody lowers its number of attempts, are
deleted too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import psycopg

from backfill.client.lent import ServicesClient
from backfill.client.verbs.attempts import FRONT, PAGE
from backfill.said import said
from backfill.worker.upkeep.periodic import Periodic

logger = logging.getLogger(__name__)

INTERVAL: Final = 60.0
_FIRST: Final = 20.0
_TIMEOUT: Final = 60.0
_EVERY: Final = 10
"""Every worker takes one round in this many, in case the first worker's version does not know attempts."""
_PAGES: Final = 20
"""How many pages a round looks at, where it finds little to delete: the records of waiting jobs are looked at too."""
_MOST_PAGES: Final = 300
_MANY: Final = PAGE // 20
"""From how many deleted records on a page was worth it, so that the round goes on."""


class LeftAttempts(Periodic):
    """Deletes such records, on a connection of the worker's pool.

    The first live worker of the fleet does so each round. A round goes on where the one before stopped.

    Args:
        client: the services' client.
        worker: returns this worker's id.
    """

    def __init__(self, client: ServicesClient, *, worker: Callable[[], str]) -> None:
        super().__init__(
            "left attempts", first=_FIRST, interval=INTERVAL, timeout=_TIMEOUT,
            complaint="attempts of jobs that are gone could not be looked for",
        )  # fmt: skip
        self._client = client
        self._worker = worker
        self._rounds_taken = 0
        self._place = FRONT

    async def _round(self) -> None:
        self._rounds_taken += 1
        if self._rounds_taken % _EVERY != 1 and not await self._client.is_first_worker(self._worker()):
            return
        deleted = 0
        try:
            for page in range(_MOST_PAGES):
                done = await self._client.sweep_attempts(self._place)
                deleted += done.deleted
                self._place = done.place if done.seen == PAGE else FRONT
                if done.seen < PAGE or (page >= _PAGES and done.deleted < _MANY):
                    break
        except psycopg.errors.InsufficientPrivilege as error:
            logger.debug("attempts of jobs that are gone are left to other workers: %s", said(error))
        else:
            if deleted:
                logger.debug("deleted %d attempts of jobs that are gone", deleted)
