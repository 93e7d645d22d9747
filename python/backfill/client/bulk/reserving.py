"""The rows with `unique_for` of one transaction of a bulk call.

Used by `transaction`. From the moment when such rows are written they hold the reservations of their keys, for which
other calls may wait. So they are written when the stream is at its end; until then they wait in memory, and where there
are many in the temporary table. They are written in the order of their keys, before all other rows with keys, since
whoever needs both takes the reservation first and the job second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from backfill.client.bulk.groups import by_mode, rounds
from backfill.client.bulk.items import CHUNK_BYTES, CHUNK_ROWS
from backfill.client.bulk.waiting import Kind, WaitingRow, WaitingRows
from backfill.client.carrier import AnyConnection
from backfill.client.execute import run
from backfill.client.prepare import JobShape
from backfill.client.unique import add_reserving
from backfill.errors import BackfillError
from backfill.jobs import JobKeyMode
from backfill.records import time_of_micros
from backfill.storage.arrays import number_array, text_array
from backfill.storage.results import rows as rows_of

FEW: Final = 8
"""So many rows are written one by one; for more, a temporary table costs less."""


@dataclass(slots=True)
class Written:
    """What came of rows with `unique_for`.

    Attributes:
        added: how many jobs were added, or applied to waiting jobs.
        kept: the settings of those that were not added, because their keys are reserved.
        ids: by the place of each row, the id of the job that has the key.
    """

    added: int = 0
    kept: list[JobShape] = field(default_factory=list)
    ids: dict[int, int] = field(default_factory=dict)


class ReservingRows:
    """Keeps the rows until they are written.

    Args:
        connection: the connection, in a transaction.
        schema: the queue's schema.
        waiting: the rows of the same transaction that wait in the temporary table.
        by_functions: whether the connection's role is a producer's.
    """

    def __init__(self, connection: AnyConnection, schema: str, waiting: WaitingRows, *, by_functions: bool) -> None:
        self._connection = connection
        self._schema = schema
        self._waiting = waiting
        self._by_functions = by_functions
        self._rows: list[WaitingRow] = []
        self._modes: dict[int, JobKeyMode] = {}
        self._shapes: dict[int, JobShape] = {}  # of the rows in the table, by their places
        self.bytes = 0

    def __bool__(self) -> bool:
        """Whether any rows are to be written."""
        return bool(self._rows or self._modes)

    @property
    def is_full(self) -> bool:
        """Whether as many rows are in memory as a chunk has."""
        return len(self._rows) >= CHUNK_ROWS or self.bytes >= CHUNK_BYTES

    def keep(self, rows: Sequence[WaitingRow]) -> None:
        """Keep rows in memory."""
        self._rows += rows
        self.bytes += sum([len(row.payload) for row in rows])

    async def send(self) -> None:
        """Send the rows in memory to the temporary table; no other COPY may be under way."""
        rows, self._rows, self.bytes = self._rows, [], 0
        by_place = {row.place: row for row in rows}
        self._shapes.update((row.place, row.shape) for row in rows)
        # The table has no key twice in a batch.
        for group in rounds((row.place, row.shape, row.payload) for row in rows):
            for mode, same in by_mode(group):
                self._modes[len(self._waiting)] = mode
                await self._waiting.add([(Kind.UNIQUE, [by_place[place] for place, _, _ in same])])

    async def send_many(self) -> None:
        """Send the rows in memory to the temporary table, unless there are few; the connection is free afterwards."""
        if self._modes or len(self._rows) > FEW:
            await self.send()
            await self._waiting.pause()

    async def write(self) -> Written:
        """Write all rows, which are in the table or in memory; if this is undone, the call may be repeated.

        Raises:
            BackfillError: another program's add_job or add_jobs lost the race for a key.
        """
        return await (self._write_waiting() if self._modes else self._write_one_by_one())

    def forget(self) -> None:
        """Forget the rows, because they are written."""
        self._rows, self._modes, self._shapes, self.bytes = [], {}, {}, 0

    async def _write_waiting(self) -> Written:
        statement = "producer_add_unique_waiting" if self._by_functions else "add_unique_waiting"
        parameters = number_array(list(self._modes)), text_array([mode.value for mode in self._modes.values()])
        written = Written()
        for row in rows_of(await run(self._connection, statement, self._schema, parameters, prepared=False)):
            written.ids[row.whole("place")] = row.whole("id")
            if row.flag("kept"):
                written.kept.append(self._shapes[row.whole("place")])
            else:
                written.added += 1
        wanted = len(self._shapes)
        if lost := wanted - written.added - len(written.kept):
            raise BackfillError(
                f"{lost} of {wanted} jobs with unique_for: add_jobs gave no row; their keys are being fought over"
            )
        return written

    async def _write_one_by_one(self) -> Written:
        written = Written()
        for place, run_at, shape, payload in sorted(
            self._rows, key=lambda row: ((row.shape.key or "").encode(), row.place)
        ):
            done = await add_reserving(
                self._connection, self._schema, replace(shape, run_at=time_of_micros(run_at), delay=None), payload,
                own=False, tell=False, by_functions=self._by_functions,
            )  # fmt: skip
            written.ids[place] = done.job.id
            if done.is_kept:
                written.kept.append(shape)
            else:
                written.added += 1
        return written
