"""The ids of tasks and serial queues by name, and how names that are new are made without waiting in a ring.

Used by `writing` and `bulk`. Who makes names outside a transaction never holds one while it waits long for
another; who makes them within one, where they stay held, is alone in that (`lock_keys`). So the two cannot block each
other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

import psycopg
import psycopg_pool

from backfill.client.execute import run
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
"""The statements that make tasks and queues: briefly, and with patience."""
_TRIES: Final = 10
Lock = Callable[[], Awaitable[None]]


class Names:
    """The ids of tasks or of queues by name, found and held within one transaction; missing rows are made.

    An id is not kept for the next transaction: a collector may have deleted its row by then.

    Args:
        create: the statement that makes what is missing.
        hold: the statement that finds them, for key share.
        column: its column of names.
        lock: what makes this transaction the only one that makes names; called before it makes any.
    """

    def __init__(self, connection: Connection, schema: str, create: str, hold: str, column: str, lock: Lock) -> None:
        self._connection = connection
        self._schema = schema
        self._create = create
        self._hold = hold
        self._column = column
        self._lock = lock
        self._ids: dict[str, int] = {}
        self._absent: set[str] = set()

    def __getitem__(self, name: str) -> int:
        """The id of a name that was found before."""
        return self._ids[name]

    def __contains__(self, name: str) -> bool:
        """Whether the name was found before."""
        return name in self._ids

    def missing(self, names: Iterable[str]) -> set[str]:
        """Those of the names that are not found yet."""
        return set(names) - self._ids.keys()

    def unseen(self, names: Iterable[str]) -> set[str]:
        """Those of the names that are not found yet, and were not looked for either."""
        return self.missing(names) - self._absent

    async def look(self, names: set[str]) -> set[str]:
        """Find and hold those of the names that are there, and give back and remember which are not.

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
        """Find and hold those of the names that were not there before."""
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


def tasks(connection: Connection, schema: str, lock: Lock) -> Names:
    """The ids of tasks, as one transaction sees them."""
    return Names(connection, schema, "create_tasks", "hold_tasks", "identifier", lock)


def queues(connection: Connection, schema: str, lock: Lock) -> Names:
    """The ids of serial queues, as one transaction sees them."""
    return Names(connection, schema, "create_queues", "hold_queues", "queue_name", lock)


def names_of(shapes: Iterable[JobShape]) -> tuple[set[str], set[str]]:
    """The names of the tasks and of the serial queues of some jobs."""
    distinct = set(shapes)
    return {shape.task for shape in distinct}, {shape.queue for shape in distinct if shape.queue is not None}


async def make_names(
    connection: Connection, schema: str, tasks: set[str], queues: set[str], *, briefly: bool = False
) -> None:
    """Make the names that are missing, outside a transaction, so that they hold nobody up.

    Args:
        connection: not in a transaction.
        schema: the queue's.
        tasks: names of tasks.
        queues: names of serial queues.
        briefly: whether to leave out what another transaction is just making, rather than wait for its end.
    """
    makers = FOR_PRODUCERS if await goes_by_functions(connection, schema) else DIRECT
    for (many, one), names in zip(makers, (tasks, queues), strict=True):
        await _make(connection, schema, many, one, names, briefly=briefly)


async def _make(connection: Connection, schema: str, many: str, one: str, names: set[str], *, briefly: bool) -> None:
    if len(names) > 1 or (briefly and names):
        try:
            await run(connection, many, schema, (text_array(sorted(names)),))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            pass  # another transaction makes one of them and may need another next, so wait for it without holding any
        else:
            return
    if briefly:
        return
    for name in sorted(names):
        await run(connection, one, schema, (text_array([name]),))


class NameMaker:
    """Makes names in short transactions of their own, on another connection, while a bulk call's transaction is open.

    Args:
        schema: the queue's.
        connect: gives the connection, which is closed in the end; None where there can be none.
    """

    def __init__(self, schema: str, connect: Callable[[], Awaitable[Connection | None]]) -> None:
        self._schema = schema
        self._connect = connect
        self._connection: Connection | None = None

    async def make(self, tasks: set[str], queues: set[str]) -> None:
        """Make names as far as that can be done at once; whoever needs them looks which are there."""
        with suppress(psycopg.Error, psycopg_pool.PoolTimeout):
            self._connection = self._connection or await self._connect()
            if self._connection is not None:
                await make_names(self._connection, self._schema, tasks, queues, briefly=True)

    async def aclose(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
