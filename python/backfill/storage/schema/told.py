"""What this process has said of a schema already, so that it says it once, and not at each connection.

Used for what stays as it is until somebody acts: a newer migration, and functions that another program has replaced.
"""

from __future__ import annotations

from typing import Final

from backfill.storage.types import Connection

_told: Final[set[tuple[str, ...]]] = set()


def first_time(*what: str) -> bool:
    """Whether this process says it for the first time; from then on it counts as said.

    Args:
        what: of which database and schema it is said, and what is said.
    """
    if what in _told:
        return False
    _told.add(what)
    return True


def database_of(connection: Connection) -> str:
    """The database of a connection, for `first_time`: one process may work on several that have schemas of one name."""
    info = connection.info
    return f"{info.host}:{info.port}/{info.dbname}"
