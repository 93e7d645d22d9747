"""Reading a database from a test, on a connection of its own."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg


async def rows(dsn: str, query: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
    """What a query gives."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(query, parameters or None)
        return await cursor.fetchall() if cursor.description else []


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
