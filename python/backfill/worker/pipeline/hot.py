"""The worker's hot connections, which carry claims and settlements and are connected again when they are lost.

There are two lines, each of which carries one pipeline at a time. The second is opened when there is a backlog, so that
the server claims on one line while the worker starts the jobs of the other. When an answer is lost, nobody knows what
was committed. So before anything else is asked, both lines are at rest and the rows that this worker has locked without
knowing it are given back.
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
from backfill.storage.attempts import finish_predecessor, shares_sessions
from backfill.storage.backoff import Backoff
from backfill.storage.connection import Dsn, connect, shown
from backfill.storage.wire import Command, Wire

logger = logging.getLogger(__name__)

LINES: Final = 2
QUERY_TIMEOUT: Final = 60.0
CONNECT_TIMEOUT: Final = 60.0
"""Seconds to connect; where the DSN names several hosts, each of them has ten."""
PASSING: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.QueryCanceled)
"""Errors that go away without our doing: somebody else holds a row for a moment."""
STRANGE: Final = psycopg.errors.ReadOnlySqlTransaction
"""The error of a server that has become a standby: the primary is another server, so the worker connects again."""


class ConnectionLostError(BackfillError):
    """Raised where the database did not answer: what was asked may or may not have been done."""


class HotConnections:
    """Two lines to the database, each used by one at a time.

    Args:
        dsn: the DSN of the database.
        schema: the queue's schema.
        worker: the worker's id.
        compare: called after a loss, before anything else is asked: gives back the jobs that are locked and not held,
            and returns how many there were.
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
        self._lost: set[int] = set()
        self.reconnected: Callable[[], None] = lambda: None
        """Called when a line that was lost is connected again."""
        self.outage = Backoff()
        """Has an outage logged once, by the line that meets it first, and its end once."""
        self.give_up = asyncio.Event()
        """Set when a shutdown's deadline is over: from then on nothing waits for the database."""

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
        """Close a line that was idle for a while, unless it is in use now."""
        if not self._locks[line].locked():
            async with self._locks[line]:
                await self.hang_up(line)

    @asynccontextmanager
    async def line(self, line: int) -> AsyncIterator[Wire]:
        """Wait for one of the lines, connect it again if need be, and give it to the caller alone.

        The caller must read all results before it leaves the line.

        Raises:
            ConnectionLostError: the database did not answer; before anything else is asked, the rows of a claim whose
                answer was lost are looked for.
            psycopg.Error: the database refused what was asked, and nothing took effect.
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
        """Give the caller the first line while nothing is under way on either. Raises what `line` raises."""
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
            # The connection was lost, the answer came too late, or the line was left in the middle. Nobody knows what
            # took effect, and what the connection still carries must not be read by the next user.
            self._in_doubt = True
            self._lost.add(line)
            await self.hang_up(line)
            if isinstance(error, (psycopg.Error, TimeoutError, OSError)):
                raise ConnectionLostError(_line(error)) from error
            raise

    def _is_sound(self, line: int) -> bool:
        """Whether a connection is in a state in which its next pipeline can begin."""
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
        if wire is not None:
            self._lost.add(line)
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
                if line in self._lost:
                    self._lost.discard(line)
                    self.reconnected()
                return wire

    async def _connect(self) -> Wire:
        connection = await connect(self._dsn, application_name=self._name)
        try:
            # The next transaction may have another session, so each sets its session up, and names its worker, itself.
            if shares_sessions(connection, self._name):
                return Wire(connection, self._first)
            wire = Wire(connection)
            await wire.send([Command.of("set_hot", self._schema, "false")], timeout=QUERY_TIMEOUT)
        except BaseException:
            await connection.close()
            raise
        return wire

    async def _look_for_strays(self) -> None:
        """Give back the jobs of a claim whose answer never came, once no such claim can still be under way."""
        async with AsyncExitStack() as stack:
            for lock in self._locks:
                await stack.enter_async_context(lock)
            if not self._in_doubt:
                return
            async with self._guarded(0):
                wire = await self._ready(0)
                async with asyncio.timeout(QUERY_TIMEOUT):
                    await finish_predecessor(wire.connection, name=self._name, transaction=self._worker)
                strays = await self._compare(wire)
            self._in_doubt = False
        if strays:
            logger.info("gave back %d jobs of a claim whose answer was lost", strays)


def _line(error: BaseException) -> str:
    name, text = type(error).__name__, shown(error)
    return name if text == name else f"{name}: {text}"
