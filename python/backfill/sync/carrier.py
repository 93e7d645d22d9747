"""Carries the client's statements on a synchronous connection of psycopg.

Its methods are coroutines that never wait for an event loop, as `client.carrier` asks of the carriers of synchronous
drivers: the caller's thread is blocked while the server works.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from backfill.client.carrier import Carrier, entered
from backfill.client.execute import EncodedText
from backfill.errors import BackfillError
from backfill.storage.connection import is_alive
from backfill.storage.pooler import Way
from backfill.storage.statements import render
from backfill.sync.connecting import OwnConnection, known_of
from backfill.sync.types import SyncConnection

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from backfill.client.prepare import Parameters


class PsycopgCarrier(Carrier):
    """Carries statements on a synchronous connection of psycopg, whatever its row factory, cursor or mode.

    Args:
        connection: the connection; one thread at a time uses it.
    """

    def __init__(self, connection: SyncConnection) -> None:
        self._connection = connection

    @property
    def copies(self) -> bool:
        """Whether `copy` works; the client sets these sessions to UTF-8, so only pipeline mode prevents it."""
        return not self.piped

    @property
    def piped(self) -> bool:
        """Whether the connection is in pipeline mode."""
        return bool(self._connection.pgconn.pipeline_status)

    async def run(self, name: str, schema: str, parameters: Parameters = (), *, binary: bool = False) -> PGresult:
        """Run a statement by its name and return libpq's result; the driver's errors come out unchanged."""
        cursor = psycopg.RawCursor(self._connection, row_factory=tuple_row)
        if any(isinstance(value, bytes) for value in parameters):
            cursor.adapters.register_dumper(bytes, EncodedText)
        prepare = False if known_of(self._connection).way is Way.POOLED else None
        # Leaving a pipeline block waits for the results, also where the caller's own block goes on.
        with self._connection.pipeline() if self.piped else self._by_itself():
            cursor.execute(render(name, schema), parameters, prepare=prepare, binary=binary)
        if cursor.pgresult is None:
            raise BackfillError(f"statement {name!r}: the driver gave no result")
        return cursor.pgresult

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """A savepoint within an open transaction; else a transaction that is committed at the block's end."""
        return entered(self._connection.transaction())

    async def copy(self, name: str, schema: str, data: bytes) -> None:
        """Send the data of one COPY BINARY statement, header and trailer included."""
        cursor = psycopg.RawCursor(self._connection)
        with cursor.copy(render(name, schema)) as copy:
            copy.write(data)

    @property
    def autocommit(self) -> bool:
        """Whether no transaction is open and each statement commits by itself."""
        return self._connection.autocommit and self.idle

    @property
    def idle(self) -> bool:
        """Whether no transaction is open."""
        return self._connection.pgconn.transaction_status == TransactionStatus.IDLE

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, by either side as far as the socket shows.

        Where the driver finds that the socket is lost while it waits, it raises an error and leaves its state as it is.
        A forked child must not look at its parent's socket, since it would take the server's answers from it.
        """
        inherited = isinstance(self._connection, OwnConnection) and self._connection.is_inherited
        return inherited or not is_alive(self._connection)

    @property
    def known_by(self) -> object:
        """By what is remembered what the connection's role may do."""
        return self._connection

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The classes of the driver's errors."""
        return (psycopg.Error,)

    def _by_itself(self) -> AbstractContextManager[object]:
        """A transaction at `read committed`, where the statement alone would run at another level."""
        if known_of(self._connection).committed or not self.autocommit:
            return nullcontext()
        return self._connection.transaction()
