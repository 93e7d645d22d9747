"""What a pool of connections says of an outage: in the log, once, and in the errors of those who wait meanwhile.

Both clients' pools use it, the asynchronous one and the one of the synchronous client.
"""

from __future__ import annotations

import logging

from psycopg_pool import PoolTimeout

from backfill.said import said
from backfill.storage.backoff import Backoff
from backfill.storage.connection import shown


class Outage:
    """What one pool knows of the database that it cannot reach, if there is such a time.

    Args:
        logger: the log of the pool's module.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._backoff = Backoff()
        self._trouble: str | None = None

    def failed(self, error: BaseException) -> None:
        """Take note of an attempt to connect that failed: a warning once per outage, at DEBUG beside that."""
        self._trouble = shown(error)
        self._logger.log(self._backoff.level(), "no connection for the pool, trying again: %s", self._trouble)

    def connected(self) -> None:
        """Take note of a new connection, which ends an outage."""
        self._trouble = None
        if self._backoff.reset():
            self._logger.info("the pool has connections again")

    def not_lent(self, error: PoolTimeout, max_size: int) -> PoolTimeout:
        """The error for whoever waited for one of so many connections in vain; it says why."""
        return PoolTimeout(f"{said(error)}: {self._trouble or f'all {max_size} are in use'}")

    def not_made(self, seconds: float) -> PoolTimeout:
        """The error for whoever waited so long for a connection of its own."""
        return PoolTimeout(f"couldn't get a connection after {seconds:.2f} sec: {self._trouble or 'no answer'}")
