"""The worker's hot connection: claims and settlements go through it one at a time, and it comes back when it was lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar

import psycopg
from psycopg import IsolationLevel

from backfill.errors import BackfillError, DatabaseConnectionError
from backfill.storage.attempts import end_predecessor, give_back_strays
from backfill.storage.connection import Connection, Dsn, connect
from backfill.worker.service import wait_for_event

logger = logging.getLogger(__name__)

T = TypeVar("T")
QUERY_TIMEOUT: Final = 60.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_PREDECESSOR_LOOKS: Final = 100
_REMINDER: Final = 60.0


class ConnectionLostError(BackfillError):
    """The database did not answer; what was asked may or may not have been done."""


class Backoff:
    """Pauses between attempts to connect: growing, and jittered so that a fleet does not come back at once."""

    def __init__(self) -> None:
        self._pause = _FIRST_PAUSE
        self._said: float | None = None

    def reset(self) -> None:
        """Begin again after a success."""
        self._pause = _FIRST_PAUSE
        self._said = None

    def level(self) -> int:
        """At which level to log a failure: a warning at an outage's begin and once a minute, else for debugging."""
        now = time.monotonic()
        if self._said is not None and now - self._said < _REMINDER:
            return logging.DEBUG
        self._said = now
        return logging.WARNING

    async def wait(self, unless: asyncio.Event) -> bool:
        """Pause; whether the event was set meanwhile."""
        pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return await wait_for_event(unless, pause)


class HotConnection:
    """One connection, used by one at a time.

    Args:
        dsn: of the database.
        schema: the queue's schema.
        worker: the worker's id.
        held: the ids of the jobs that the worker knows to hold; what else it has locked is given back on a reconnect.
    """

    def __init__(self, dsn: Dsn, *, schema: str, worker: str, held: Callable[[], Collection[int]]) -> None:
        self._dsn = dsn
        self._schema = schema
        self._worker = worker
        self._held = held
        self._name = f"backfill {worker}"
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self.give_up = asyncio.Event()
        """Set when a shutdown's deadline is over: nothing waits for the database any more."""

    async def open(self) -> None:
        """Connect for the first time.

        Raises:
            DatabaseConnectionError: the server cannot be reached.
        """
        self._connection = await self._connect()

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()

    async def run(self, operation: Callable[[Connection], Awaitable[T]]) -> T:
        """Carry out an operation when it is its turn, connecting again first if need be.

        Raises:
            ConnectionLostError: the database did not answer; a claim's rows are looked for before anything else is asked.
            psycopg.Error: the database refused it.
        """
        async with self._lock:
            connection = await self._ready()
            try:
                async with asyncio.timeout(QUERY_TIMEOUT):
                    return await operation(connection)
            except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError, OSError) as error:
                await self._lose()
                raise ConnectionLostError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
            except BaseException:
                # Cancelled or refused in the middle: what the connection still carries is nobody's business now.
                await self._lose()
                raise

    async def _ready(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        backoff = Backoff()
        while True:
            try:
                async with asyncio.timeout(QUERY_TIMEOUT):
                    connection = await self._connect()
                    await self._settle_past(connection)
            except (DatabaseConnectionError, psycopg.Error, TimeoutError, OSError) as error:
                logger.log(backoff.level(), "the database is away, trying again: %s", " ".join(str(error).split()))
                if await backoff.wait(self.give_up):
                    raise ConnectionLostError("the shutdown's deadline is over and the database is away") from error
            else:
                self._connection = connection
                logger.info("connected to the database again")
                return connection

    async def _connect(self) -> Connection:
        connection = await connect(self._dsn, application_name=self._name)
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
        return connection

    async def _settle_past(self, connection: Connection) -> None:
        """Give back what a claim took whose answer never came, once no such claim can be under way any more."""
        try:
            for _ in range(_PREDECESSOR_LOOKS):
                if not await end_predecessor(connection, self._name):
                    break
                await asyncio.sleep(0.05)
            strays = await give_back_strays(connection, schema=self._schema, worker=self._worker, held=self._held())
        except BaseException:
            await connection.close()
            raise
        if strays:
            logger.warning("gave back %d jobs of a claim whose answer was lost", len(strays))

    async def _lose(self) -> None:
        await self.close()
