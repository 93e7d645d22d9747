"""By which way a client writes: straight to the tables, or by the functions for producers, who have no right on any table.

Used by the client's verbs. What the role may do is asked once a connection, at its first use, and costs nothing afterwards.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from backfill.client.execute import run, text
from backfill.storage.connection import Connection

_KNOWN: Final[WeakKeyDictionary[Connection, dict[str, bool]]] = WeakKeyDictionary()


async def goes_by_functions(connection: Connection, schema: str) -> bool:
    """Whether a connection's role writes by the functions for producers: it may call them, and may not insert jobs itself.

    Args:
        connection: the caller's or the client's; it is asked once for each schema.
        schema: the queue's.
    """
    known = _KNOWN.setdefault(connection, {})
    if schema not in known:
        known[schema] = text(await run(connection, "find_way", schema, (schema,)), 0, 0) == "t"
    return known[schema]
