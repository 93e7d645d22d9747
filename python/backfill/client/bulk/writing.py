"""Writes rows of jobs within one transaction, by COPY where it is allowed, else by one insert per chunk.

Jobs with keys are written by upsert.

Used by `verb`, once per transaction. While more rows are to come, the caller's code runs, so the transaction holds
nothing that another call could wait for: rows with keys or with new names wait (`waiting`) until the stream is at its
end. Two calls could wait for each other's keys and new names, so these are then written under a lock of the schema.
Keys that take only one statement need no such lock: the statement locks them in an order that all calls share, and
releases what it holds before it waits for long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final

from backfill._native import copy_prefix
from backfill.client.bulk.copying import stream_of
from backfill.client.bulk.groups import Placed, by_mode, rounds
from backfill.client.bulk.items import CHUNK_BYTES, CHUNK_ROWS, Row
from backfill.client.bulk.transaction import KEPT_BYTES, RowTransaction
from backfill.client.bulk.waiting import KIND_OF, Kind, WaitingRow
from backfill.client.carrier import AnyConnection
from backfill.client.execute import array_of_int8, repeated, run, with_key_lock
from backfill.client.gathering.rows import gathered
from backfill.client.naming import NameMaker, names_of, queues, tasks
from backfill.client.prepare import JobShape, Parameters, flags_json
from backfill.jobs import JobKeyMode
from backfill.records import time_of_micros
from backfill.storage.arrays import encoded_array, number_array, text_array
from backfill.storage.results import Result, integers, integers_by_text
from backfill.storage.results import rows as rows_of

DRAWN_AHEAD: Final = 40_000


class BulkTransaction(RowTransaction):
    """One transaction of a bulk call, which writes to the tables directly."""

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
        self._tasks = tasks(connection, schema, self._lock)
        self._queues = queues(connection, schema, self._lock)
        self._stream = stream_of(connection, "copy_jobs" if ids is None else "copy_jobs_with_ids", schema)
        self._prefixes: dict[JobShape, bytes] = {}
        self._kept_rows = 0
        self._places = 0
        self._saw_new = False
        self._drawn: deque[int] = deque()
        self._drew = 0
        self._notify = 0

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the rows that wait, end an open COPY (an error undoes it), and notify the workers once."""
        try:
            if error is None:
                await self._write_unique()
                await self._write_postponed()
                self._notify += self._give_unique()
        except BaseException as late:
            error = late
            raise
        finally:
            try:
                await self._waiting.close(error)
            finally:
                await self._stream.close(error)
        if error is None and self._notify and self._tell:
            await run(self._connection, "notify_jobs", self._schema, (str(self._notify),))

    async def write(self, rows: Sequence[Row], *, last: bool) -> None:
        """Write rows, in order; rows that are sent by COPY may still be on their way when the call returns.

        If more rows are to come, the transaction afterwards holds nothing that another call could wait for: rows with
        keys, and rows whose tasks or queues are new, are postponed until there are no more rows.

        Args:
            rows: a chunk of them.
            last: whether no more will come in this transaction.
        """
        await self._set_aside(rows, last=last)
        if last:
            await self._write_postponed()
        self._now = self._clock.now()
        self._prefixes.clear()
        first, self._places = self._places, self._places + len(rows)
        if self._ids is not None:
            first = len(self._ids)
            self._ids.extend([0] * len(rows))
        shapes = {shape for shape, _ in rows}
        keyless = {shape for shape in shapes if shape.key is None}
        if not last:
            deduped = {shape for shape in shapes - keyless if shape.mode is JobKeyMode.UNSAFE_DEDUPE}
            await self._look_for_names(keyless | deduped)
            self._saw_new = self._saw_new or any(map(self._is_new, deduped))
        if len(keyless) == len(shapes) and (last or not any(map(self._is_new, keyless))):
            await self._write_keyless(rows, range(first, first + len(rows)))
            return
        placed = [
            (first + place, shape, payload) for place, (shape, payload) in enumerate(rows) if shape.unique_for is None
        ]
        if last:
            await self._write_placed(placed, last=True)
            return
        ready = [row for row in placed if row[1].key is None and not self._is_new(row[1])]
        if ready:
            await self._write_keyless([row[1:] for row in ready], [place for place, _, _ in ready])
        await self._postpone([row for row in placed if row[1].key is not None or self._is_new(row[1])])

    async def pause(self) -> None:
        """Wait until the server has taken all rows, so that the connection is free for other statements."""
        await self._stream.end()
        await self._waiting.pause()

    async def _postpone(self, rows: list[Placed]) -> None:
        """Let rows wait: up to a chunk in memory, more in a temporary table.

        If no table can be made, the rows wait in memory until there is no more room, and are then written at once.
        """
        self._kept.append((self._now, rows))
        self._kept_rows += len(rows)
        self._kept_bytes += sum([len(payload) for _, _, payload in rows])
        if not self._may_postpone:
            if self._kept_bytes > KEPT_BYTES:
                await self._write_postponed()
        elif self._kept_rows >= CHUNK_ROWS or self._kept_bytes >= CHUNK_BYTES:
            await self._send_kept()

    def _take_kept(self) -> list[tuple[int, list[Placed]]]:
        kept, self._kept, self._kept_rows, self._kept_bytes = self._kept, [], 0, 0
        return kept

    async def _send_kept(self) -> None:
        """Send the rows that wait in memory to the temporary table."""
        new: list[WaitingRow] = []
        keyed: list[Placed] = []
        run_ats: dict[int, int] = {}
        for now, rows in self._take_kept():
            self._now = now
            for place, shape, payload in rows:
                if shape.key is None:
                    new.append(WaitingRow(place, self._run_at(shape), shape, payload))
                else:
                    keyed.append((place, shape, payload))
                    run_ats[place] = self._run_at(shape)
        batches: list[tuple[Kind, list[WaitingRow]]] = []
        if new:
            ids = await self._draw(len(new))  # drawn now, so that the rows of one queue have their ids in order
            self._give([row.place for row in new], ids)
            self._notify += len(new)
            batches.append((Kind.KEYLESS, [row._replace(place=id_) for row, id_ in zip(new, ids, strict=True)]))
        for group in rounds(keyed):
            for mode, same in by_mode(group):
                batches.append((KIND_OF[mode], [WaitingRow(row[0], run_ats[row[0]], *row[1:]) for row in same]))
        await self._stream.end()
        await self._waiting.add(batches)

    async def _write_postponed(self) -> None:
        """Write the rows that were postponed, in their order; from here on, none of the caller's code runs."""
        if self._waiting:
            await self.pause()
            await self._lock()
            for batch, kind in self._waiting.batches():
                if kind is not Kind.UNIQUE:
                    await self._write_batch(batch, kind)
            await self._waiting.drop()
        for now, rows in self._take_kept():
            self._now = now
            self._prefixes.clear()
            await self._write_placed(rows, last=False)

    async def _write_batch(self, batch: int, kind: Kind) -> None:
        number = str(batch)
        if kind is Kind.KEYLESS or (kind is Kind.UNSAFE_DEDUPE and self._saw_new) or not self._tell:
            named = await run(self._connection, "find_waiting_names", self._schema, (number,), prepared=False)
            names = list(rows_of(named))
            lanes = {row.text("queue_name") for row in names} - {None}
            await self._make_names(
                {row.word("identifier") for row in names}, {lane for lane in lanes if lane is not None}
            )
        if kind is Kind.KEYLESS:
            await run(self._connection, "insert_waiting", self._schema, (number,), prepared=False)
            return

        async def apply() -> Result:
            async with self._connection.transaction():
                if kind is Kind.UNSAFE_DEDUPE:
                    return await run(self._connection, "dedupe_waiting", self._schema, (number,), prepared=False)
                if not self._tell:
                    mode = JobKeyMode.PRESERVE_RUN_AT if kind is Kind.PRESERVE_RUN_AT else JobKeyMode.REPLACE
                    parameters = number, mode.value
                    return await run(self._connection, "gather_waiting", self._schema, parameters, prepared=False)
                preserve = "true" if kind is Kind.PRESERVE_RUN_AT else "false"
                return await run(self._connection, "add_waiting", self._schema, (number, preserve), prepared=False)

        result = await repeated(apply)
        if kind is Kind.UNSAFE_DEDUPE:
            self._notify += result.ntuples
        if self._ids is not None:
            for place, id_ in zip(integers(result, "place"), integers(result, "id"), strict=True):
                self._ids[place] = id_

    async def _write_placed(self, placed: list[Placed], *, last: bool) -> None:
        """Write rows of all kinds, those without keys first."""
        keyless = [row for row in placed if row[1].key is None]
        if keyless:
            await self._write_keyless([row[1:] for row in keyless], [place for place, _, _ in keyless])
        keyed = [row for row in placed if row[1].key is not None]
        if keyed:
            await self._write_keyed(keyed, last=last)

    async def _write_keyless(self, rows: Sequence[Row], places: Sequence[int]) -> None:
        await self._find_names({shape for shape, _ in rows})
        self._notify += len(rows)
        await self._waiting.pause()
        if not self._may_copy:
            added = await run(self._connection, "insert_jobs", self._schema, self._columns(rows))
            inserted = integers(added, "id")
            self._give(places, sorted(inserted))  # the ids were drawn in the order of the rows
            return
        ids = None
        if self._ids is not None:
            ids = await self._draw(len(rows))
            self._give(places, ids)
        prefixes = [self._prefixes.get(shape) or self._prefix(shape) for shape, _ in rows]
        await self._stream.write(prefixes, [payload for _, payload in rows], ids)

    def _give(self, places: Iterable[int], ids: Iterable[int]) -> None:
        if self._ids is not None:
            for place, id_ in zip(places, ids, strict=True):
                self._ids[place] = id_

    async def _draw(self, wanted: int) -> list[int]:
        """Draw ids; from the second time on, more than are wanted now.

        A COPY must end before ids can be drawn, so this happens rarely; it costs little to draw too many ids.
        """
        if len(self._drawn) < wanted:
            await self.pause()
            count = wanted + self._drew
            self._drew = min(DRAWN_AHEAD, 4 * count)
            drawn = await run(self._connection, "draw_job_ids", self._schema, (self._schema, str(count)), binary=True)
            self._drawn.extend(array_of_int8(drawn))
        return [self._drawn.popleft() for _ in range(wanted)]

    async def _write_keyed(self, rows: list[Placed], *, last: bool) -> None:
        """Write rows with keys, by one statement for each mode and for each repetition of a key."""
        await self.pause()
        statements = [statement for group in rounds(rows) for statement in by_mode(group)]
        deduped = [shape for mode, group in statements if mode is JobKeyMode.UNSAFE_DEDUPE for _, shape, _ in group]
        await self._find_names(deduped if self._tell else [shape for _, shape, _ in rows])
        piped = self._piped
        alone = self._own and last and len(statements) == 1 and not piped and not self._locked
        if not alone:
            await self._lock()

        async def apply() -> None:
            for mode, group in statements:
                await self._apply(mode, group)

        async def apply_all() -> None:
            async with (
                self._connection.transaction()
            ):  # a savepoint, which releases the jobs that it holds when it is undone alone
                await apply()

        if alone:
            await with_key_lock(self._connection, self._schema, apply)
        else:  # a worker that ends many jobs locks them in another order, but releases them soon
            await (apply() if piped else repeated(apply_all))
        self._notify += len(deduped)

    async def _apply(self, mode: JobKeyMode, rows: list[Placed]) -> None:
        """Write rows of one mode, no two of which have the same key."""
        if mode is JobKeyMode.UNSAFE_DEDUPE:
            parameters = (*self._columns([row[1:] for row in rows]), text_array([row[1].key for row in rows]))
            result = await run(self._connection, "dedupe_jobs", self._schema, parameters)
        elif not self._tell:
            statement = gathered([row[1:] for row in rows], tell=False, by_functions=False, patience=None)
            result = await run(self._connection, statement[0], self._schema, statement[1])
        else:
            result = await run(self._connection, "add_jobs", self._schema, self._specs(rows, mode))
        if self._ids is not None:
            by_key = dict(integers_by_text(result, "id", "key"))
            for place, shape, _ in rows:
                self._ids[place] = by_key[shape.key or ""]

    def _is_new(self, shape: JobShape) -> bool:
        """Tell whether a job's task or queue did not exist when it was looked for."""
        return shape.task not in self._tasks or not (shape.queue is None or shape.queue in self._queues)

    async def _look_for_names(self, shapes: Iterable[JobShape]) -> None:
        names, lanes = names_of(shapes)
        if self._tasks.unseen(names) or self._queues.unseen(lanes):
            await self.pause()
            new, new_lanes = await self._tasks.look(names), await self._queues.look(lanes)
            if self._maker is not None and (new or new_lanes):
                await self._maker.make(new, new_lanes)
                await self._tasks.look_again(new)
                await self._queues.look_again(new_lanes)

    async def _find_names(self, shapes: Iterable[JobShape]) -> None:
        await self._make_names(*names_of(shapes))

    async def _make_names(self, names: set[str], lanes: set[str]) -> None:
        if self._tasks.missing(names) or self._queues.missing(lanes):
            await self.pause()
            await self._tasks.find(names)
            await self._queues.find(lanes)

    def _prefix(self, shape: JobShape) -> bytes:
        flags = flags_json(shape.flags)
        prefix = self._prefixes[shape] = copy_prefix(
            self._tasks[shape.task],
            None if shape.queue is None else self._queues[shape.queue],
            shape.priority,
            self._run_at(shape),
            shape.max_attempts,
            None if flags is None else flags.encode(),
        )
        return prefix

    def _columns(self, rows: Sequence[Row]) -> Parameters:
        shapes = [shape for shape, _ in rows]
        return (
            number_array([self._tasks[shape.task] for shape in shapes]),
            number_array([None if shape.queue is None else self._queues[shape.queue] for shape in shapes]),
            encoded_array([payload for _, payload in rows]),
            number_array([shape.priority for shape in shapes]),
            text_array([time_of_micros(self._run_at(shape)).isoformat() for shape in shapes]),
            number_array([shape.max_attempts for shape in shapes]),
            text_array([flags_json(shape.flags) for shape in shapes]),
        )

    def _specs(self, rows: list[Placed], mode: JobKeyMode) -> Parameters:
        shapes = [shape for _, shape, _ in rows]
        return (
            text_array([shape.task for shape in shapes]),
            encoded_array([payload for _, _, payload in rows]),
            text_array([shape.queue for shape in shapes]),
            text_array([time_of_micros(self._run_at(shape)).isoformat() for shape in shapes]),
            number_array([shape.max_attempts for shape in shapes]),
            text_array([shape.key for shape in shapes]),
            number_array([shape.priority for shape in shapes]),
            text_array([text_array(shape.flags) if shape.flags else None for shape in shapes]),
            "true" if mode is JobKeyMode.PRESERVE_RUN_AT else "false",
        )
