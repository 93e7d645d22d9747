"""Deletes reservations of keys whose time is over, in the rounds of `left_attempts`.

The next job of such a key takes the row over. Rows whose keys never come again would stay for ever, so they are
deleted.
"""

from __future__ import annotations

import logging
from typing import Final

import psycopg

from backfill.client.lent import ServicesClient
from backfill.client.verbs.reservations import PAGE
from backfill.said import said

logger = logging.getLogger(__name__)

_MOST_PAGES: Final = 100
"""How many pages a round deletes at most; what is left then is deleted in the next rounds."""
_FROM_THE_FIRST: Final = 240
"""One round in this many, about one an hour, begins with the oldest reservation, since one may be committed late.

The others begin where the last one ended. The index keeps what was deleted before until it is vacuumed, and a round
that began with the oldest would read all of that.
"""


class OverReservations:
    """Deletes such reservations.

    Args:
        client: the services' client.
    """

    def __init__(self, client: ServicesClient) -> None:
        self._client = client
        self._rounds = 0
        self._place: str | None = None

    async def look(self) -> None:
        """Take one round."""
        if self._rounds % _FROM_THE_FIRST == 0:
            self._place = None
        self._rounds += 1
        deleted = 0
        try:
            for _ in range(_MOST_PAGES):
                done = await self._client.sweep_reservations(self._place)
                deleted += done.deleted
                self._place = done.place or self._place
                if done.deleted < PAGE:
                    break
        except psycopg.errors.InsufficientPrivilege as error:
            logger.debug("reservations whose time is over are left to other workers: %s", said(error))
        else:
            if deleted:
                logger.debug("deleted %d reservations whose time is over", deleted)
