"""Writes rows of jobs within one transaction: COPY where it is allowed, else one insert a chunk; jobs with keys by upsert.

Used by `bulk`, once a transaction. What two calls could make each other wait for in a ring, keys and new names, is
written under a lock of the schema, unless it takes only one statement: that goes by an order that all share, and lets go
of what it holds before it waits for long.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from backfill._native import copy_prefix
from backfill.client.copying import CopyStream
from backfill.client.execute import array_of_int8, ids_by_text, in_turn, integers, repeated, run
from backfill.client.items import Row
from backfill.client.naming import names_of, queues, tasks
from backfill.client.prepare import JobShape, flags_json
from backfill.errors import SchemaMissingError
from backfill.jobs import JobKeyMode
from backfill.records import time_of_micros
from backfill.storage.arrays import number_array, text_array
from backfill.storage.connection import Connection
from backfill.storage.rows import micros
from backfill.storage.values import integer

DRAWN_AHEAD: Final = 40_000
MICROSECOND: Final = timedelta(microseconds=1)
Placed = tuple[int, JobShape, bytes]


class BulkTransaction:
    """One transaction of a bulk call; entered once the transaction is begun, left before it is committed.

    Args:
        connection: in a transaction.
        schema: the queue's.
        ids: where the ids go, in the order of the rows; None where nobody asked for them.
        own: whether the transaction has this call's statements only, as the caller's has not.
    """

    def __init__(self, connection: Connection, schema: str, ids: list[int] | None, *, own: bool) -> None:
        self._connection = connection
        self._schema = schema
        self._ids = ids
        self._own = own
        self._locked = False
        self._tasks = tasks(connection, schema, self._lock)
        self._queues = queues(connection, schema, self._lock)
        self._stream = CopyStream(connection, "copy_jobs" if ids is None else "copy_jobs_with_ids", schema)
        self._prefixes: dict[JobShape, bytes] = {}
        self._drawn: deque[int] = deque()
        self._drew = 0
        self._notify = 0

    async def __aenter__(self) -> Self:
        """Ask the server what must be known first."""
        begun = await run(self._connection, "bulk_begin", self._schema, (self._schema,), binary=True)
        if not begun.ntuples:
            raise SchemaMissingError(f"schema {self._schema!r} has no queue in it: `backfill migrate` makes it")
        self._clock = ServerClock(integer(begun, 0, 1))
        refused = begun.get_value(0, 0) == b"\x01"
        self._may_copy = not refused and not self._connection.pgconn.pipeline_status
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End a COPY that is open (an error undoes it), and tell the workers, once."""
        await self._stream.close(error)
        if error is None and self._notify:
            await run(self._connection, "notify_jobs", self._schema, (str(self._notify),))

    async def write(self, rows: Sequence[Row], *, last: bool) -> None:
        """Write rows, in order; those that go by COPY may still be on their way when it returns.

        Args:
            rows: a chunk of them.
            last: whether no more will come in this transaction.
        """
        self._now = self._clock.now()
        self._prefixes.clear()
        first = 0
        if self._ids is not None:
            first = len(self._ids)
            self._ids.extend([0] * len(rows))
        if all(shape.key is None for shape in {shape for shape, _ in rows}):
            await self._write_keyless(rows, range(first, first + len(rows)))
            return
        placed = [(first + place, shape, payload) for place, (shape, payload) in enumerate(rows)]
        keyless = [row for row in placed if row[1].key is None]
        if keyless:
            await self._write_keyless([row[1:] for row in keyless], [place for place, _, _ in keyless])
        await self._write_keyed([row for row in placed if row[1].key is not None], last=last)

    async def _write_keyless(self, rows: Sequence[Row], places: Sequence[int]) -> None:
        await self._find_names({shape for shape, _ in rows})
        self._notify += len(rows)
        if not self._may_copy:
            inserted = integers(await run(self._connection, "insert_jobs", self._schema, self._columns(rows)))
            self._give(places, sorted(inserted))  # drawn in the order of the rows
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
        """Draw ids, more than are wanted now once it is not the first time: a COPY must end for it, and ids are many."""
        if len(self._drawn) < wanted:
            await self._stream.end()
            count = wanted + self._drew
            self._drew = min(DRAWN_AHEAD, 4 * count)
            drawn = await run(self._connection, "draw_job_ids", self._schema, (self._schema, str(count)), binary=True)
            self._drawn.extend(array_of_int8(drawn))
        return [self._drawn.popleft() for _ in range(wanted)]

    async def _write_keyed(self, rows: list[Placed], *, last: bool) -> None:
        """Write rows with keys, a statement for each mode and each time that a key comes again."""
        await self._stream.end()
        statements = [statement for group in rounds(rows) for statement in by_mode(group)]
        deduped = [shape for mode, group in statements if mode is JobKeyMode.UNSAFE_DEDUPE for _, shape, _ in group]
        await self._find_names(deduped)
        piped = self._connection.pgconn.pipeline_status
        alone = self._own and last and len(statements) == 1 and not piped
        if not alone:
            await self._lock()

        async def apply() -> None:
            for mode, group in statements:
                await self._apply(mode, group)

        async def apply_all() -> None:
            async with (
                self._connection.transaction()
            ):  # a savepoint: undone alone, it lets go of the jobs that it holds
                await apply()

        if alone:
            await in_turn(self._connection, self._schema, apply)
        else:  # a worker that ends many jobs takes them in another order; it lets go soon
            await (apply() if piped else repeated(apply_all))
        self._notify += len(deduped)

    async def _apply(self, mode: JobKeyMode, rows: list[Placed]) -> None:
        """Write rows of one mode, of which no two have one key."""
        if mode is JobKeyMode.UNSAFE_DEDUPE:
            parameters = (*self._columns([row[1:] for row in rows]), text_array([row[1].key for row in rows]))
            result = await run(self._connection, "dedupe_jobs", self._schema, parameters)
        else:
            result = await run(self._connection, "add_jobs", self._schema, self._specs(rows, mode))
        if self._ids is not None:
            by_key = dict(ids_by_text(result))
            for place, shape, _ in rows:
                self._ids[place] = by_key[shape.key or ""]

    async def _lock(self) -> None:
        """Be the only transaction, until it ends, that makes names or writes keys in more than one statement."""
        if not self._locked:
            await run(self._connection, "lock_keys", self._schema)
            self._locked = True

    async def _find_names(self, shapes: Iterable[JobShape]) -> None:
        names, lanes = names_of(shapes)
        if self._tasks.missing(names) or self._queues.missing(lanes):
            await self._stream.end()
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

    def _columns(self, rows: Sequence[Row]) -> tuple[str, ...]:
        shapes = [shape for shape, _ in rows]
        return (
            number_array([self._tasks[shape.task] for shape in shapes]),
            number_array([None if shape.queue is None else self._queues[shape.queue] for shape in shapes]),
            text_array([payload.decode() for _, payload in rows]),
            number_array([shape.priority for shape in shapes]),
            text_array([time_of_micros(self._run_at(shape)).isoformat() for shape in shapes]),
            number_array([shape.max_attempts for shape in shapes]),
            text_array([flags_json(shape.flags) for shape in shapes]),
        )

    def _specs(self, rows: list[Placed], mode: JobKeyMode) -> tuple[str, ...]:
        shapes = [shape for _, shape, _ in rows]
        return (
            text_array([shape.task for shape in shapes]),
            text_array([payload.decode() for _, _, payload in rows]),
            text_array([shape.queue for shape in shapes]),
            text_array([time_of_micros(self._run_at(shape)).isoformat() for shape in shapes]),
            number_array([shape.max_attempts for shape in shapes]),
            text_array([shape.key for shape in shapes]),
            number_array([shape.priority for shape in shapes]),
            text_array([text_array(shape.flags) if shape.flags else None for shape in shapes]),
            "true" if mode is JobKeyMode.PRESERVE_RUN_AT else "false",
        )

    def _run_at(self, shape: JobShape) -> int:
        if shape.run_at is not None:
            return micros(shape.run_at)
        return self._now if shape.delay is None else self._now + shape.delay // MICROSECOND


class ServerClock:
    """The database's time as far as a client can tell without asking again: never ahead of it, and never going back.

    Args:
        told: what the server's clock showed, in PostgreSQL's microseconds, before its answer arrived (which was just now).
    """

    def __init__(self, told: int) -> None:
        self._told = told
        self._arrived = time.monotonic()

    def now(self) -> int:
        """The time in PostgreSQL's microseconds."""
        # Two clocks that are being set right may differ by a thousandth (500 parts in a million each).
        return self._told + int((time.monotonic() - self._arrived) * 999_000)


def by_mode(rows: Iterable[Placed]) -> Iterable[tuple[JobKeyMode, list[Placed]]]:
    """Rows with keys in groups of one mode each."""
    groups: dict[JobKeyMode, list[Placed]] = defaultdict(list)
    for row in rows:
        groups[row[1].mode].append(row)
    return groups.items()


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
