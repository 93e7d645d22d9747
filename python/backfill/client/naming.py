"""The ids of tasks and serial queues by name, and how names that are new are made without waiting in a ring.

Used by `writing` and `bulk`. Who makes names outside a transaction never holds one while it waits long for
another; who makes them within one, where they stay held, is alone in that (`lock_keys`). So the two cannot block each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import psycopg

from backfill.client.execute import ids_by_text, run
from backfill.client.prepare import JobShape
from backfill.errors import BackfillError
from backfill.storage.arrays import text_array
from backfill.storage.connection import Connection

REMEMBERED: Final = 20_000
_TRIES: Final = 10
Lock = Callable[[], Awaitable[None]]


class Names:
    """The ids of tasks or of queues by name, found and held within one transaction; missing rows are made.

    An id is not kept for the next transaction: a collector may have deleted its row by then.

    Args:
        create: the statement that makes what is missing.
        hold: the statement that finds them, for key share.
        lock: what makes this transaction the only one that makes names; called before it makes any.
    """

    def __init__(self, connection: Connection, schema: str, create: str, hold: str, lock: Lock) -> None:
        self._connection = connection
        self._schema = schema
        self._create = create
        self._hold = hold
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

    async def look(self, names: set[str]) -> None:
        """Find and hold those of the names that are there, and remember which are not; nothing is made."""
        for known in (self._ids, self._absent):
            if len(known) > REMEMBERED:
                known.clear()
        unseen = self.unseen(names)
        if unseen:
            await self._hold_rows(unseen)
            self._absent |= self.missing(unseen)

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
        self._ids.update(ids_by_text(found))


def tasks(connection: Connection, schema: str, lock: Lock) -> Names:
    """The ids of tasks, as one transaction sees them."""
    return Names(connection, schema, "create_tasks", "hold_tasks", lock)


def queues(connection: Connection, schema: str, lock: Lock) -> Names:
    """The ids of serial queues, as one transaction sees them."""
    return Names(connection, schema, "create_queues", "hold_queues", lock)


def names_of(shapes: Iterable[JobShape]) -> tuple[set[str], set[str]]:
    """The names of the tasks and of the serial queues of some jobs."""
    distinct = set(shapes)
    return {shape.task for shape in distinct}, {shape.queue for shape in distinct if shape.queue is not None}


async def make_names(connection: Connection, schema: str, tasks: set[str], queues: set[str]) -> None:
    """Make the names that are missing, outside a transaction, so that they hold nobody up."""
    await _make(connection, schema, "make_tasks", "create_tasks", tasks)
    await _make(connection, schema, "make_queues", "create_queues", queues)


async def _make(connection: Connection, schema: str, many: str, one: str, names: set[str]) -> None:
    if len(names) > 1:
        try:
            await run(connection, many, schema, (text_array(sorted(names)),))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            pass  # a transaction is making one of them, and may need another of these next: wait for it empty-handed
        else:
            return
    for name in sorted(names):
        await run(connection, one, schema, (text_array([name]),))
