"""The heartbeat: a worker's row in `backfill_workers`, written at its start, every few seconds, and deleted at its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

import psycopg

from backfill.errors import DatabaseConnectionError
from backfill.storage.connection import Connection, Dsn, connect
from backfill.storage.workers import WorkerRow, add_worker, beat, remove_worker
from backfill.worker.backoff import Backoff
from backfill.worker.service import Service, wait_for_event

logger = logging.getLogger(__name__)

BEAT_TIMEOUT: Final = 10.0


class Beat(Service):
    """Writes the worker's row on a connection of its own.

    Args:
        dsn: of the database.
        schema: the queue's schema.
        row: what others see of the worker.
        interval: seconds between beats.

    Attributes:
        fleet: how many workers are alive that know a task of this one's, itself included.
        lost: called once, when this worker was given up by another.
    """

    def __init__(self, dsn: Dsn, *, schema: str, row: WorkerRow, interval: float) -> None:
        super().__init__("beat")
        self._dsn = dsn
        self._schema = schema
        self._row = row
        self._interval = interval
        self._connection: Connection | None = None
        self.fleet = 1
        self.lost: Callable[[], None] = lambda: None
        self._lag = 0.0

    async def first(self) -> None:
        """Write the row before the first claim.

        Raises:
            DatabaseConnectionError: the server cannot be reached.
            psycopg.Error: it refused.
        """
        async with asyncio.timeout(BEAT_TIMEOUT):
            self.fleet = await add_worker(await self._connected(), self._row, schema=self._schema)

    async def remove(self) -> None:
        """Delete the row and close the connection: the worker ended in good order."""
        try:
            async with asyncio.timeout(BEAT_TIMEOUT):
                await remove_worker(await self._connected(), self._row.id, schema=self._schema)
        except (DatabaseConnectionError, psycopg.Error, TimeoutError, OSError) as error:
            logger.warning("the worker's row could not be deleted: %s", " ".join(str(error).split()))
        finally:
            await self.hang_up()

    async def hang_up(self) -> None:
        """Close the connection, and leave the row to others."""
        await self._close()

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            due = time.monotonic() + self._interval
            if await wait_for_event(self._stopping, self._interval):
                return
            self._lag = max(time.monotonic() - due, 0.0)
            try:
                if not await self._beat():
                    self.lost()
                    return
                backoff.reset()
            except (DatabaseConnectionError, psycopg.Error, TimeoutError, OSError) as error:
                logger.log(backoff.level(), "a heartbeat failed: %s", " ".join(str(error).split()))
                await self._close()
                await backoff.wait(self._stopping)

    async def _beat(self) -> bool:
        """One heartbeat; whether this worker is still one."""
        async with asyncio.timeout(BEAT_TIMEOUT):
            found = await beat(await self._connected(), self._row.id, lag=self._lag, schema=self._schema)
        if found is not None:
            self.fleet = found[1]
        return found is not None

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self._dsn, application_name=f"backfill {self._row.id} beat")
        return self._connection

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()
