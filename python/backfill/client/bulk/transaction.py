"""The part that both ways of writing a bulk call's rows share.

That is: what a transaction must know first, when jobs are due, and the lock of the schema.

It is the base of `writing` and `producers`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Self

from backfill.client.bulk.clock import ServerClock
from backfill.client.bulk.copying import may_copy
from backfill.client.bulk.groups import Placed
from backfill.client.bulk.waiting import WaitingRows
from backfill.client.carrier import AnyConnection, is_piped
from backfill.client.execute import run
from backfill.client.naming import NameMaker
from backfill.client.prepare import JobShape
from backfill.errors import SchemaMissingError
from backfill.storage.results import binary_rows
from backfill.storage.rows import micros

KEPT_BYTES: Final = 16_000_000
"""How many bytes of payloads may wait in memory, if no temporary table can be made."""
_MICROSECOND: Final = timedelta(microseconds=1)


class RowTransaction:
    """One transaction of a bulk call; enter it after the transaction is begun, and leave it before it is committed.

    Args:
        connection: the connection, in a transaction.
        schema: the queue's schema.
        ids: the list that receives the ids, in the order of the rows; None if nobody asked for them.
        own: whether the transaction has only this call's statements; one that the caller began may have others.
        maker: makes names on another connection; None if there is no such connection, so that rows with new names wait.
    """

    def __init__(
        self,
        connection: AnyConnection,
        schema: str,
        ids: list[int] | None,
        *,
        own: bool,
        maker: NameMaker | None = None,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._ids = ids
        self._own = own
        self._maker = maker
        self._locked = False
        self._waiting = WaitingRows(connection, schema)
        self._kept: list[tuple[int, list[Placed]]] = []
        self._kept_bytes = 0
        self._now = 0
        self._piped = False
        self._may_copy = False
        self._may_postpone = False

    async def __aenter__(self) -> Self:
        """Ask the server for what the transaction must know first."""
        await self._begin()
        return self

    async def _begin(self) -> None:
        """Ask the server for what the transaction must know first: the time, and what is possible in this transaction.

        Raises:
            SchemaMissingError: the schema has no queue in it.
        """
        begun = await run(self._connection, "bulk_begin", self._schema, (self._schema,), binary=True)
        found = list(binary_rows(begun))
        if not found:
            raise SchemaMissingError(f"schema {self._schema!r} has no queue in it: `backfill migrate` makes it")
        [row] = found
        self._clock = ServerClock(row.integer("now"))
        self._piped = is_piped(self._connection)
        copies = may_copy(self._connection)
        self._may_copy = copies and not row.flag("filtered")
        self._may_postpone = copies and row.flag("may_postpone")
        if not row.flag("sees_commits"):  # this transaction would not see names that another connection makes
            self._maker = None

    async def _lock(self) -> None:
        """Become the only transaction, until it ends, that makes names or writes keys in more than one statement."""
        if not self._locked:
            await run(self._connection, "lock_keys", self._schema)
            self._locked = True

    def _run_at(self, shape: JobShape) -> int:
        """Return when a job of this chunk is due, in PostgreSQL's microseconds."""
        if shape.run_at is not None:
            return micros(shape.run_at)
        return self._now if shape.delay is None else self._now + shape.delay // _MICROSECOND
