"""Sets up connections that are not the client's own for its use, and restores their settings afterwards.

Used by every verb that takes a `connection`, and with a pool that was given to the client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import tuple_row

from backfill.client.carrier import AnyConnection
from backfill.client.execute import run
from backfill.storage.statements import DEFAULT_SCHEMA
from backfill.storage.types import Connection

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn


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


async def speak_utf8(connection: AnyConnection, pgconn: PGconn) -> bytes | None:
    """Set the session's encoding to UTF-8, and return the encoding that it had before if that was another one.

    By default, texts of a LATIN1 database are sent in LATIN1.
    """
    before = pgconn.parameter_status(b"client_encoding")
    if before in (None, b"UTF8"):
        return None
    await run(connection, "set_client_encoding", DEFAULT_SCHEMA, ("UTF8",))
    return before


@asynccontextmanager
async def in_utf8(connection: AnyConnection, pgconn: PGconn) -> AsyncIterator[None]:
    """Have a caller's session speak UTF-8 for a block, and after it what it spoke before.

    Args:
        connection: what statements run on.
        pgconn: the same connection as libpq has it.
    """
    encoding = await speak_utf8(connection, pgconn)
    try:
        yield
    finally:
        if encoding is not None:
            await speak_again(connection, encoding)


async def speak_again(connection: AnyConnection, encoding: bytes) -> None:
    """Set the session's encoding to the one that it had before."""
    with suppress(psycopg.Error):  # the transaction has failed: its rollback restores the encoding too
        await run(connection, "set_client_encoding", DEFAULT_SCHEMA, (encoding.decode(),))
