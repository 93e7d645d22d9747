"""Connections of psycopg2 itself, for the synchronous client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

from backfill.client.carrier import AnyConnection, refusal
from backfill.contrib.dbapi import DriverCarrier, driver_transaction, fetched_by
from backfill.contrib.extras import missing
from backfill.errors import ConfigurationError

try:
    import psycopg2
    from psycopg2.extensions import connection as Psycopg2Connection  # noqa: N812 - a class in small letters
    from psycopg2.extensions import cursor as Psycopg2Cursor  # noqa: N812 - see above
    from psycopg2.pool import AbstractConnectionPool
except ModuleNotFoundError as error:
    raise missing(error, "psycopg2") from error


class Psycopg2Carrier(DriverCarrier):
    """Carries statements on a connection of psycopg2, in autocommit or not.

    Args:
        connection: the connection.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The classes of the errors that come from the driver or the server."""
        return (psycopg2.Error,)

    @property
    def _driver(self) -> Any:
        return self._connection

    def _texts(self, text: str, parameters: Sequence[str | None]) -> Sequence[str | None]:
        # A cursor of the plain kind: rows of the program's own kind, such as dicts, have no first value.
        with self._connection.cursor(cursor_factory=Psycopg2Cursor) as cursor:
            return fetched_by(cursor, text, parameters)

    def _block(self) -> AbstractContextManager[object]:
        return driver_transaction(self._connection)


@asynccontextmanager
async def lend(given: object) -> AsyncIterator[AnyConnection]:
    """Lend what a caller gave to the client: a connection; or a pool, for a transaction of its own.

    Raises:
        ConfigurationError: it is neither, or is an asynchronous connection.
    """
    if isinstance(given, AbstractConnectionPool):
        own = given.getconn()
        try:
            with own:
                yield Psycopg2Carrier(own)
        finally:
            given.putconn(own)
        return
    if not isinstance(given, Psycopg2Connection):
        raise ConfigurationError(f"connection: {refusal(given, sync=True)}")
    if given.async_:
        raise ConfigurationError(
            "connection: psycopg2's connection was made with async_=True, and its calls do not wait for their results: "
            "give one that was made without"
        )
    yield Psycopg2Carrier(given)
