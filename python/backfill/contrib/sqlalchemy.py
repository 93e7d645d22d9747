"""Lends connections of SQLAlchemy's asyncio extension to the client, so that jobs are written in its transactions.

Used by `connection=` of the client's verbs, where a session, a connection or an engine is given, and by
`ctx.transaction(session)`. Its engine is one of
psycopg or of asyncpg. SQLAlchemy begins the transaction, and ends it; between, statements go on the driver's own
connection, so that its errors come out unchanged and a COPY can be sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg

from backfill.client.borrowed import Borrowed
from backfill.client.carrier import AnyConnection, refusal
from backfill.contrib.extras import missing
from backfill.errors import ConfigurationError

try:
    from sqlalchemy import select
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
except ModuleNotFoundError as error:
    raise missing(error, "sqlalchemy") from error


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


class BorrowedSession(Borrowed):
    """An AsyncSession or AsyncConnection, in whose transaction a handler's job is completed."""

    def lent(self) -> AbstractAsyncContextManager[AnyConnection]:
        """What statements run on, in the session's transaction, which begins where none is open."""
        return lend(self.given)

    async def flush(self) -> None:
        """Send what the session has not written yet."""
        if isinstance(self.given, AsyncSession):
            await self.given.flush()

    async def commit(self) -> None:
        """Commit the session's transaction."""
        await self.given.commit()

    async def rollback(self) -> None:
        """Undo the session's transaction."""
        await self.given.rollback()

    async def discard(self) -> None:
        """Close the session's connection, so that the server undoes what was not committed."""
        await self.given.invalidate()


def borrow(given: object) -> Borrowed | None:
    """Borrow a session or a connection for a block that ends its transaction; None for another object."""
    if isinstance(given, async_scoped_session):
        given = given()  # this task's; the block's end may run in another one
    return BorrowedSession(given) if isinstance(given, (AsyncSession, AsyncConnection)) else None


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
