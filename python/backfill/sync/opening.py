"""Opens a synchronous client: a first connection checks the server and the schema, then its pool is made.

Used by `life`. The checks and the migrations are those of the asynchronous client, and run in an event loop of their
own. On a connection of a pool that was given to the client, they run as if it were an asynchronous connection.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, cast

import psycopg
import psycopg_pool
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from backfill.client.execute import translated
from backfill.client.starting import DSN_VARIABLE, Settings, prepare_schema
from backfill.errors import ConfigurationError
from backfill.storage.connection import connect, redacted
from backfill.storage.pooler import learned
from backfill.storage.types import Connection
from backfill.storage.writable import names_several_hosts
from backfill.sync.base import in_a_loop
from backfill.sync.connecting import find_out, resolved
from backfill.sync.pool import PatientSyncPool
from backfill.sync.session import SyncSession
from backfill.sync.types import SyncConnection, SyncPool


def checked_pool(pool: object, dsn: object) -> SyncPool | None:
    """Return a pool that was given to a client, if it is one of synchronous connections.

    Raises:
        ConfigurationError: it is not, or a DSN was given too.
    """
    if pool is None:
        return None
    if dsn is not None:
        raise ConfigurationError("dsn and pool: give one of them; a pool has its own connection string")
    if isinstance(pool, psycopg_pool.AsyncConnectionPool):
        raise ConfigurationError(
            "pool: a psycopg_pool.AsyncConnectionPool is for BackfillClient; this client takes a "
            "psycopg_pool.ConnectionPool"
        )
    if not isinstance(pool, psycopg_pool.ConnectionPool):
        raise ConfigurationError(f"pool: expected a psycopg_pool.ConnectionPool, got {type(pool).__name__}")
    return pool


def start(settings: Settings, pool: SyncPool | None) -> SyncSession:
    """Connect, check the server and the schema, and return the session of an open client.

    Args:
        settings: the arguments with which the client was made.
        pool: the pool that was given to it, if there is one.
    """
    if pool is not None:
        return _adopt(settings, pool)
    dsn = settings.dsn or os.environ.get(DSN_VARIABLE)
    if not dsn:
        raise ConfigurationError(f"dsn: none was given and {DSN_VARIABLE} is not set")
    given = resolved(dsn)
    in_a_loop(lambda: _checked(settings, given))
    own = PatientSyncPool(dsn, min_size=settings.min_size, max_size=settings.max_size)
    where = redacted(given)
    try:
        own.open(wait=True)  # a call that finds no connection ready would make the pool open another one
    except psycopg_pool.PoolTimeout as error:
        own.close()
        raise translated(error, None, where=where, schema=settings.schema) from error
    except BaseException:
        own.close()
        raise
    return SyncSession(own, owned=True, where=where)


def _adopt(settings: Settings, pool: SyncPool) -> SyncSession:
    if pool.closed:
        raise ConfigurationError("pool: it is not open; `pool.open()` before the client's first use")
    session = SyncSession(pool, owned=False, where="the given pool's server")
    try:
        connection = session.take()
    except psycopg_pool.PoolTimeout as error:
        raise translated(error, None, where=session.where, schema=settings.schema) from error
    try:
        with in_our_manner(connection):
            dressed = cast("Connection", _Dressed(connection))
            learned(dressed, find_out(connection).way)
            several = names_several_hosts(pool.conninfo, pool.kwargs)
            in_a_loop(lambda: prepare_schema(settings, dressed, several=several))
    finally:
        session.give_back(connection)
    return session


@contextmanager
def in_our_manner(connection: SyncConnection) -> Iterator[None]:
    """Set up a connection of somebody else's pool for our statements, and restore its settings at the block's end."""
    before = connection.autocommit, connection.isolation_level, connection.cursor_factory, connection.row_factory
    connection.autocommit = True
    try:
        find_out(connection)
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.cursor_factory, connection.row_factory = psycopg.RawCursor, tuple_row
        yield
    finally:
        connection.cursor_factory, connection.row_factory = before[2:]
        if not connection.closed and connection.pgconn.transaction_status == TransactionStatus.IDLE:
            with suppress(psycopg.Error):  # the connection is broken, and the pool discards it
                connection.isolation_level = before[1]
                connection.autocommit = before[0]


async def _checked(settings: Settings, dsn: str) -> None:
    """Check the server and the schema on an asynchronous connection, which is closed then."""
    first = await connect(dsn)
    try:
        await prepare_schema(settings, first, several=names_several_hosts(dsn))
    finally:
        await first.close()


class _Dressed:
    """A synchronous connection in the dress of an asynchronous one, for the checks and migrations of a schema.

    Its methods block; nothing else runs in the event loop meanwhile.
    """

    def __init__(self, connection: SyncConnection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        """Give what needs no dress, such as `info` and `pgconn`."""
        return getattr(self._connection, name)

    async def execute(self, *given: Any, **how: Any) -> _DressedCursor:
        """Run a statement."""
        return _DressedCursor(self._connection.execute(*given, **how))

    @asynccontextmanager
    async def cursor(self, **how: Any) -> AsyncIterator[_DressedCursor]:
        """A cursor for a block."""
        with self._connection.cursor(**how) as cursor:
            yield _DressedCursor(cursor)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A transaction for a block."""
        with self._connection.transaction():
            yield


class _DressedCursor:
    """A synchronous cursor in the dress of an asynchronous one."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    async def execute(self, *given: Any, **how: Any) -> _DressedCursor:
        """Run a statement."""
        self._cursor.execute(*given, **how)
        return self

    async def fetchone(self) -> Any:
        """Return the next row, or None."""
        return self._cursor.fetchone()

    async def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        return self._cursor.fetchall()
