"""Deletes the progress of jobs that are gone: other programs delete jobs without knowing it, and dead letters go too.

The worker's own settlements delete the progress of the jobs that they complete.
"""

from __future__ import annotations

import logging
from typing import Final

import psycopg

from backfill.client.lent import ServicesClient
from backfill.client.verbs.progress import FRONT, PAGE
from backfill.said import said

logger = logging.getLogger(__name__)

_MOST_PAGES: Final = 300
_MANY: Final = PAGE // 20
"""If a page had at least so many rows to delete, the look goes on."""


class LeftProgress:
    """Deletes such rows, a page at each look; each look begins where the one before stopped.

    Args:
        client: the services' client.
    """

    def __init__(self, client: ServicesClient) -> None:
        self._client = client
        self._place = FRONT

    async def look(self) -> None:
        """Look at one page, and at further ones as long as there is much to delete."""
        deleted = 0
        try:
            for _ in range(_MOST_PAGES):
                done = await self._client.sweep_progress(self._place)
                deleted += done.deleted
                self._place = done.place if done.seen == PAGE else FRONT
                if self._place == FRONT or done.deleted < _MANY:
                    break
        except psycopg.errors.InsufficientPrivilege as error:
            logger.debug("the progress of jobs that are gone is left to other workers: %s", said(error))
        else:
            if deleted:
                logger.debug("deleted the progress of %d jobs that are gone", deleted)
