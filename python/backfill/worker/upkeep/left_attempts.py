"""Deletes the records of attempts whose jobs are gone: other programs delete jobs without knowing those records.

The progress of such jobs is looked for in the same rounds (`left_progress`), and so are reservations of keys whose time
is over (`over_reservations`).

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
from backfill.client.verbs.attempts import FRONT, PAGE, Place
from backfill.said import said
from backfill.worker.upkeep.left_progress import LeftProgress
from backfill.worker.upkeep.over_reservations import OverReservations
from backfill.worker.upkeep.periodic import Periodic

logger = logging.getLogger(__name__)

INTERVAL: Final = 15.0
_TIMEOUT: Final = 60.0
_EVERY: Final = 10
"""Every worker takes one round in this many, in case the first worker's version does not know attempts."""
_PAGES: Final = 2
"""How many pages a round looks at if it finds little to delete, since it looks at the records of waiting jobs too."""
_MOST_PAGES: Final = 300
_MANY: Final = PAGE // 20
"""If a page had at least so many records to delete, the round goes on."""


class LeftAttempts(Periodic):
    """Deletes such records, on a connection of the worker's pool.

    The first live worker of the fleet does so each round. The first round begins anywhere, because a program that runs
    only the jobs that are due, and ends then, has no other round; each later one begins where the one before stopped.

    Args:
        client: the services' client.
        worker: returns this worker's id.
    """

    def __init__(self, client: ServicesClient, *, worker: Callable[[], str]) -> None:
        super().__init__(
            "left attempts", first=INTERVAL, interval=INTERVAL, timeout=_TIMEOUT,
            complaint="attempts of jobs that are gone could not be looked for",
        )  # fmt: skip
        self._client = client
        self._worker = worker
        self._rounds_taken = 0
        self._place: Place | None = None
        self._progress = LeftProgress(client)
        self._reservations = OverReservations(client)

    async def _round(self) -> None:
        self._rounds_taken += 1
        if self._rounds_taken % _EVERY != 1 and not await self._client.is_first_worker(self._worker()):
            return
        await self._progress.look()
        await self._reservations.look()
        deleted = 0
        try:
            for page in range(_MOST_PAGES):
                began, done = self._place, await self._client.sweep_attempts(self._place)
                deleted += done.deleted
                self._place = done.place if done.seen == PAGE else FRONT
                saw_all = began == self._place == FRONT
                if saw_all or (page + 1 >= _PAGES and done.deleted < _MANY):
                    break
        except psycopg.errors.InsufficientPrivilege as error:
            logger.debug("attempts of jobs that are gone are left to other workers: %s", said(error))
        else:
            if deleted:
                logger.debug("deleted %d attempts of jobs that are gone", deleted)
