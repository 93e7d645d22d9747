"""Connections of psycopg2 itself, for the synchronous client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

from backfill.client.carrier import AnyConnection, refusal
from backfill.contrib.dbapi import DriverCarrier, driver_transaction, fetched
from backfill.contrib.extras import missing
from backfill.errors import ConfigurationError

try:
    import psycopg2
    from psycopg2.extensions import connection as Psycopg2Connection  # noqa: N812 - a class in small letters
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
        return fetched(self._connection, text, parameters)

    def _block(self) -> AbstractContextManager[object]:
        return driver_transaction(self._connection)


@asynccontextmanager
async def lend(given: object) -> AsyncIterator[AnyConnection]:
    """Lend what a caller gave to the client: a connection; or a pool, for a transaction of its own.

    Raises:
        ConfigurationError: it is neither.
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
    yield Psycopg2Carrier(given)
