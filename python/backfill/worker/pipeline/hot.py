"""The worker's hot connections: claims and settlements go through them, one pipeline at a time on each, and they come back.

There are two lines. The second is opened when there is a backlog, so that the server claims on one while the other's jobs are
started. When an answer is lost nobody knows what was committed, so before anything else is asked, with both lines at rest,
rows that are locked by this worker without its knowledge are given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import psycopg
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus

from backfill.errors import BackfillError
from backfill.storage.attempts import await_predecessor, end_predecessor
from backfill.storage.backoff import Backoff
from backfill.storage.connection import Connection, Dsn, connect, shown
from backfill.storage.pooler import is_pooled
from backfill.storage.wire import Command, Wire

logger = logging.getLogger(__name__)

LINES: Final = 2
QUERY_TIMEOUT: Final = 60.0
CONNECT_TIMEOUT: Final = 60.0
"""Of several hosts each has ten seconds."""
PASSING: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.QueryCanceled)
"""Errors that go away without our doing: somebody else holds a row for a moment."""
STRANGE: Final = psycopg.errors.ReadOnlySqlTransaction
"""What comes of a server that is a standby now: the primary is another, to be connected to anew."""
_PREDECESSOR_LOOKS: Final = 100


class ConnectionLostError(BackfillError):
    """The database did not answer; what was asked may or may not have been done."""


class HotConnections:
    """Two lines to the database, each used by one at a time.

    Args:
        dsn: of the database.
        schema: the queue's schema.
        worker: the worker's id.
        compare: called after a loss, before anything else is asked: gives back what is locked and not held, and says how
            many jobs that were.
    """

    def __init__(self, dsn: Dsn, *, schema: str, worker: str, compare: Callable[[Wire], Awaitable[int]]) -> None:
        self._dsn = dsn
        self._schema = schema
        self._worker = worker
        self._compare = compare
        self._name = f"backfill {worker}"
        self._first = (
            Command.of("be_read_committed", schema),
            Command.of("set_hot", schema, "true"),
            Command.of("hold_worker", schema, worker),
        )
        self._wires: list[Wire | None] = [None] * LINES
        self._locks = [asyncio.Lock() for _ in range(LINES)]
        self._in_doubt = False
        self.outage = Backoff()
        """What is said of an outage, by whichever line meets it: once, and once when it is over."""
        self.give_up = asyncio.Event()
        """Set when a shutdown's deadline is over: nothing waits for the database any more."""

    @property
    def in_doubt(self) -> bool:
        """Whether rows may be locked by a claim whose answer was lost."""
        return self._in_doubt

    async def open(self) -> None:
        """Connect for the first time.

        Raises:
            DatabaseConnectionError: the server cannot be reached.
        """
        self._wires[0] = await self._connect()

    async def close(self) -> None:
        """Close the connections."""
        for line in range(LINES):
            await self.hang_up(line)

    async def hang_up(self, line: int) -> None:
        """Close one line until it is used again."""
        wire, self._wires[line] = self._wires[line], None
        if wire is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await wire.connection.close()

    async def rest(self, line: int) -> None:
        """Close a line that has had nothing to do for a while, unless it has something to do just now."""
        if not self._locks[line].locked():
            async with self._locks[line]:
                await self.hang_up(line)

    @asynccontextmanager
    async def line(self, line: int) -> AsyncIterator[Wire]:
        """One of the lines, when it is its caller's turn, connected again first if need be.

        What comes of what is sent must be taken in before the line is left.

        Raises:
            ConnectionLostError: the database did not answer; a claim's rows are looked for before anything else is asked.
            psycopg.Error: the database refused it, and nothing took effect.
        """
        while True:
            async with self._locks[line]:
                if not self._in_doubt:
                    async with self._guarded(line):
                        yield await self._ready(line)
                    return
            await self._look_for_strays()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Wire]:
        """The first line, while nothing is under way on any. Raises what `line` does."""
        while True:
            async with AsyncExitStack() as stack:
                for lock in self._locks:
                    await stack.enter_async_context(lock)
                if not self._in_doubt:
                    async with self._guarded(0):
                        yield await self._ready(0)
                    return
            await self._look_for_strays()

    @asynccontextmanager
    async def _guarded(self, line: int) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            if isinstance(error, ConnectionLostError):
                raise
            if isinstance(error, psycopg.Error) and not isinstance(error, STRANGE) and self._is_sound(line):
                raise
            # Lost, too late, or left in the middle: nobody knows what of it took effect, and what the connection still
            # carries is nobody's business now.
            self._in_doubt = True
            await self.hang_up(line)
            if isinstance(error, (psycopg.Error, TimeoutError, OSError)):
                raise ConnectionLostError(_line(error)) from error
            raise

    def _is_sound(self, line: int) -> bool:
        """Whether a connection is where its next pipeline can begin."""
        wire = self._wires[line]
        if wire is None:
            return True
        pgconn = wire.connection.pgconn
        return (
            pgconn.status == ConnStatus.OK
            and pgconn.transaction_status == TransactionStatus.IDLE
            and pgconn.pipeline_status == PipelineStatus.OFF
        )

    async def _ready(self, line: int) -> Wire:
        wire = self._wires[line]
        if wire is not None and not wire.connection.closed:
            return wire
        backoff = Backoff()
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    wire = self._wires[line] = await self._connect()
            except Exception as error:
                logger.log(self.outage.level(), "the database is away, trying again: %s", _line(error))
                if await backoff.wait(self.give_up):
                    raise ConnectionLostError("the shutdown's deadline is over and the database is away") from error
            else:
                return wire

    async def _connect(self) -> Wire:
        connection = await connect(self._dsn, application_name=self._name)
        try:
            # The next transaction's session may be another: each is set up by itself, and says whose it is.
            if is_pooled(connection) or not self._bears_name(connection):
                return Wire(connection, self._first)
            wire = Wire(connection)
            await wire.send([Command.of("set_hot", self._schema, "false")], timeout=QUERY_TIMEOUT)
        except BaseException:
            await connection.close()
            raise
        return wire

    def _bears_name(self, connection: Connection) -> bool:
        """Whether a session can be told by its name: a DSN may set another, which other programs share."""
        return connection.info.parameter_status("application_name") == self._name

    async def _end_predecessor(self, connection: Connection) -> None:
        """See that nothing of a lost connection is under way any more on the server."""
        if is_pooled(connection) or not self._bears_name(connection):
            await await_predecessor(connection, self._worker)
            return
        for _ in range(_PREDECESSOR_LOOKS):
            if not await end_predecessor(connection, self._name):
                return
            await asyncio.sleep(0.05)

    async def _look_for_strays(self) -> None:
        """Give back what a claim took whose answer never came, once no such claim can be under way any more."""
        async with AsyncExitStack() as stack:
            for lock in self._locks:
                await stack.enter_async_context(lock)
            if not self._in_doubt:
                return
            async with self._guarded(0):
                wire = await self._ready(0)
                async with asyncio.timeout(QUERY_TIMEOUT):
                    await self._end_predecessor(wire.connection)
                strays = await self._compare(wire)
            self._in_doubt = False
        if strays:
            logger.info("gave back %d jobs of a claim whose answer was lost", strays)


def _line(error: BaseException) -> str:
    name, text = type(error).__name__, shown(error)
    return name if text == name else f"{name}: {text}"
