"""Our class of connections: when a query is cancelled, the server is asked to end it, and the program never blocks.

libpq before 17 can only send such a request by a call that waits for the network, and psycopg's C form holds the
interpreter's lock meanwhile: a network that swallows packets would stop the whole process. With such a libpq, a second
connection asks the server.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import psycopg
from psycopg import pq

from backfill.storage.pooler import is_pooled
from backfill.storage.statements import render

CANCELS_SAFELY: Final = 170000
"""The first libpq that sends a request to cancel without waiting."""


class _Silent(psycopg.AsyncConnection[Any]):
    """A connection whose queries are not cancelled, but waited for."""

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Do nothing: no request to cancel is sent."""


class OwnConnection(psycopg.AsyncConnection[Any]):
    """A connection of ours.

    Attributes:
        conninfo: the connection string by which a second connection to the same server is made.
    """

    conninfo: str | None = None

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Ask the server to end this connection's query, and take `timeout` seconds for that at most.

        The driver calls this where the query's task is cancelled. Behind a pooler it is not known which session of the
        server runs the query. There, and where the server does not answer, the connection is closed a few seconds
        later instead.
        """
        if pq.version() >= CANCELS_SAFELY:
            await super().cancel_safe(timeout=timeout)
        elif self.conninfo is not None and not is_pooled(self):
            await _cancel(self.conninfo, self.info.backend_pid, timeout)


async def _cancel(conninfo: str, pid: int, timeout: float) -> None:
    async with asyncio.timeout(timeout):
        other = await _Silent.connect(conninfo, autocommit=True, cursor_factory=psycopg.AsyncRawCursor)
        try:
            await other.execute(render("cancel_backend"), [pid])
        finally:
            await other.close()
