"""Our own sessions compile no statements: where the table is large, that takes longer than the statement itself."""

from __future__ import annotations

from typing import LiteralString, cast

import psycopg

from backfill import BackfillClient
from backfill.storage.connection import connect

from plugins.pooler import MakePooler, assert_sessions_are_clean
from reading import rows, value

ALTER: LiteralString = "select format('alter database %I set jit = on', current_database())"


async def test_our_sessions_compile_nothing(dsn: str) -> None:
    """Whatever the database says; a connection of the caller's is left as it is."""
    await rows(dsn, cast("LiteralString", str(await value(dsn, ALTER))))
    async with await connect(dsn) as connection:
        cursor = await connection.execute("show jit")
        assert await cursor.fetchone() == ("off",)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection, BackfillClient(dsn) as client:
        await client.enqueue("t", connection=connection)
        cursor = await connection.execute("show jit")
        assert await cursor.fetchone() == ("on",)


async def test_a_poolers_sessions_are_left_as_they_are(dsn: str, make_pooler: MakePooler) -> None:
    """Others use them next."""
    await rows(dsn, cast("LiteralString", str(await value(dsn, ALTER))))
    pooled = make_pooler(dsn)
    async with BackfillClient(pooled) as client:
        await client.enqueue("t")
    await assert_sessions_are_clean(pooled)
