"""Writes rows of jobs within one transaction: COPY where it is allowed, else one insert a chunk; jobs with keys by upsert.

Used by `bulk`, once a transaction. Ids of tasks and queues are found, and their rows held, in the transaction that uses
them: a collector may delete a row whose id was remembered from an earlier one.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import psycopg
from psycopg.rows import tuple_row
from psycopg.waiting import Wait

from backfill.client.execute import ids_by_text, integers, moment, run
from backfill.client.items import Row
from backfill.client.prepare import JobShape, flags_json, int_array, text_array
from backfill.errors import BackfillError, SchemaMissingError
from backfill.jobs import JobKeyMode
from backfill.storage.connection import Connection
from backfill.storage.statements import render

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn

REMEMBERED: Final = 20_000
DRAWN_AHEAD: Final = 40_000
_TRIES: Final = 10
Placed = tuple[int, JobShape, bytes]


class Names:
    """The ids of tasks or of queues by name, found and held within one transaction; missing rows are made.

    Args:
        create: the statement that makes what is missing.
        hold: the statement that finds them, for key share.
    """

    def __init__(self, connection: Connection, schema: str, create: str, hold: str) -> None:
        self._connection = connection
        self._schema = schema
        self._create = create
        self._hold = hold
        self._ids: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        """The id of a name that was found before."""
        return self._ids[name]

    def missing(self, names: Iterable[str]) -> set[str]:
        """Those of the names that are not found yet."""
        return set(names) - self._ids.keys()

    async def find(self, names: set[str]) -> None:
        """Find the ids of names, and hold their rows until the transaction ends."""
        if len(self._ids) > REMEMBERED:
            self._ids.clear()
        missing = self.missing(names)
        if not missing:
            return
        for _ in range(_TRIES):
            await self._hold_rows(missing)
            missing = self.missing(names)
            if not missing:
                return
            await self.create(missing)
        raise BackfillError(f"{min(missing)!r} was made {_TRIES} times, and deleted as often")

    async def create(self, names: set[str]) -> None:
        """Make the rows that are missing."""
        if names:
            await run(self._connection, self._create, self._schema, (text_array(sorted(names)),))

    async def _hold_rows(self, names: set[str]) -> None:
        found = await run(self._connection, self._hold, self._schema, (text_array(sorted(names)),))
        self._ids.update(ids_by_text(found))


class BulkTransaction:
    """One transaction of a bulk call; entered once the transaction is begun, left before it is committed.

    Args:
        connection: in a transaction.
        schema: the queue's.
        ids: where the ids go, in the order of the rows; None where nobody asked for them.
    """

    def __init__(self, connection: Connection, schema: str, ids: list[int] | None) -> None:
        self._connection = connection
        self._schema = schema
        self._ids = ids
        self._tasks = tasks(connection, schema)
        self._queues = queues(connection, schema)
        self._copying = AsyncExitStack()
        self._copy: psycopg.AsyncCopy | None = None
        self._prefixes: dict[JobShape, bytes] = {}
        self._drawn: deque[int] = deque()
        self._drew = 0
        self._notify = 0

    async def __aenter__(self) -> Self:
        """Ask the server what must be known first."""
        begun = await run(self._connection, "bulk_begin", self._schema, (self._schema,), binary=True)
        if not begun.ntuples:
            raise SchemaMissingError(f"schema {self._schema!r} has no queue in it: `backfill migrate` makes it")
        refused = begun.get_value(0, 0) == b"\x01"
        self._may_copy = not refused and not self._connection.pgconn.pipeline_status
        self._now, self._delayed_from = moment(begun, 1), moment(begun, 2)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End a COPY that is open (an error undoes it), and tell the workers, once."""
        await self._copying.__aexit__(kind, error, trace)
        if error is None and self._notify:
            await run(self._connection, "notify_jobs", self._schema, (str(self._notify),))

    async def write(self, rows: Sequence[Row]) -> None:
        """Write rows, in order."""
        first = 0
        if self._ids is not None:
            first = len(self._ids)
            self._ids.extend([0] * len(rows))
        placed = [(first + place, shape, payload) for place, (shape, payload) in enumerate(rows)]
        keyless = [row for row in placed if row[1].key is None]
        if keyless:
            await self._write_keyless(keyless)
        if len(keyless) < len(placed):
            for group in rounds([row for row in placed if row[1].key is not None]):
                await self._write_keyed(group)

    async def _write_keyless(self, rows: list[Placed]) -> None:
        await self._find_names(rows)
        self._notify += len(rows)
        if not self._may_copy:
            await self._insert(rows)
        elif self._ids is None:
            await self._copy_block(
                b"".join([b"%b%b\n" % (self._prefix(shape), escaped(payload)) for _, shape, payload in rows])
            )
        else:
            await self._copy_with_ids(rows, self._ids)

    async def _copy_with_ids(self, rows: list[Placed], ids: list[int]) -> None:
        if len(self._drawn) < len(rows):
            await self._draw(len(rows))
        for place, _, _ in rows:
            ids[place] = self._drawn.popleft()
        block = [b"%d\t%b%b\n" % (ids[place], self._prefix(shape), escaped(payload)) for place, shape, payload in rows]
        await self._copy_block(b"".join(block))

    async def _draw(self, wanted: int) -> None:
        """Draw ids, more than are wanted now once it is not the first time: a COPY must end for it, and ids are many."""
        await self._end_copy()
        count = wanted + self._drew
        self._drew = min(DRAWN_AHEAD, 4 * count)
        drawn = await run(self._connection, "draw_job_ids", self._schema, (self._schema, str(count)))
        self._drawn.extend(integers(drawn))

    async def _copy_block(self, block: bytes) -> None:
        if self._copy is None:
            name = "copy_jobs" if self._ids is None else "copy_jobs_with_ids"
            cursor = psycopg.AsyncRawCursor(self._connection, row_factory=tuple_row)
            self._copy = await self._copying.enter_async_context(cursor.copy(render(name, self._schema)))
        await self._copy.write(block)
        # libpq would take any amount into its own memory; what it holds is handed on before the next block is made
        await self._connection.wait(_flushed(self._connection.pgconn))

    async def _end_copy(self) -> None:
        if self._copy is not None:
            self._copy = None
            await self._copying.aclose()

    async def _insert(self, rows: list[Placed]) -> None:
        inserted = integers(await run(self._connection, "insert_jobs", self._schema, self._columns(rows)))
        if self._ids is not None:
            for (place, _, _), id_ in zip(rows, sorted(inserted), strict=True):  # drawn in the order of the rows
                self._ids[place] = id_

    async def _write_keyed(self, rows: list[Placed]) -> None:
        """Write rows of which no two have one key, a statement a mode."""
        await self._end_copy()
        by_mode: dict[JobKeyMode, list[Placed]] = defaultdict(list)
        for row in rows:
            by_mode[row[1].mode].append(row)
        for mode, group in by_mode.items():
            if mode is JobKeyMode.UNSAFE_DEDUPE:
                await self._find_names(group)
                self._notify += len(group)
                parameters = (*self._columns(group), text_array([shape.key for _, shape, _ in group]))
                result = await run(self._connection, "dedupe_jobs", self._schema, parameters)
            else:
                result = await run(self._connection, "add_jobs", self._schema, self._specs(group, mode))
            if self._ids is not None:
                by_key = {key: id_ for key, id_ in ids_by_text(result)}
                for place, shape, _ in group:
                    self._ids[place] = by_key[shape.key or ""]

    async def _find_names(self, rows: list[Placed]) -> None:
        names, lanes = names_of([shape for _, shape, _ in rows])
        if self._tasks.missing(names) or self._queues.missing(lanes):
            await self._end_copy()
            await self._tasks.find(names)
            await self._queues.find(lanes)

    def _prefix(self, shape: JobShape) -> bytes:
        prefix = self._prefixes.get(shape)
        if prefix is None:
            if len(self._prefixes) > REMEMBERED:
                self._prefixes.clear()
            queue = "\\N" if shape.queue is None else str(self._queues[shape.queue])
            flags = flags_json(shape)
            flags = "\\N" if flags is None else escaped(flags.encode()).decode()
            columns = (
                self._tasks[shape.task],
                queue,
                shape.priority,
                self._run_at(shape).isoformat(),
                shape.max_attempts,
            )
            prefix = self._prefixes[shape] = "\t".join([*map(str, columns), flags, ""]).encode()
        return prefix

    def _columns(self, rows: list[Placed]) -> tuple[str, ...]:
        shapes = [shape for _, shape, _ in rows]
        return (
            int_array([self._tasks[shape.task] for shape in shapes]),
            int_array([None if shape.queue is None else self._queues[shape.queue] for shape in shapes]),
            text_array([payload.decode() for _, _, payload in rows]),
            int_array([shape.priority for shape in shapes]),
            text_array([self._run_at(shape).isoformat() for shape in shapes]),
            int_array([shape.max_attempts for shape in shapes]),
            text_array([flags_json(shape) for shape in shapes]),
        )

    def _specs(self, rows: list[Placed], mode: JobKeyMode) -> tuple[str, ...]:
        shapes = [shape for _, shape, _ in rows]
        return (
            text_array([shape.task for shape in shapes]),
            text_array([payload.decode() for _, _, payload in rows]),
            text_array([shape.queue for shape in shapes]),
            text_array([self._run_at(shape).isoformat() for shape in shapes]),
            int_array([shape.max_attempts for shape in shapes]),
            text_array([shape.key for shape in shapes]),
            int_array([shape.priority for shape in shapes]),
            text_array([text_array(shape.flags) if shape.flags else None for shape in shapes]),
            "true" if mode is JobKeyMode.PRESERVE_RUN_AT else "false",
        )

    def _run_at(self, shape: JobShape) -> datetime:
        if shape.run_at is not None:
            return shape.run_at
        return self._now if shape.delay is None else self._delayed_from + shape.delay


def _flushed(pgconn: PGconn) -> PQGen[None]:
    while pgconn.flush():
        while not (yield Wait.W):
            pass


def tasks(connection: Connection, schema: str) -> Names:
    """The ids of tasks, as one transaction sees them."""
    return Names(connection, schema, "create_tasks", "hold_tasks")


def queues(connection: Connection, schema: str) -> Names:
    """The ids of serial queues, as one transaction sees them."""
    return Names(connection, schema, "create_queues", "hold_queues")


def names_of(shapes: Iterable[JobShape]) -> tuple[set[str], set[str]]:
    """The names of the tasks and of the serial queues of some jobs."""
    distinct = set(shapes)
    return {shape.task for shape in distinct}, {shape.queue for shape in distinct if shape.queue is not None}


def rounds(rows: Iterable[Placed]) -> Iterator[list[Placed]]:
    """Rows with keys in groups in which no key comes twice; a key's rows stay in their order from group to group."""
    groups: list[list[Placed]] = []
    seen: dict[str | None, int] = defaultdict(int)
    for row in rows:
        turn = seen[row[1].key]
        seen[row[1].key] += 1
        if turn == len(groups):
            groups.append([])
        groups[turn].append(row)
    yield from groups


def escaped(payload: bytes) -> bytes:
    """JSON as a column of COPY text."""
    return payload.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r").replace(b"\t", b"\\t")
