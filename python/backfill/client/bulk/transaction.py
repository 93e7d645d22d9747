"""The part that both ways of writing a bulk call's rows share.

That is: what a transaction must know first, when jobs are due, and the lock of the schema.

It is the base of `writing` and `producers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar, Final, Self

from backfill.client.bulk.clock import ServerClock
from backfill.client.bulk.copying import may_copy
from backfill.client.bulk.groups import Placed
from backfill.client.bulk.items import Row
from backfill.client.bulk.reserving import ReservingRows, Written
from backfill.client.bulk.waiting import WaitingRow, WaitingRows
from backfill.client.carrier import AnyConnection, is_piped
from backfill.client.execute import repeated, run
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
        tell: whether the workers are notified.

    Attributes:
        kept: the settings of the rows with `unique_for` that were not added, because their keys are reserved.
    """

    _by_functions: ClassVar[bool] = False

    def __init__(
        self,
        connection: AnyConnection,
        schema: str,
        ids: list[int] | None,
        *,
        own: bool,
        maker: NameMaker | None = None,
        tell: bool = True,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._ids = ids
        self._own = own
        self._maker = maker
        self._tell = tell
        self._locked = False
        self._waiting = WaitingRows(connection, schema)
        self.kept: list[JobShape] = []
        self._reserving = ReservingRows(connection, schema, self._waiting, by_functions=self._by_functions)
        self._reserved: list[Written] = []
        self._kept: list[tuple[int, list[Placed]]] = []
        self._kept_bytes = 0
        self._seen = 0
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

    async def pause(self) -> None:
        """Wait until the server has taken all rows, so that the connection is free for other statements."""
        raise NotImplementedError

    async def _set_aside(self, rows: Sequence[Row], *, last: bool) -> None:
        """Keep the rows with `unique_for` until there are no more rows, and write them then."""
        first = self._seen if self._ids is None else len(self._ids)
        self._seen += len(rows)  # rows of several chunks wait together, so no two of them may have one place
        unique = [(first + place, *row) for place, row in enumerate(rows) if row[0].unique_for is not None]
        if unique:
            self._now = self._clock.now()
            self._reserving.keep(
                [WaitingRow(place, self._run_at(shape), shape, payload) for place, shape, payload in unique]
            )
        if last:
            await self._write_unique()
        elif self._may_postpone and self._reserving.is_full:
            await self.pause()
            await self._reserving.send()
        elif not self._may_postpone and self._reserving.bytes > KEPT_BYTES:
            await self._write_unique()

    async def _write_unique(self) -> None:
        """Write the rows with `unique_for`, before all other rows that wait; see `reserving`."""
        if not self._reserving:
            return
        await self.pause()
        await self._lock()

        if self._may_postpone:
            await self._reserving.send_many()

        async def write() -> Written:
            # A savepoint, which releases the jobs that it holds when it is undone alone.
            async with self._connection.transaction():
                return await self._reserving.write()

        written = await (self._reserving.write() if self._piped else repeated(write))
        self._reserving.forget()
        self._reserved.append(written)
        self.kept += written.kept

    def _give_unique(self) -> int:
        """Put the ids of the rows with `unique_for` in their places, and return how many of these jobs were added."""
        for written in self._reserved:
            if self._ids is not None:
                for place, number in written.ids.items():
                    self._ids[place] = number
        return sum([written.added for written in self._reserved])

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
