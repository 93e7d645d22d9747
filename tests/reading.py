"""Reading a database from a test, on a connection that nothing else uses meanwhile.

A test that waits for something asks again and again, and a connection costs more than most questions. So one connection
is kept for the next question; it is closed at the test's end.
"""

from __future__ import annotations

import asyncio
import select
from typing import Any, LiteralString

import psycopg

_kept: dict[tuple[asyncio.AbstractEventLoop, str], psycopg.AsyncConnection] = {}


async def rows(dsn: str, query: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
    """What a query gives."""
    key = (asyncio.get_running_loop(), dsn)
    connection = _kept.pop(key, None)
    if connection is not None and _is_spent(connection):
        await connection.close()
        connection = None
    if connection is None:
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=None)
    try:
        cursor = await connection.execute(query, parameters or None)
        found = await cursor.fetchall() if cursor.description else []
    except BaseException:
        await connection.close()
        raise
    # Another statement may set something for new sessions.
    if not query.lstrip().startswith(("select", "show")) or _kept.setdefault(key, connection) is not connection:
        await connection.close()
    return found


def _is_spent(connection: psycopg.AsyncConnection) -> bool:
    """Whether it was closed, or the server has said something of itself: mostly that it ends the connection."""
    return connection.closed or bool(select.select([connection.fileno()], [], [], 0)[0])


def close_kept() -> None:
    """Close the connections that are kept."""
    while _kept:
        _, connection = _kept.popitem()
        connection.pgconn.finish()


async def value(dsn: str, query: LiteralString, *parameters: Any) -> Any:
    """The first column of a query's only row.

    A query with which a test waits for something has an aggregate, so that it always gives a row.
    """
    [[found]] = [row[:1] for row in await rows(dsn, query, *parameters)]
    return found


async def lookers(dsn: str, name: str = "backfill results") -> int:
    """How many connections of that name have looked for ends, and have done nothing since: somebody awaits a result.

    They are known by a word of `find_ends` in its first 1,024 bytes, which are all that the server tells.
    """
    looked: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name = %s and state = 'idle' and query ~ 'as waits'
    """
    return int(await value(dsn, looked, name))
