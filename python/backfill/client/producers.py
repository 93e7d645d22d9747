"""Writes rows of jobs for a role that has no right on any table: each chunk by a call of a function for producers.

Used by `bulk`, once a transaction, in the place of `writing`, whose rules for keys and new names it shares: what two calls
could make each other wait for in a ring is written under a lock of the schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import psycopg

from backfill.client.execute import ids_by_text, in_turn, integers, repeated, run, text
from backfill.client.items import Row
from backfill.client.naming import names_of
from backfill.client.prepare import JobShape
from backfill.client.writing import MICROSECOND, Placed, ServerClock, by_mode, rounds
from backfill.errors import BackfillError, SchemaMissingError
from backfill.jobs import JobKeyMode
from backfill.records import time_of_micros
from backfill.storage.arrays import number_array, text_array
from backfill.storage.connection import Connection
from backfill.storage.rows import micros
from backfill.storage.values import integer

_TRIES: Final = 10


class ProducerTransaction:
    """One transaction of a producer's bulk call; entered once the transaction is begun, left before it is committed.

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
        self._kept: tuple[set[str], set[str]] = set(), set()

    async def __aenter__(self) -> Self:
        """Ask the server for its time."""
        begun = await run(self._connection, "bulk_begin", self._schema, (self._schema,), binary=True)
        if not begun.ntuples:
            raise SchemaMissingError(f"schema {self._schema!r} has no queue in it: `backfill migrate` makes it")
        self._clock = ServerClock(integer(begun, 0, 1))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is under way: each call tells the workers of what it added."""

    async def write(self, rows: Sequence[Row], *, last: bool) -> None:
        """Write rows, in order.

        Args:
            rows: a chunk of them.
            last: whether no more will come in this transaction.
        """
        self._now = self._clock.now()
        first = 0
        if self._ids is not None:
            first = len(self._ids)
            self._ids.extend([0] * len(rows))
        placed = [(first + place, shape, payload) for place, (shape, payload) in enumerate(rows)]
        keyless = [row for row in placed if row[1].key is None]
        if keyless:
            await self._keep_names(keyless)
            inserted = integers(
                await run(self._connection, "producer_add_keyless", self._schema, self._columns(keyless))
            )
            self._give({place: number for (place, _, _), number in zip(keyless, inserted, strict=True)})
        if len(keyless) < len(placed):
            await self._write_keyed([row for row in placed if row[1].key is not None], last=last)

    async def _write_keyed(self, rows: list[Placed], *, last: bool) -> None:
        """Write rows with keys, a statement for each mode and each time that a key comes again."""
        statements = [statement for group in rounds(rows) for statement in by_mode(group)]
        await self._keep_names([row for mode, group in statements if mode is JobKeyMode.UNSAFE_DEDUPE for row in group])
        piped = self._connection.pgconn.pipeline_status
        alone = self._own and last and len(statements) == 1 and not piped
        if not alone:
            await self._lock()

        async def apply() -> None:
            for mode, group in statements:
                await self._apply(mode, group)

        async def apply_all() -> None:
            # A savepoint: undone alone, it lets go of the jobs that it holds.
            async with self._connection.transaction():
                await apply()

        if alone:
            await in_turn(self._connection, self._schema, apply)
        else:  # a worker that ends many jobs takes them in another order; it lets go soon
            await (apply() if piped else repeated(apply_all))

    async def _apply(self, mode: JobKeyMode, rows: list[Placed]) -> None:
        """Write rows of one mode, of which no two have one key."""
        parameters = *self._columns(rows), text_array([shape.key for _, shape, _ in rows]), mode.value
        by_key = dict(ids_by_text(await run(self._connection, "producer_add_keyed", self._schema, parameters)))
        self._give({place: by_key[shape.key or ""] for place, shape, _ in rows})

    def _give(self, ids: dict[int, int]) -> None:
        if self._ids is not None:
            for place, number in ids.items():
                self._ids[place] = number

    async def _lock(self) -> None:
        """Be the only transaction, until it ends, that makes names or writes keys in more than one statement."""
        if not self._locked:
            await run(self._connection, "lock_keys", self._schema)
            self._locked = True

    async def _keep_names(self, rows: Sequence[Placed]) -> None:
        """See that the rows' tasks and queues are there until the transaction ends; whoever makes one here is alone in it."""
        names = names_of([shape for _, shape, _ in rows])
        tasks, queues = map(set.difference, names, self._kept)
        if not tasks and not queues:
            return
        wanted = text_array(sorted(tasks)), text_array(sorted(queues))
        for _ in range(_TRIES):
            if text(await run(self._connection, "producer_keep_names", self._schema, wanted), 0, 0) == "t":
                self._kept[0].update(tasks)
                self._kept[1].update(queues)
                return
            await self._lock()
            await run(self._connection, "producer_make_names", self._schema, (*wanted, "false"))
        raise BackfillError(
            f"tasks or queues of {min(tasks | queues)!r} were made {_TRIES} times, and deleted as often"
        )

    def _columns(self, rows: Sequence[Placed]) -> tuple[str, ...]:
        shapes = [shape for _, shape, _ in rows]
        return (
            text_array([shape.task for shape in shapes]),
            text_array([shape.queue for shape in shapes]),
            text_array([payload.decode() for _, _, payload in rows]),
            number_array([shape.priority for shape in shapes]),
            text_array([time_of_micros(self._run_at(shape)).isoformat() for shape in shapes]),
            number_array([shape.max_attempts for shape in shapes]),
            text_array([text_array(shape.flags) if shape.flags else None for shape in shapes]),
        )

    def _run_at(self, shape: JobShape) -> int:
        if shape.run_at is not None:
            return micros(shape.run_at)
        return self._now if shape.delay is None else self._now + shape.delay // MICROSECOND


async def make_producer_names(connection: Connection, schema: str, tasks: set[str], queues: set[str]) -> None:
    """Make the names that are missing, outside a transaction, so that they hold nobody up."""
    wanted = [(sorted(tasks), list[str]()), (list[str](), sorted(queues))]
    for some_tasks, some_queues in wanted:
        names = some_tasks or some_queues
        if len(names) > 1:
            try:
                await _make(connection, schema, some_tasks, some_queues, brief=True)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                pass  # a transaction makes one of them, and may need another of these next: wait for it empty-handed
            else:
                continue
        for name in names:
            await _make(connection, schema, [name] if some_tasks else [], [name] if some_queues else [], brief=False)


async def _make(connection: Connection, schema: str, tasks: list[str], queues: list[str], *, brief: bool) -> None:
    parameters = text_array(tasks), text_array(queues), "true" if brief else "false"
    await run(connection, "producer_make_names", schema, parameters)
