"""Writes rows of jobs for a role without rights on any table, by one call of a producers' function per chunk.

Used by `verb`, once per transaction, instead of `writing`, and by the same rules. While more rows are to come, the
caller's code runs, so rows with keys or with new names wait until the stream is at its end. Rows for which two calls
could wait for each other are then written under a lock of the schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final

from backfill.client.bulk.groups import Placed, by_mode, rounds
from backfill.client.bulk.items import Row
from backfill.client.bulk.transaction import KEPT_BYTES, RowTransaction
from backfill.client.bulk.waiting import Kind, WaitingRow
from backfill.client.carrier import AnyConnection
from backfill.client.execute import repeated, run, with_key_lock
from backfill.client.gathering.rows import gathered
from backfill.client.naming import NameMaker, names_of
from backfill.client.prepare import Parameters
from backfill.errors import BackfillError
from backfill.jobs import JobKeyMode
from backfill.records import time_of_micros
from backfill.storage.arrays import encoded_array, number_array, text_array
from backfill.storage.results import Result, first, integers, integers_by_text
from backfill.storage.results import rows as rows_of

_TRIES: Final = 10


class ProducerTransaction(RowTransaction):
    """One transaction of a producer's bulk call, which writes through functions."""

    _by_functions = True

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
        super().__init__(connection, schema, ids, own=own, maker=maker, tell=tell)
        self._held: tuple[set[str], set[str]] = set(), set()
        self._modes: dict[int, JobKeyMode | None] = {}
        self._keyless_wait = False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the rows that wait; each call of a function notifies the workers of the jobs that it adds."""
        try:
            if error is None:
                await self._write_unique()
                await self._write_postponed()
                added = self._give_unique()
                if added and self._tell:
                    await run(self._connection, "notify_jobs", self._schema, (str(added),))
        except BaseException as late:
            error = late
            raise
        finally:
            await self._waiting.close(error)

    async def write(self, rows: Sequence[Row], *, last: bool) -> None:
        """Write rows, in order; if more are to come, rows that other calls could wait for are postponed.

        Args:
            rows: a chunk of them.
            last: whether no more will come in this transaction.
        """
        await self._set_aside(rows, last=last)
        if last:
            await self._write_postponed()
        self._now = self._clock.now()
        first = 0
        if self._ids is not None:
            first = len(self._ids)
            self._ids.extend([0] * len(rows))
        placed = [
            (first + place, shape, payload) for place, (shape, payload) in enumerate(rows) if shape.unique_for is None
        ]
        if last:
            await self._write_placed(placed, last=True)
            return
        keyless = [row for row in placed if row[1].key is None]
        # Once some rows wait, all later rows wait too, so that the rows of one queue get their ids in order.
        self._keyless_wait = self._keyless_wait or not await self._are_known(keyless)
        if self._keyless_wait:
            await self._postpone(placed)
            return
        await self._write_keyless(keyless)
        await self._postpone([row for row in placed if row[1].key is not None])

    async def pause(self) -> None:
        """Wait until the server has taken all rows, so that the connection is free for other statements."""
        await self._waiting.pause()

    async def _postpone(self, rows: list[Placed]) -> None:
        """Let rows wait in a temporary table; without one, in memory while there is room; without room, write them."""
        if not rows:
            return
        if not self._may_postpone:
            self._kept.append((self._now, rows))
            self._kept_bytes += sum([len(payload) for _, _, payload in rows])
            if self._kept_bytes > KEPT_BYTES:
                await self._write_postponed()
            return
        batches: list[tuple[JobKeyMode | None, list[Placed]]] = []
        keyless = [row for row in rows if row[1].key is None]
        if keyless:
            batches.append((None, keyless))
        for group in rounds(row for row in rows if row[1].key is not None):
            batches += by_mode(group)
        for mode, same in batches:
            self._modes[len(self._waiting)] = mode
            waiting = [WaitingRow(place, self._run_at(shape), shape, payload) for place, shape, payload in same]
            await self._waiting.add([(Kind.REPLACE, waiting)])  # the function takes flags as an array in every mode

    async def _write_postponed(self) -> None:
        """Write the rows that were postponed, in their order; from here on, none of the caller's code runs."""
        kept, self._kept, self._kept_bytes = self._kept, [], 0
        for self._now, rows in kept:
            await self._write_placed(rows, last=False)
        if not self._waiting:
            return
        await self.pause()
        await self._lock()
        for batch, mode in self._modes.items():
            self._give(dict(_by_place(await self._write_batch(str(batch), mode))))
        await self._waiting.drop()
        self._modes = {}

    async def _write_batch(self, batch: str, mode: JobKeyMode | None) -> Result:
        if not self._tell:
            named = await run(self._connection, "find_waiting_names", self._schema, (batch,), prepared=False)
            names = list(rows_of(named))
            lanes = {row.text("queue_name") for row in names}
            await self._have_names({row.word("identifier") for row in names}, {one for one in lanes if one is not None})
        if mode is None and self._tell:
            return await run(self._connection, "producer_add_waiting", self._schema, (batch,), prepared=False)

        async def apply() -> Result:
            async with self._connection.transaction():
                parameters = batch, JobKeyMode.REPLACE.value if mode is None else mode.value
                statement = "producer_apply_waiting" if self._tell else "producer_gather_waiting"
                return await run(self._connection, statement, self._schema, parameters, prepared=False)

        return await repeated(apply)

    async def _write_placed(self, rows: list[Placed], *, last: bool) -> None:
        """Write rows without a temporary table, those without keys first."""
        keyless = [row for row in rows if row[1].key is None]
        await self._find_names(keyless)
        await self._write_keyless(keyless)
        if len(keyless) < len(rows):
            await self._write_keyed([row for row in rows if row[1].key is not None], last=last)

    async def _write_keyless(self, rows: list[Placed]) -> None:
        if rows:
            await self.pause()  # rows with keys may be on their way to the temporary table
            if self._tell:
                added = await run(self._connection, "producer_add_keyless", self._schema, self._columns(rows))
            else:
                added = await self._gather(rows)
            ids = sorted(integers(added, "id"))  # the ids were drawn in the order of the rows
            self._give({place: number for (place, _, _), number in zip(rows, ids, strict=True)})

    async def _write_keyed(self, rows: list[Placed], *, last: bool) -> None:
        """Write rows with keys, by one statement for each mode and for each repetition of a key."""
        statements = [statement for group in rounds(rows) for statement in by_mode(group)]
        deduped = [row for mode, group in statements if mode is JobKeyMode.UNSAFE_DEDUPE for row in group]
        await self._find_names(deduped if self._tell else rows)
        alone = self._own and last and len(statements) == 1 and not self._piped and not self._locked
        if not alone:
            await self._lock()

        async def apply() -> None:
            for mode, group in statements:
                await self._apply(mode, group)

        async def apply_all() -> None:
            # A savepoint, which releases the jobs that it holds when it is undone alone.
            async with self._connection.transaction():
                await apply()

        if alone:
            await with_key_lock(self._connection, self._schema, apply)
        else:  # a worker that ends many jobs locks them in another order, but releases them soon
            await (apply() if self._piped else repeated(apply_all))

    async def _apply(self, mode: JobKeyMode, rows: list[Placed]) -> None:
        """Write rows of one mode, no two of which have the same key."""
        if not self._tell:
            by_key = dict(integers_by_text(await self._gather(rows), "id", "key"))
            self._give({place: by_key[shape.key or ""] for place, shape, _ in rows})
            return
        parameters = *self._columns(rows), text_array([shape.key for _, shape, _ in rows]), mode.value
        added = await run(self._connection, "producer_add_keyed", self._schema, parameters)
        by_key = dict(integers_by_text(added, "added_id", "added_key"))
        self._give({place: by_key[shape.key or ""] for place, shape, _ in rows})

    async def _gather(self, rows: list[Placed]) -> Result:
        """Write rows without telling the workers; their names are held already."""
        name, parameters = gathered([row[1:] for row in rows], tell=False, by_functions=True, patience=None)
        return await run(self._connection, name, self._schema, parameters)

    def _give(self, ids: dict[int, int]) -> None:
        if self._ids is not None:
            for place, number in ids.items():
                self._ids[place] = number

    async def _are_known(self, rows: Sequence[Placed]) -> bool:
        """Tell whether all tasks and queues of some rows exist and are held; make new ones on another connection."""
        tasks, queues = self._unheld(rows)
        if not tasks and not queues:
            return True
        await self.pause()
        if await self._hold(tasks, queues):
            return True
        if self._maker is None:
            return False
        await self._maker.make(tasks, queues)
        return await self._hold(tasks, queues)

    async def _find_names(self, rows: Sequence[Placed]) -> None:
        """Make sure that the tasks and queues of some rows exist until the transaction ends.

        Names are made under the lock of the schema, so that only one transaction makes them at a time.
        """
        await self._have_names(*self._unheld(rows))

    async def _have_names(self, tasks: set[str], queues: set[str]) -> None:
        if not tasks and not queues:
            return
        for _ in range(_TRIES):
            if await self._hold(tasks, queues):
                return
            await self._lock()
            await run(self._connection, "producer_create_tasks", self._schema, (text_array(sorted(tasks)),))
            await run(self._connection, "producer_create_queues", self._schema, (text_array(sorted(queues)),))
        raise BackfillError(f"{min(tasks | queues)!r} or another name was made {_TRIES} times, and deleted as often")

    def _unheld(self, rows: Sequence[Placed]) -> tuple[set[str], set[str]]:
        tasks, queues = names_of([shape for _, shape, _ in rows])
        return tasks - self._held[0], queues - self._held[1]

    async def _hold(self, tasks: set[str], queues: set[str]) -> bool:
        wanted = text_array(sorted(tasks)), text_array(sorted(queues))
        if not first(await run(self._connection, "producer_keep_names", self._schema, wanted)).flag("kept"):
            return False
        self._held[0].update(tasks)
        self._held[1].update(queues)
        return True

    def _columns(self, rows: Sequence[Placed]) -> Parameters:
        shapes = [shape for _, shape, _ in rows]
        return (
            text_array([shape.task for shape in shapes]),
            text_array([shape.queue for shape in shapes]),
            encoded_array([payload for _, _, payload in rows]),
            number_array([shape.priority for shape in shapes]),
            text_array([time_of_micros(self._run_at(shape)).isoformat() for shape in shapes]),
            number_array([shape.max_attempts for shape in shapes]),
            text_array([text_array(shape.flags) if shape.flags else None for shape in shapes]),
        )


def _by_place(result: Result) -> list[tuple[int, int]]:
    return list(zip(integers(result, "place"), integers(result, "id"), strict=True))
