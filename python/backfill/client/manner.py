"""Sets up connections that are not the client's own for its use, and restores their settings afterwards.

Used by every verb that takes a `connection`, and with a pool that was given to the client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import psycopg
from psycopg.rows import tuple_row

from backfill.client.execute import run
from backfill.errors import ConfigurationError
from backfill.storage.statements import DEFAULT_SCHEMA
from backfill.storage.types import Connection


@asynccontextmanager
async def in_our_manner(connection: Connection) -> AsyncIterator[None]:
    """Set up a caller's connection as `storage` expects it, and restore its settings at the end of the block."""
    before = connection.row_factory, connection.cursor_factory, connection.autocommit
    connection.row_factory, connection.cursor_factory = tuple_row, psycopg.AsyncRawCursor
    try:
        await connection.set_autocommit(True)
        yield
    finally:
        connection.row_factory, connection.cursor_factory = before[:2]
        with suppress(psycopg.Error):
            await connection.set_autocommit(before[2])


async def speak_utf8(connection: Connection) -> bytes | None:
    """Set the session's encoding to UTF-8, and return the encoding that it had before if that was another one.

    By default, texts of a LATIN1 database are sent in LATIN1.
    """
    before = connection.pgconn.parameter_status(b"client_encoding")
    if before in (None, b"UTF8"):
        return None
    await run(connection, "set_client_encoding", DEFAULT_SCHEMA, ("UTF8",))
    return before


async def speak_again(connection: Connection, encoding: bytes) -> None:
    """Set the session's encoding to the one that it had before."""
    with suppress(psycopg.Error):  # the transaction has failed: its rollback restores the encoding too
        await run(connection, "set_client_encoding", DEFAULT_SCHEMA, (encoding.decode(),))


def checked_connection(connection: object) -> Connection:
    """Return what a caller gave as a connection, if it is one.

    Raises:
        ConfigurationError: it is not an asynchronous connection of psycopg.
    """
    if not isinstance(connection, psycopg.AsyncConnection):
        raise ConfigurationError(f"connection: expected a psycopg.AsyncConnection, got {_named(connection)}")
    return connection


_BY_SQL: Final = (
    "add the job by SQL in its transaction: select graphile_worker.add_job('task', payload => '{...}'::json, "
    "max_attempts => 8)"
)
_WAYS_OUT: Final = {
    "sqlalchemy.ext.asyncio": "with an engine of postgresql+psycopg:// pass "
    "(await (await session.connection()).get_raw_connection()).driver_connection, of an AsyncConnection "
    "(await connection.get_raw_connection()).driver_connection; with another driver, such as asyncpg, "
    f"{_BY_SQL}",
    "sqlalchemy.pool": "pass its .driver_connection, which must be one of psycopg's: the engine's address begins with "
    "postgresql+psycopg://",
    "sqlalchemy": "its transaction is a synchronous one; use SQLAlchemy's asyncio extension with "
    "postgresql+psycopg://, or "
    f"{_BY_SQL}",
    "asyncpg": f"a job cannot be added in its transaction by this client; {_BY_SQL}",
    "psycopg2": _BY_SQL,
    "psycopg_pool": "pass a pool as BackfillClient(pool=...), or one of its connections: "
    "async with pool.connection() as c",
    "psycopg": f"a synchronous connection; open it by psycopg.AsyncConnection.connect, or {_BY_SQL}",
    "django": f"use a cursor of it: with connection.cursor() as cursor: cursor.execute(...); {_BY_SQL}",
}
"""What a caller with another library's connection can do, by the module of its class; longer names come first."""


def _named(connection: object) -> str:
    """Describe what was given, and what to pass instead."""
    kind = type(connection)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    for base in kind.__mro__:
        for module, way in _WAYS_OUT.items():
            if base.__module__ == module or base.__module__.startswith(f"{module}."):
                return f"{name}: {way}"
    return name
