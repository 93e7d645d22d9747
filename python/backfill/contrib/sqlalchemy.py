"""Lends connections of SQLAlchemy's asyncio extension to the client, so that jobs are written in its transactions.

Used by `connection=` of the client's verbs, where a session, a connection or an engine is given. Its engine is one of
psycopg or of asyncpg. SQLAlchemy begins the transaction, and ends it; between, statements go on the driver's own
connection, so that its errors come out unchanged and a COPY can be sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session

from backfill.client.carrier import AnyConnection, refusal
from backfill.errors import ConfigurationError


def lend(given: object) -> AbstractAsyncContextManager[AnyConnection]:
    """Lend what stands behind a session or a connection to the client for a block; of an engine, a new transaction.

    Raises:
        ConfigurationError: it is another object of SQLAlchemy.
    """
    if isinstance(given, (AsyncSession, async_scoped_session)):
        return _of_session(given)
    if isinstance(given, AsyncConnection):
        return _of_connection(given)
    if isinstance(given, AsyncEngine):
        return _of_engine(given)
    raise ConfigurationError(f"connection: {refusal(given, sync=False)}")


@asynccontextmanager
async def _of_session(session: AsyncSession | async_scoped_session[AsyncSession]) -> AsyncIterator[AnyConnection]:
    # Asked at each call: a session makes the savepoint of `begin_nested()` only when its connection is next used.
    async with _of_connection(await session.connection()) as carried:
        yield carried


@asynccontextmanager
async def _of_engine(engine: AsyncEngine) -> AsyncIterator[AnyConnection]:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="READ COMMITTED")
        async with connection.begin(), _of_connection(connection) as carried:
            yield carried


@asynccontextmanager
async def _of_connection(connection: AsyncConnection) -> AsyncIterator[AnyConnection]:
    if not connection.in_transaction():
        await connection.begin()  # as the first statement of SQLAlchemy's own would do, so that its commit() commits
    driven: Any = (await connection.get_raw_connection()).driver_connection
    if isinstance(driven, psycopg.AsyncConnection):
        yield driven
        return
    if connection.dialect.driver != "asyncpg":
        raise ConfigurationError(
            "connection: expected one of an engine for postgresql+psycopg:// or postgresql+asyncpg://, "
            f"got one for {connection.dialect.name}+{connection.dialect.driver}://"
        )
    from backfill.contrib import asyncpg  # noqa: PLC0415 - only programs with asyncpg can import it

    if not driven.is_in_transaction():
        await connection.scalar(select(1))  # the transaction begins on asyncpg with SQLAlchemy's own first statement
    async with asyncpg.lend(driven) as carried:
        yield carried
