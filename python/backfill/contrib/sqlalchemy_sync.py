"""Sessions and connections of SQLAlchemy, for the synchronous client and for handlers: over psycopg or psycopg2.

Statements go through SQLAlchemy, so that its transaction begins with them, and its events and its log see them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, Final

from backfill.client.borrowed import Borrowed
from backfill.client.carrier import AnyConnection, refusal
from backfill.contrib.dbapi import DriverCarrier, driver_transaction
from backfill.contrib.extras import missing
from backfill.errors import ConfigurationError

try:
    import sqlalchemy
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.orm import Session, scoped_session
except ModuleNotFoundError as error:
    raise missing(error, "sqlalchemy") from error

DRIVERS: Final = ("psycopg", "psycopg2")


class SQLAlchemyCarrier(DriverCarrier):
    """Carries statements on a connection of SQLAlchemy, or on the one that a session has now.

    Args:
        current: gives the connection. It is asked at each statement, since a session has another one after its
            transaction has ended.
    """

    def __init__(self, current: Callable[[], sqlalchemy.Connection]) -> None:
        self._current = current

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, as far as this side knows."""
        connection = self._current()
        return connection.closed or connection.invalidated

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The classes of the errors that come from the driver or the server."""
        driver: Any = self._current().dialect.loaded_dbapi
        return DBAPIError, driver.Error

    @property
    def _driver(self) -> Any:
        return self._current().connection.dbapi_connection

    def _texts(self, text: str, parameters: Sequence[str | None]) -> Sequence[str | None]:
        result = self._current().exec_driver_sql(text, tuple(parameters))
        return [row[0] for row in result] if result.returns_rows else []

    def _block(self) -> AbstractContextManager[object]:
        driver = self._driver
        # In autocommit SQLAlchemy begins no transaction of the server's, so the driver does.
        return driver_transaction(driver) if driver.autocommit else self._current().begin_nested()

    def _send(self, text: str, data: bytes) -> None:
        connection = self._current()
        if not connection.in_transaction():
            connection.begin()  # a COPY goes past SQLAlchemy, which would not know that there is something to commit
        super()._send(text, data)


@asynccontextmanager
async def lend(given: object) -> AsyncIterator[AnyConnection]:
    """Lend what a caller gave to the client: a session or a connection; or an engine, for a transaction of its own.

    Raises:
        ConfigurationError: it is none of these, or the engine is of another database or driver.
    """
    if isinstance(given, sqlalchemy.Engine):
        _check(given.dialect)
        with given.begin() as own:
            yield SQLAlchemyCarrier(lambda: own)
        return
    if isinstance(given, scoped_session):
        given = given()
    if isinstance(given, Session):
        current: Callable[[], sqlalchemy.Connection] = given.connection
    elif isinstance(given, sqlalchemy.Connection):
        connection = given
        current = lambda: connection  # noqa: E731 - a name for what gives the connection
    else:
        raise ConfigurationError(f"connection: {refusal(given, sync=True)}")
    _check(current().dialect)
    yield SQLAlchemyCarrier(current)


class BorrowedSession(Borrowed):
    """A Session or Connection, in whose transaction a handler's job is completed."""

    def lent(self) -> AbstractAsyncContextManager[AnyConnection]:
        """What statements run on, in the session's transaction, which begins where none is open."""
        return lend(self.given)

    async def flush(self) -> None:
        """Send what the session has not written yet."""
        if isinstance(self.given, Session):
            self.given.flush()

    async def commit(self) -> None:
        """Commit the session's transaction."""
        self.given.commit()

    async def rollback(self) -> None:
        """Undo the session's transaction."""
        self.given.rollback()

    async def discard(self) -> None:
        """Close the session's connection, so that the server undoes what was not committed."""
        self.given.invalidate()


def borrow(given: object) -> Borrowed | None:
    """Borrow a session or a connection for a block that ends its transaction; None for another object."""
    if isinstance(given, scoped_session):
        given = given()
    return BorrowedSession(given) if isinstance(given, (Session, sqlalchemy.Connection)) else None


def _check(dialect: sqlalchemy.Dialect) -> None:
    if dialect.is_async:
        raise ConfigurationError(
            f"connection: SQLAlchemy's engine is an asynchronous one, of {dialect.name}+{dialect.driver}, as within "
            "run_sync: give the AsyncSession or the AsyncConnection to BackfillClient"
        )
    if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
        raise ConfigurationError(
            f"connection: SQLAlchemy's engine is of {dialect.name}+{dialect.driver}: the client takes "
            "one of postgresql+psycopg or postgresql+psycopg2"
        )
