"""Lends connections of asyncpg to the client, so that jobs are written in transactions that asyncpg began.

Used by `connection=` of the client's verbs, where a connection or a pool of asyncpg is given, and by the module for
SQLAlchemy, for engines that use asyncpg.
"""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any, Final, TypeAlias

from backfill.client.carrier import AnyConnection, Carrier, refusal
from backfill.client.prepare import Parameters
from backfill.contrib.extras import missing
from backfill.errors import BackfillError, ConfigurationError
from backfill.storage.carried import carried, result_of
from backfill.storage.results import Result
from backfill.storage.statements import load

try:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy
except ModuleNotFoundError as error:
    raise missing(error, "asyncpg") from error

_Given: TypeAlias = "asyncpg.Connection[Any] | PoolConnectionProxy[Any]"
_COPY: Final = re.compile(r"^copy (?P<schema>\S+)\.(?P<table>\w+) \((?P<columns>[^)]+)\)", re.MULTILINE)


class AsyncpgCarrier(Carrier):
    """Carries statements on a connection of asyncpg.

    Args:
        connection: the connection, or a pool's proxy of it.
    """

    def __init__(self, connection: _Given) -> None:
        self._connection = connection

    @property
    def copies(self) -> bool:
        """Whether a COPY's data is read as UTF-8, as it is written."""
        return str(self._connection.get_settings().client_encoding).upper() == "UTF8"

    async def run(self, name: str, schema: str, parameters: Parameters = (), *, binary: bool = False) -> Result:
        """Run a statement by its name, and return its result, in text format unless `binary` is set."""
        statement = carried(name, schema, "numeric", binary=binary)
        rows = await self._connection.fetch(statement.text, *statement.bind(parameters), record_class=asyncpg.Record)
        return result_of(statement, [row[0] for row in rows] if statement.gives_rows else ())

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A savepoint where a transaction is open; else a transaction that is committed at the block's end."""
        return self._connection.transaction()

    async def copy(self, name: str, schema: str, data: bytes) -> None:
        """Send the data of one COPY BINARY statement by its name, from the header to the trailer."""
        temporary, table, columns = _copied(name)
        await self._connection.copy_to_table(
            table,
            source=io.BytesIO(data),
            columns=columns,
            schema_name="pg_temp" if temporary else schema,
            format="binary",
        )

    @property
    def autocommit(self) -> bool:
        """Whether no transaction is open: each statement then commits by itself."""
        return self.idle

    @property
    def idle(self) -> bool:
        """Whether no transaction is open."""
        return not self._connection.is_in_transaction()

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, as far as this side knows."""
        return self._connection.is_closed()

    @property
    def known_by(self) -> object:
        """The connection itself: a pool's proxy cannot be held weakly, and there is a new one at each `acquire()`."""
        return getattr(self._connection, "_con", self._connection) or self

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The classes of the errors that come from the driver or the server."""
        return asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError


def lend(given: object) -> AbstractAsyncContextManager[AnyConnection]:
    """Lend a connection of asyncpg to the client for a block; of a pool, one with a transaction of its own.

    Raises:
        ConfigurationError: it is another object of asyncpg.
    """
    if isinstance(given, (asyncpg.Connection, PoolConnectionProxy)):
        return _itself(given)
    if isinstance(given, asyncpg.Pool):
        return _of_pool(given)
    raise ConfigurationError(f"connection: {refusal(given, sync=False)}")


@asynccontextmanager
async def _itself(connection: _Given) -> AsyncIterator[AnyConnection]:
    yield AsyncpgCarrier(connection)


@asynccontextmanager
async def _of_pool(pool: asyncpg.Pool[Any]) -> AsyncIterator[AnyConnection]:
    async with pool.acquire() as connection, connection.transaction(isolation="read_committed"):
        yield AsyncpgCarrier(connection)


@cache
def _copied(name: str) -> tuple[bool, str, tuple[str, ...]]:
    """Read from a COPY statement whether its table is a temporary one, the table's name and those of the columns."""
    found = _COPY.search(load(name).text)
    if found is None:
        raise BackfillError(f"statement {name!r}: it is no COPY of columns of a table")
    columns = tuple(column.strip() for column in found["columns"].split(","))
    return found["schema"] == "pg_temp", found["table"], columns
