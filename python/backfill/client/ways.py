"""By which way a client writes: to the tables, or by functions.

The functions are for producers, who have no right on any table.

Used by the client's verbs. What the role may do is asked once a connection, at its first use, and costs nothing
afterwards.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from backfill.client.execute import run
from backfill.storage.results import first
from backfill.storage.types import Connection

_KNOWN: Final[WeakKeyDictionary[Connection, dict[str, bool]]] = WeakKeyDictionary()


async def goes_by_functions(connection: Connection, schema: str) -> bool:
    """Whether a connection's role writes by the functions for producers.

    It may call them, and may not insert jobs itself.

    Args:
        connection: the caller's or the client's; it is asked once for each schema.
        schema: the queue's.
    """
    found = known_way(connection, schema)
    if found is None:
        found = first(await run(connection, "find_way", schema, (schema,))).flag("by_functions")
        _KNOWN.setdefault(connection, {})[schema] = found
    return found


def known_way(connection: Connection, schema: str) -> bool | None:
    """The same for a connection that was asked before, without a turn of the loop; None for one that was not."""
    known = _KNOWN.get(connection)
    return None if known is None else known.get(schema)
