"""Finds out how a client writes: to the tables directly, or through functions.

The functions are for producers' roles, which have no rights on any table.

Used by the client's verbs. The server is asked what the role may do once per connection, at the first use, so later
uses cost nothing.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from backfill.client.carrier import AnyConnection, known_by
from backfill.client.execute import run
from backfill.storage.results import first

_KNOWN: Final[WeakKeyDictionary[object, dict[str, bool]]] = WeakKeyDictionary()


async def goes_by_functions(connection: AnyConnection, schema: str) -> bool:
    """Tell whether a connection's role writes through the functions for producers.

    Such a role may call these functions and may not insert jobs itself.

    Args:
        connection: a connection of the caller's or of the client's; its server is asked once for each schema.
        schema: the queue's schema.
    """
    found = known_way(connection, schema)
    if found is None:
        found = first(await run(connection, "find_way", schema, (schema,))).flag("by_functions")
        _KNOWN.setdefault(known_by(connection), {})[schema] = found
    return found


def known_way(connection: AnyConnection, schema: str) -> bool | None:
    """Return the known answer of `goes_by_functions` without awaiting; None if the connection was not asked yet."""
    known = _KNOWN.get(known_by(connection))
    return None if known is None else known.get(schema)
