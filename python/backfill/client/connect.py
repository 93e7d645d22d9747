"""A client's life: opened by its first use, checked against the schema, closed, and how each verb comes by a connection.

The base of the client's verbs. Nothing here touches the network before a verb, `open()` or `async with` does.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import psycopg
import psycopg_pool
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from backfill.client.execute import cancellations, run, surely_undone, translated
from backfill.errors import (
    BackfillError,
    ClientClosedError,
    CommitUnknownError,
    ConfigurationError,
    DatabaseConnectionError,
)
from backfill.said import stripping
from backfill.storage.backoff import Backoff
from backfill.storage.connection import Connection, Dsn, Pool, connect, is_alive, redacted, resolve
from backfill.storage.isolation import read_committed
from backfill.storage.migrate import migrate
from backfill.storage.pool import PatientPool
from backfill.storage.pooler import look_for_pooler
from backfill.storage.schema import check_schema
from backfill.storage.statements import DEFAULT_SCHEMA, quoted_schema

DSN_VARIABLE: Final = "DATABASE_URL"
MOST_CONNECTIONS: Final = 10
AT_HAND_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 30.0
"""How long a call is repeated of which nothing was done: as long as it may wait for a connection."""
_CHECK_SECONDS: Final = 30.0
_FIRST_PAUSE: Final = 0.02
T = TypeVar("T")


@dataclass(slots=True)
class _Session:
    """An open client: its pool, and the process and loop that it belongs to.

    A pool's own way, with locks and checks at both ends of a loan, takes as long as a fifth of an insert; so the last
    connection stays at hand for the next verb, where nobody else can want it.
    """

    pool: Pool
    owned: bool
    where: str
    keeps: bool
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    pid: int = field(default_factory=os.getpid)
    _at_hand: Connection | None = None
    _until: float = 0.0
    _waiting: int = 0

    async def take(self) -> Connection:
        """A connection that is alive, as far as its socket tells, so that a restarted server costs no round trip."""
        connection, self._at_hand = self._at_hand, None
        if connection is not None and time.monotonic() > self._until:
            await self.pool.putconn(connection)  # which replaces it where it is old
            connection = None
        while True:
            if connection is None:
                connection = await self._from_pool()
            if is_alive(connection):
                return connection
            await connection.close()
            await self.pool.putconn(connection)
            connection = None

    async def give_back(self, connection: Connection) -> None:
        """Keep it at hand, or give it to the pool where somebody waits for one or its state is not for everybody."""
        idle = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if self.keeps and idle and self._at_hand is None and not self._waiting:
            self._at_hand = connection
        else:
            await self.pool.putconn(connection)

    async def hang_up_standby(self, connection: Connection | None, error: psycopg.Error) -> None:
        """Close a connection of ours whose server has become a standby, so that the next one is made to the primary."""
        if self.owned and connection is not None and isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            await connection.close()

    async def close(self) -> None:
        """Close the client's own pool; connections that verbs have are closed when they come back."""
        self.keeps = False
        connection, self._at_hand = self._at_hand, None
        if connection is not None:
            await self.pool.putconn(connection)
        if self.owned:
            await self.pool.close()

    async def _from_pool(self) -> Connection:
        self._waiting += 1
        try:
            connection: Connection = await self.pool.getconn()
        finally:
            self._waiting -= 1
        self._until = time.monotonic() + AT_HAND_SECONDS
        return connection


class ClientLife:
    """What all verbs share: the pool, the schema, and the client's state."""

    def __init__(
        self,
        dsn: Dsn | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        pool: psycopg_pool.AsyncConnectionPool[Any] | None = None,
        migrate: bool = False,
        min_size: int = 1,
        max_size: int = MOST_CONNECTIONS,
    ) -> None:
        if dsn is not None and pool is not None:
            raise ConfigurationError("dsn and pool: give one of them; a pool has its own connection string")
        if dsn is not None and not isinstance(dsn, str) and not callable(dsn):
            raise ConfigurationError(f"dsn: expected a connection string or a callable, got {type(dsn).__name__}")
        if pool is not None and not isinstance(pool, psycopg_pool.AsyncConnectionPool):
            raise ConfigurationError(f"pool: expected a psycopg_pool.AsyncConnectionPool, got {type(pool).__name__}")
        quoted_schema(schema)
        _check_sizes(min_size, max_size)
        self._dsn = dsn
        self._schema = schema
        self._given_pool = pool
        self._migrate = migrate
        self._sizes = min_size, max_size
        self._session: _Session | None = None
        self._closed = False
        self._lock: tuple[asyncio.AbstractEventLoop, int, asyncio.Lock] | None = None
        self._known: tuple[set[str], set[str]] = set(), set()

    @classmethod
    async def connect(
        cls,
        dsn: Dsn | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        pool: psycopg_pool.AsyncConnectionPool[Any] | None = None,
        migrate: bool = False,
        min_size: int = 1,
        max_size: int = MOST_CONNECTIONS,
    ) -> Self:
        """A client that is open: made with the same arguments, then opened.

        Raises:
            DatabaseConnectionError: the server cannot be reached, or refuses.
            SchemaMissingError: the schema is not there, and `migrate` is not set.
            SchemaVersionError: the schema is too new or too old.
            ConfigurationError: an argument that cannot be used, or neither `dsn` nor DATABASE_URL.
        """
        client = cls(dsn, schema=schema, pool=pool, migrate=migrate, min_size=min_size, max_size=max_size)
        await client.open()
        return client

    @property
    def schema(self) -> str:
        """The schema whose queue this client works with."""
        return self._schema

    @property
    def is_open(self) -> bool:
        """Whether the client is connected; one that was never used is not, and opens itself at its first use."""
        return self._session is not None

    async def open(self) -> None:
        """Connect and check the schema; harmless where the client is open already, and opens a closed one again.

        Called by the first verb, so calling it is only worth while to fail early.

        Raises:
            DatabaseConnectionError: the server cannot be reached, or refuses.
            SchemaMissingError: the schema is not there, and `migrate` is not set.
            SchemaVersionError: the schema is too new or too old.
            ConfigurationError: neither a DSN nor DATABASE_URL, or a connection string that cannot be read.
        """
        await self._opened(reopen=True)

    async def close(self) -> None:
        """Close the client's own pool; a pool that was given to it stays open. Harmless where it is closed already.

        Calls under way keep their connection and end; later ones raise `ClientClosedError`, until `open()`.
        """
        async with self._lock_here():
            session = self._session_here()
            self._session, self._closed = None, True
            if session is not None:
                await session.close()

    async def __aenter__(self) -> Self:
        """Open the client."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    @asynccontextmanager
    async def _connection(self, given: Connection | None) -> AsyncIterator[Connection]:
        """The caller's connection, as it is; else one of the client's, in autocommit. Its texts are UTF-8 either way."""
        if given is not None:
            self._refuse_closed()
            encoding = await _speak_utf8(_checked(given))
            try:
                with stripping():
                    yield given
            finally:
                if encoding is not None:
                    await _speak_again(given, encoding)
            return
        session = self._session_here() or await self._opened(reopen=False)
        connection: Connection | None = None
        was_autocommit, encoding = True, None
        try:
            connection = await session.take()
            was_autocommit = connection.autocommit
            if not was_autocommit:
                await connection.set_autocommit(True)
            if not session.owned:
                await look_for_pooler(connection)
            encoding = await _speak_utf8(connection)
            async with nullcontext() if session.owned else read_committed(connection):
                yield connection
        except psycopg_pool.PoolClosed as error:
            raise ClientClosedError(f"this client's pool is closed: {error}") from error
        except psycopg.Error as error:
            await session.hang_up_standby(connection, error)
            seen = translated(error, connection, where=session.where, schema=self._schema)
            if seen is error:
                raise
            raise seen from error
        finally:
            if connection is not None:
                if encoding is not None:
                    await _speak_again(connection, encoding)
                if not was_autocommit:
                    with suppress(psycopg.Error):  # broken: the pool throws it away
                        await connection.set_autocommit(False)
                await session.give_back(connection)

    async def _again(self, call: Callable[[Connection], Awaitable[T]], *, harmless: bool = False) -> T:
        """What a call gives on a connection of the client's; again, for half a minute, where nothing of it was done.

        Args:
            call: one transaction, or several of which it does no harm that the first ones are there already.
            harmless: whether it may be repeated, too, where nobody knows what was done.
        """
        backoff, until = Backoff(_FIRST_PAUSE), time.monotonic() + AGAIN_SECONDS
        cancelled = cancellations()
        while True:
            try:
                async with self._connection(None) as chosen:
                    return await call(chosen)
            except (psycopg.Error, DatabaseConnectionError) as error:
                if cancellations() > cancelled:  # the driver raises what the server said in its place
                    raise asyncio.CancelledError from error
                again = surely_undone(error) or (harmless and isinstance(error, CommitUnknownError))
                if not again or time.monotonic() > until:
                    raise
            await asyncio.sleep(backoff.pause())

    async def _opened(self, *, reopen: bool) -> _Session:
        async with self._lock_here():
            session = self._session_here()
            if session is None:
                if not reopen:
                    self._refuse_closed()
                session = self._session = await self._start()
                self._closed = False
            return session

    async def _start(self) -> _Session:
        if self._given_pool is not None:
            return await self._adopt(self._given_pool)
        dsn = self._dsn or os.environ.get(DSN_VARIABLE)
        if not dsn:
            raise ConfigurationError(f"dsn: none was given and {DSN_VARIABLE} is not set")
        resolved = await resolve(dsn)
        first = await connect(resolved)
        try:
            await self._prepare_schema(first)
        finally:
            await first.close()
        pool = PatientPool(dsn, min_size=self._sizes[0], max_size=self._sizes[1])
        where = redacted(resolved)
        try:
            await pool.open(wait=True)  # a call that finds none ready would have the pool make another beside it
        except psycopg_pool.PoolTimeout as error:
            await pool.close()
            raise translated(error, None, where=where, schema=self._schema) from error
        except BaseException:
            await pool.close()
            raise
        return _Session(pool, owned=True, where=where, keeps=self._sizes[0] > 0)

    async def _adopt(self, pool: Pool) -> _Session:
        if pool.closed:
            raise ConfigurationError("pool: it is not open; `await pool.open()` before the client's first use")
        session = _Session(pool, owned=False, where="the given pool's server", keeps=False)
        try:
            async with pool.connection() as connection, in_our_manner(connection), read_committed(connection):
                await self._prepare_schema(connection)
        except psycopg_pool.PoolTimeout as error:
            raise translated(error, None, where=session.where, schema=self._schema) from error
        return session

    async def _prepare_schema(self, connection: Connection) -> None:
        if self._migrate:
            await migrate(connection, schema=self._schema)
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await check_schema(connection, schema=self._schema)
        except TimeoutError as error:
            where = redacted(connection.info.dsn)
            raise DatabaseConnectionError(f"PostgreSQL at {where} gave no answer in {_CHECK_SECONDS:g} s") from error

    def _session_here(self) -> _Session | None:
        """The session, if it can be used by this process on this loop; one that never can be again is let go."""
        session = self._session
        if session is None:
            return None
        loop = asyncio.get_running_loop()
        if session.pid == os.getpid():
            if session.loop is loop:
                return session
            if not session.loop.is_closed():
                raise BackfillError(
                    "this client is open on another event loop; close it there first, or make one client a loop"
                )
        # A forked child must not close what it shares with its parent, and a closed loop cannot close anything.
        self._session = None
        return None

    def _lock_here(self) -> asyncio.Lock:
        here = asyncio.get_running_loop(), os.getpid()
        if self._lock is None or self._lock[:2] != here:
            self._lock = (*here, asyncio.Lock())
        return self._lock[2]

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClientClosedError("this client is closed; open it again, or make another")


@asynccontextmanager
async def in_our_manner(connection: Connection) -> AsyncIterator[None]:
    """A caller's connection as `storage` expects one, and then as it was."""
    before = connection.row_factory, connection.cursor_factory, connection.autocommit
    connection.row_factory, connection.cursor_factory = tuple_row, psycopg.AsyncRawCursor
    try:
        await connection.set_autocommit(True)
        yield
    finally:
        connection.row_factory, connection.cursor_factory = before[:2]
        with suppress(psycopg.Error):
            await connection.set_autocommit(before[2])


async def _speak_utf8(connection: Connection) -> bytes | None:
    """Have the session's texts in UTF-8: in what they were before, where they were not; a LATIN1 database's are LATIN1."""
    before = connection.pgconn.parameter_status(b"client_encoding")
    if before in (None, b"UTF8"):
        return None
    await run(connection, "set_client_encoding", DEFAULT_SCHEMA, ("UTF8",))
    return before


async def _speak_again(connection: Connection, encoding: bytes) -> None:
    with suppress(psycopg.Error):  # of a transaction that failed: its rollback puts this back too
        await run(connection, "set_client_encoding", DEFAULT_SCHEMA, (encoding.decode(),))


def _checked(connection: object) -> Connection:
    if not isinstance(connection, psycopg.AsyncConnection):
        raise ConfigurationError(f"connection: expected a psycopg.AsyncConnection, got {type(connection).__name__}")
    return connection


def _check_sizes(min_size: object, max_size: object) -> None:
    for name, value, least in (("min_size", min_size, 0), ("max_size", max_size, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigurationError(f"{name} = {value!r}: expected an integer of at least {least}")
    if min_size > max_size:  # type: ignore[operator]
        raise ConfigurationError(f"min_size = {min_size}: expected at most max_size ({max_size})")
