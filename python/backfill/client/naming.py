"""Finds the ids of tasks and serial queues by name, and makes new names without deadlocks.

Used by `bulk` and `enqueue`. A caller that makes names outside a transaction never holds one name while it waits long
for another. A caller that makes names within a transaction, which then holds them, is the only one that does so at a
time (`lock_keys`). So two callers cannot block each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

import psycopg
import psycopg_pool

from backfill.client.carrier import AnyConnection
from backfill.client.execute import BRIEFLY, passed_over, run
from backfill.client.prepare import JobShape
from backfill.client.ways import goes_by_functions
from backfill.errors import BackfillError
from backfill.storage.arrays import text_array
from backfill.storage.results import integers_by_text
from backfill.storage.types import Connection

REMEMBERED: Final = 20_000
DIRECT: Final = (("make_tasks", "create_tasks"), ("make_queues", "create_queues"))
FOR_PRODUCERS: Final = (
    ("producer_make_tasks", "producer_create_tasks"),
    ("producer_make_queues", "producer_create_queues"),
)
"""The statements that make tasks and queues: the first of each pair waits briefly, the second as long as needed."""
_TRIES: Final = 10
Lock = Callable[[], Awaitable[None]]


class Names:
    """The ids of tasks or of queues by name, within one transaction, which holds their rows; missing rows are made.

    Ids are not kept for the next transaction, because a cleanup may have deleted their rows by then.

    Args:
        create: the statement that makes missing names.
        hold: the statement that finds names and locks their rows for key share.
        column: the column of names in the result of `hold`.
        lock: makes this transaction the only one that makes names; it is called before any is made.
    """

    def __init__(self, connection: AnyConnection, schema: str, create: str, hold: str, column: str, lock: Lock) -> None:
        self._connection = connection
        self._schema = schema
        self._create = create
        self._hold = hold
        self._column = column
        self._lock = lock
        self._ids: dict[str, int] = {}
        self._absent: set[str] = set()

    def __getitem__(self, name: str) -> int:
        """Return the id of a name that was found before."""
        return self._ids[name]

    def __contains__(self, name: str) -> bool:
        """Whether the name was found before."""
        return name in self._ids

    def missing(self, names: Iterable[str]) -> set[str]:
        """Return those of the names that are not found yet."""
        return set(names) - self._ids.keys()

    def unseen(self, names: Iterable[str]) -> set[str]:
        """Return those of the names that are not found yet, and were not looked for either."""
        return self.missing(names) - self._absent

    async def look(self, names: set[str]) -> set[str]:
        """Find and hold those of the names that exist; remember and return those that do not.

        Nothing is made.
        """
        for known in (self._ids, self._absent):
            if len(known) > REMEMBERED:
                known.clear()
        unseen = self.unseen(names)
        if unseen:
            await self._hold_rows(unseen)
            self._absent |= self.missing(unseen)
        return unseen & self._absent

    async def look_again(self, names: set[str]) -> None:
        """Find and hold those of the names that did not exist before."""
        if names:
            await self._hold_rows(names)
            self._absent -= self._ids.keys()

    async def find(self, names: set[str]) -> None:
        """Find the ids of names, make those that are missing, and hold their rows until the transaction ends."""
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
            await self._lock()
            await run(self._connection, self._create, self._schema, (text_array(sorted(missing)),))
        raise BackfillError(f"{min(missing)!r} was made {_TRIES} times, and deleted as often")

    async def _hold_rows(self, names: set[str]) -> None:
        found = await run(self._connection, self._hold, self._schema, (text_array(sorted(names)),))
        self._ids.update(integers_by_text(found, "id", self._column))


def tasks(connection: AnyConnection, schema: str, lock: Lock) -> Names:
    """Return the ids of tasks, as one transaction sees them."""
    return Names(connection, schema, "create_tasks", "hold_tasks", "identifier", lock)


def queues(connection: AnyConnection, schema: str, lock: Lock) -> Names:
    """Return the ids of serial queues, as one transaction sees them."""
    return Names(connection, schema, "create_queues", "hold_queues", "queue_name", lock)


def names_of(shapes: Iterable[JobShape]) -> tuple[set[str], set[str]]:
    """Return the names of the tasks and of the serial queues of some jobs."""
    distinct = set(shapes)
    return {shape.task for shape in distinct}, {shape.queue for shape in distinct if shape.queue is not None}


async def make_names(
    connection: AnyConnection, schema: str, tasks: set[str], queues: set[str], *, briefly: bool = False
) -> None:
    """Make missing names outside a transaction, so that they block nobody.

    Args:
        connection: a connection that is not in a transaction.
        schema: the queue's schema.
        tasks: names of tasks.
        queues: names of serial queues.
        briefly: whether to leave out names that another transaction is making, rather than to wait for its end.
    """
    makers = FOR_PRODUCERS if await goes_by_functions(connection, schema) else DIRECT
    for (many, one), names in zip(makers, (tasks, queues), strict=True):
        await _make(connection, schema, many, one, names, briefly=briefly)


async def _make(connection: AnyConnection, schema: str, many: str, one: str, names: set[str], *, briefly: bool) -> None:
    if len(names) > 1 or (briefly and names):
        # Another transaction may make one of them and need more of them; then wait without holding any.
        with passed_over(BRIEFLY):
            await run(connection, many, schema, (text_array(sorted(names)),))
            return
    if briefly:
        return
    for name in sorted(names):
        await run(connection, one, schema, (text_array([name]),))


class NameMaker:
    """Makes names in short transactions of their own, on another connection, while a bulk call's transaction is open.

    Args:
        schema: the queue's schema.
        connect: gives the connection, which `aclose` closes, or None if there can be none.
    """

    def __init__(self, schema: str, connect: Callable[[], Awaitable[Connection | None]]) -> None:
        self._schema = schema
        self._connect = connect
        self._connection: Connection | None = None

    async def make(self, tasks: set[str], queues: set[str]) -> None:
        """Make names as far as possible without waiting long; the caller then looks which of them exist."""
        with suppress(psycopg.Error, psycopg_pool.PoolTimeout):
            self._connection = self._connection or await self._connect()
            if self._connection is not None:
                await make_names(self._connection, self._schema, tasks, queues, briefly=True)

    async def aclose(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
