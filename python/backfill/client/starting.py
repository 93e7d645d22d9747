"""Opens a client: a first connection checks the server and the schema, then a pool is made or the given one is used.

Used by `connect`, which decides when a client opens and when it closes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg_pool

from backfill.client.execute import translated
from backfill.client.manner import in_our_manner
from backfill.client.session import Session
from backfill.errors import ConfigurationError, DatabaseConnectionError
from backfill.storage.connection import connect, redacted, resolve
from backfill.storage.isolation import read_committed
from backfill.storage.pasted import is_function, pasted
from backfill.storage.pool import PatientPool
from backfill.storage.schema.migrate import migrate
from backfill.storage.schema.state import check_schema
from backfill.storage.statements import quoted_schema
from backfill.storage.types import Connection, Dsn, Pool
from backfill.storage.writable import names_several_hosts, refuse_read_only

DSN_VARIABLE: Final = "DATABASE_URL"
_CHECK_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The arguments with which a client was made.

    Attributes:
        dsn: a connection string, or a callable that gives one; None for DATABASE_URL, or if a pool is given.
        schema: the queue's schema.
        pool: the given pool, if there is one.
        migrate: whether opening brings the schema up to date.
        min_size: how many connections are kept while they are not in use.
        max_size: the largest number of connections.
    """

    dsn: Dsn | None
    schema: str
    pool: psycopg_pool.AsyncConnectionPool[Any] | None
    migrate: bool
    min_size: int
    max_size: int

    @classmethod
    def checked(
        cls,
        dsn: Dsn | None,
        *,
        schema: str,
        pool: psycopg_pool.AsyncConnectionPool[Any] | None,
        migrate: bool,
        min_size: int,
        max_size: int,
    ) -> Settings:
        """Check a client's arguments and return them.

        Raises:
            ConfigurationError: an argument cannot be used; the error names it.
        """
        if dsn is not None and pool is not None:
            raise ConfigurationError("dsn and pool: give one of them; a pool has its own connection string")
        if dsn is not None and not is_function(dsn):
            dsn = pasted("dsn", dsn)
        if pool is not None and not isinstance(pool, psycopg_pool.AsyncConnectionPool):
            raise ConfigurationError(f"pool: expected a psycopg_pool.AsyncConnectionPool, got {type(pool).__name__}")
        quoted_schema(schema)
        _check_sizes(min_size, max_size)
        return cls(dsn, schema, pool, migrate, min_size, max_size)


async def start(settings: Settings, *, patience: float, max_idle: float) -> Session:
    """Connect, check the server and the schema, and return the session of an open client.

    Args:
        settings: the arguments with which the client was made.
        patience: seconds for which a call waits for a connection in use, before another one is made.
        max_idle: seconds after which an unused connection is closed, unless it is one of those that are kept.
    """
    if settings.pool is not None:
        return await _adopt(settings, settings.pool)
    dsn = settings.dsn or os.environ.get(DSN_VARIABLE)
    if not dsn:
        raise ConfigurationError(f"dsn: none was given and {DSN_VARIABLE} is not set")
    resolved = await resolve(dsn)
    first = await connect(resolved)
    try:
        await prepare_schema(settings, first, several=names_several_hosts(resolved))
    finally:
        await first.close()
    pool = PatientPool(dsn, min_size=settings.min_size, max_size=settings.max_size, max_idle=max_idle)
    where = redacted(resolved)
    try:
        await pool.open(wait=True)  # a call that finds no connection ready would make the pool open another one
    except psycopg_pool.PoolTimeout as error:
        await pool.close()
        raise translated(error, None, where=where, schema=settings.schema) from error
    except BaseException:
        await pool.close()
        raise
    return Session(pool, owned=True, where=where, keeps=settings.min_size > 0, patience=patience)


async def _adopt(settings: Settings, pool: Pool) -> Session:
    if pool.closed:
        raise ConfigurationError("pool: it is not open; `await pool.open()` before the client's first use")
    session = Session(pool, owned=False, where="the given pool's server", keeps=False)
    try:
        async with pool.connection() as connection, in_our_manner(connection), read_committed(connection):
            await prepare_schema(settings, connection, several=names_several_hosts(pool.conninfo, pool.kwargs))
    except psycopg_pool.PoolTimeout as error:
        raise translated(error, None, where=session.where, schema=settings.schema) from error
    return session


async def prepare_schema(settings: Settings, connection: Connection, *, several: bool) -> None:
    """Check the server and the schema, and bring the schema up to date if the settings say so.

    Args:
        settings: the arguments with which the client was made.
        connection: a connection in autocommit.
        several: whether the DSN names several hosts.
    """
    if not several:  # among several, the driver looks for one that takes writes, and waits for a failover
        async with _answering(connection):
            await refuse_read_only(connection)
    if settings.migrate:
        await migrate(connection, schema=settings.schema)
    async with _answering(connection):
        await check_schema(connection, schema=settings.schema)


@asynccontextmanager
async def _answering(connection: Connection) -> AsyncIterator[None]:
    """Limit the time for a server's answer, since a server that takes connections may still never answer."""
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            yield
    except TimeoutError as error:
        where = redacted(connection.info.dsn)
        raise DatabaseConnectionError(f"PostgreSQL at {where} gave no answer in {_CHECK_SECONDS:g} s") from error


def _check_sizes(min_size: object, max_size: object) -> None:
    for name, value, least in (("min_size", min_size, 0), ("max_size", max_size, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigurationError(f"{name} = {value!r}: expected an integer of at least {least}")
    if min_size > max_size:  # type: ignore[operator]
        raise ConfigurationError(f"min_size = {min_size}: expected at most max_size ({max_size})")
