"""Programs with a driver of their own, in whose transactions jobs are written: the asynchronous ones.

Each host is one way to hold a connection. Tests ask all hosts for the same: to open a transaction, to write into the
table `mine`, and to end the transaction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

import asyncpg
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

TABLE = "create table if not exists mine (id int)"
MINE = "insert into mine values (1)"
WRONG = "select 1/0"


class Host(ABC):
    """A program with a connection of its own.

    Attributes:
        given: what it gives as `connection=`.
        errors: the errors that its driver raises for a statement of a verb.
    """

    given: Any
    errors: ClassVar[type[Exception]]

    @classmethod
    @abstractmethod
    def opened(cls, dsn: str) -> AbstractAsyncContextManager[Host]:
        """A host with a connection, outside a transaction."""

    @abstractmethod
    async def execute(self, statement: str) -> None:
        """Run a statement of the program's own."""

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A transaction; an error in the block undoes it."""

    @abstractmethod
    def savepoint(self) -> AbstractAsyncContextManager[object]:
        """A savepoint; an error in the block undoes it."""


class PsycopgHost(Host):
    """psycopg's asynchronous connection."""

    errors: ClassVar[type[Exception]] = psycopg.Error

    @classmethod
    @asynccontextmanager
    async def opened(cls, dsn: str) -> AsyncIterator[Host]:
        """A host with a connection in autocommit."""
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            host = cls()
            host.given = connection
            yield host

    async def execute(self, statement: str) -> None:
        """Run a statement of the program's own."""
        await self.given.execute(statement)

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A transaction; an error in the block undoes it."""
        transaction: AbstractAsyncContextManager[object] = self.given.transaction()
        return transaction

    savepoint = transaction


class AsyncpgHost(PsycopgHost):
    """asyncpg's connection, which writes transactions as psycopg does."""

    errors = asyncpg.PostgresError

    @classmethod
    @asynccontextmanager
    async def opened(cls, dsn: str) -> AsyncIterator[Host]:
        """A host with a connection outside a transaction."""
        host = cls()
        host.given = await asyncpg.connect(**asyncpg_keywords(dsn))
        try:
            yield host
        finally:
            await host.given.close()


class AsyncpgPoolHost(AsyncpgHost):
    """A connection of asyncpg's pool, whose codecs for JSON and for times are the program's own."""

    @classmethod
    @asynccontextmanager
    async def opened(cls, dsn: str) -> AsyncIterator[Host]:
        """A host with a pool's connection."""
        async with (
            asyncpg.create_pool(**asyncpg_keywords(dsn), min_size=1, max_size=1, init=_own_codecs) as pool,
            pool.acquire() as lent,
        ):
            host = cls()
            host.given = lent
            yield host


class SessionHost(Host):
    """SQLAlchemy's asynchronous session over psycopg."""

    errors: ClassVar[type[Exception]] = psycopg.Error
    driver: ClassVar = "psycopg"

    @classmethod
    @asynccontextmanager
    async def opened(cls, dsn: str) -> AsyncIterator[Host]:
        """A host with a session, which has used no connection yet."""
        engine = engine_of(dsn, cls.driver)
        try:
            async with AsyncSession(engine) as session:
                host = cls()
                host.given = session
                yield host
        finally:
            await engine.dispose()

    async def execute(self, statement: str) -> None:
        """Run a statement of the program's own."""
        await self.given.execute(text(statement))

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A transaction; an error in the block undoes it."""
        transaction: AbstractAsyncContextManager[object] = self.given.begin()
        return transaction

    def savepoint(self) -> AbstractAsyncContextManager[object]:
        """A savepoint; an error in the block undoes it."""
        savepoint: AbstractAsyncContextManager[object] = self.given.begin_nested()
        return savepoint


class AsyncpgSessionHost(SessionHost):
    """SQLAlchemy's asynchronous session over asyncpg."""

    errors = asyncpg.PostgresError
    driver = "asyncpg"


class ConnectionHost(SessionHost):
    """SQLAlchemy's asynchronous connection over psycopg."""

    @classmethod
    @asynccontextmanager
    async def opened(cls, dsn: str) -> AsyncIterator[Host]:
        """A host with a connection, which has run nothing yet."""
        engine = engine_of(dsn, cls.driver)
        try:
            async with engine.connect() as connection:
                host = cls()
                host.given = connection
                yield host
        finally:
            await engine.dispose()


class AsyncpgConnectionHost(ConnectionHost):
    """SQLAlchemy's asynchronous connection over asyncpg."""

    errors = asyncpg.PostgresError
    driver = "asyncpg"


HOSTS: list[type[Host]] = [
    PsycopgHost,
    AsyncpgHost,
    AsyncpgPoolHost,
    SessionHost,
    AsyncpgSessionHost,
    ConnectionHost,
    AsyncpgConnectionHost,
]
"""All that tests run with."""
COMMITTING: list[type[SessionHost]] = [SessionHost, AsyncpgSessionHost, ConnectionHost, AsyncpgConnectionHost]
"""Those that begin a transaction with the first statement, and end it by `commit()` or `rollback()`."""


def engine_of(dsn: str, driver: str) -> AsyncEngine:
    """An engine of SQLAlchemy."""
    return create_async_engine(url_of(dsn, driver))


def url_of(dsn: str, driver: str) -> URL:
    """The address of a server as SQLAlchemy writes it; the host may be a folder of sockets."""
    parts = asyncpg_keywords(dsn)
    return URL.create(
        f"postgresql+{driver}",
        username=parts["user"],
        password=parts["password"],
        database=parts["database"],
        query={"host": parts["host"], "port": str(parts["port"])},
    )


def asyncpg_keywords(dsn: str) -> dict[str, Any]:
    """The same as keywords of asyncpg."""
    parts = conninfo_to_dict(dsn)
    return {
        "host": parts.get("host"),
        "port": int(parts.get("port") or 5432),
        "user": parts.get("user"),
        "password": parts.get("password"),
        "database": parts.get("dbname"),
    }


@asynccontextmanager
async def psycopg_pool(dsn: str) -> AsyncIterator[object]:
    """A pool of psycopg."""
    async with AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False) as pool:
        yield pool


@asynccontextmanager
async def asyncpg_pool(dsn: str) -> AsyncIterator[object]:
    """A pool of asyncpg."""
    async with asyncpg.create_pool(**asyncpg_keywords(dsn), min_size=1, max_size=1, init=_own_codecs) as pool:
        yield pool


@asynccontextmanager
async def psycopg_engine(dsn: str) -> AsyncIterator[object]:
    """An engine of SQLAlchemy over psycopg."""
    engine = engine_of(dsn, "psycopg")
    yield engine
    await engine.dispose()


@asynccontextmanager
async def asyncpg_engine(dsn: str) -> AsyncIterator[object]:
    """An engine of SQLAlchemy over asyncpg, in autocommit."""
    engine = engine_of(dsn, "asyncpg")
    yield engine.execution_options(isolation_level="AUTOCOMMIT")
    await engine.dispose()


POOLS = [psycopg_pool, asyncpg_pool, psycopg_engine, asyncpg_engine]
"""What gives a transaction of its own to each call."""
OWN_ERRORS: tuple[type[Exception], ...] = (psycopg.Error, asyncpg.PostgresError, DBAPIError)
"""What the drivers raise for a statement of the program's own."""


async def _own_codecs(connection: asyncpg.Connection[Any]) -> None:
    for kind in ("json", "jsonb", "timestamptz", "int8"):
        await connection.set_type_codec(kind, schema="pg_catalog", encoder=repr, decoder=repr)
