"""What the carriers of synchronous drivers share: psycopg and psycopg2, as other libraries hold their connections.

Their methods never wait for an event loop: the caller's thread is blocked while the server works.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from io import BytesIO
from typing import Any

from backfill.client.carrier import Carrier, entered
from backfill.client.prepare import Parameters
from backfill.storage.carried import carried, result_of
from backfill.storage.results import Result
from backfill.storage.statements import DEFAULT_SCHEMA, render

_IDLE = 0
"""The status of a connection without a transaction, as libpq numbers them."""


class DriverCarrier(Carrier):
    """Carries statements on a connection of psycopg or psycopg2 that a library, or the program itself, holds.

    Without autocommit, a block of `transaction` is always a savepoint: the transaction around it is the caller's, also
    where the savepoint is its first statement.
    """

    @property
    def copies(self) -> bool:
        """Whether a COPY's data is read as UTF-8, as it is written.

        The session's encoding is not changed for it: psycopg2 would go on to write texts in the one that it knows.
        """
        return bool(self._driver.info.parameter_status("client_encoding") == "UTF8")

    async def run(self, name: str, schema: str, parameters: Parameters = (), *, binary: bool = False) -> Result:
        """Run a statement by its name and return its result; errors come out as the library raises them."""
        statement = carried(name, schema, "format", binary=binary)
        return result_of(statement, self._texts(statement.text, statement.bind(parameters)))

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A savepoint where a transaction is open; else a transaction that is committed at the block's end."""
        return entered(self._block())

    async def copy(self, name: str, schema: str, data: bytes) -> None:
        """Send the data of one COPY BINARY statement, header and trailer included."""
        self._send(render(name, schema), data)

    @property
    def autocommit(self) -> bool:
        """Whether no transaction is open and each statement commits by itself."""
        return bool(self._driver.autocommit) and self.idle

    @property
    def idle(self) -> bool:
        """Whether no transaction is open on the server."""
        return int(self._driver.info.transaction_status) == _IDLE

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, as far as this side knows."""
        return bool(self._driver.closed)

    @property
    def known_by(self) -> object:
        """The driver's own connection, on which it is remembered what the role may do."""
        return self._driver

    @property
    @abstractmethod
    def _driver(self) -> Any:
        """The driver's own connection."""

    @abstractmethod
    def _texts(self, text: str, parameters: Sequence[str | None]) -> Sequence[str | None]:
        """Run a statement, and return the only value of each row that it gives."""

    @abstractmethod
    def _block(self) -> AbstractContextManager[object]:
        """What `transaction` enters."""

    def _send(self, text: str, data: bytes) -> None:
        send_copy(self._driver, text, data)


def fetched_by(cursor: Any, text: str, parameters: Sequence[str | None]) -> Sequence[str | None]:
    """Run a statement by a cursor whose rows are tuples, and return the only value of each row that it gives."""
    cursor.execute(text, tuple(parameters))
    return [row[0] for row in cursor.fetchall()] if cursor.description else []


def send_copy(driver: Any, text: str, data: bytes) -> None:
    """Send all data of a COPY statement on a connection of psycopg or psycopg2."""
    with driver.cursor() as cursor:
        if hasattr(cursor, "copy_expert"):
            cursor.copy_expert(text, BytesIO(data))
            return
        with cursor.copy(text) as copy:
            copy.write(data)


@contextmanager
def driver_transaction(driver: Any) -> Iterator[None]:
    """A transaction of the driver's own, or a savepoint in the one that is open.

    Args:
        driver: a connection of psycopg in autocommit, or any connection of psycopg2.
    """
    if hasattr(driver, "transaction"):
        with driver.transaction():
            yield
    elif driver.autocommit and int(driver.info.transaction_status) == _IDLE:
        with driver:  # the driver begins a transaction at the first statement, and ends it with the block
            _run(driver, "be_read_committed")
            yield
    else:
        _run(driver, "savepoint")
        try:
            yield
        except BaseException:
            if not driver.closed:
                _run(driver, "rollback_to_savepoint")
                _run(driver, "release_savepoint")
            raise
        _run(driver, "release_savepoint")


def _run(driver: Any, name: str) -> None:
    with driver.cursor() as cursor:
        cursor.execute(render(name, DEFAULT_SCHEMA))
