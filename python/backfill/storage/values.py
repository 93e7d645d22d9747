"""Single values of libpq's binary results, for statements that give back numbers rather than jobs."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_DOUBLE: Final = struct.Struct("!d")


def integer(result: PGresult, row: int = 0, column: int = 0) -> int:
    """An integer of any size, or a time in PostgreSQL's microseconds; 0 for null."""
    return int.from_bytes(result.get_value(row, column) or b"", "big", signed=True)


def double(result: PGresult, row: int = 0, column: int = 0) -> float | None:
    """A double precision number, or None for null."""
    raw = result.get_value(row, column)
    return None if raw is None else float(_DOUBLE.unpack(raw)[0])
