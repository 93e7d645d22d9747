"""Connections that are not the client's own, or that somebody set up: used in our manner, and then as they were.

Used by every verb that takes a `connection`, and where a pool was given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
from psycopg.rows import tuple_row

from backfill.client.execute import run
from backfill.errors import ConfigurationError
from backfill.storage.connection import Connection
from backfill.storage.statements import DEFAULT_SCHEMA


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


async def speak_utf8(connection: Connection) -> bytes | None:
    """Have the session's texts in UTF-8: in what they were before, where they were not; a LATIN1 database's are LATIN1."""
    before = connection.pgconn.parameter_status(b"client_encoding")
    if before in (None, b"UTF8"):
        return None
    await run(connection, "set_client_encoding", DEFAULT_SCHEMA, ("UTF8",))
    return before


async def speak_again(connection: Connection, encoding: bytes) -> None:
    """Have the session's texts in the encoding that they had before."""
    with suppress(psycopg.Error):  # of a transaction that failed: its rollback puts this back too
        await run(connection, "set_client_encoding", DEFAULT_SCHEMA, (encoding.decode(),))


def checked_connection(connection: object) -> Connection:
    """What a caller gave as a connection.

    Raises:
        ConfigurationError: it is none of psycopg's asynchronous ones.
    """
    if not isinstance(connection, psycopg.AsyncConnection):
        raise ConfigurationError(f"connection: expected a psycopg.AsyncConnection, got {type(connection).__name__}")
    return connection
