"""Pages by cursor, and the numbers and times of a result in text: what the verbs that list things share.

A cursor names a time and an id, the last of its page, so a page begins where the one before ended, whatever was deleted
or added meanwhile.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from backfill.client.execute import text
from backfill.errors import InvalidJobError

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_BIGINT: Final = range(1, 2**63)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENTS: Final = range(-211_813_488_000_000_000, 9_223_371_331_200_000_000)
"""PostgreSQL's times, in microseconds from 2000 on."""
_INFINITE: Final = (-(2**63), 2**63 - 1)
Place = tuple[str | None, str | None]
START: Final[Place] = (None, None)


def cursor_of(found: PGresult, row: int, place: int) -> str:
    """The cursor of the page after a row: its place is in that column, its id in the first."""
    return base64.urlsafe_b64encode(f"{text(found, row, place)}.{whole(found, row, 0)}".encode()).decode()


def place_of(cursor: str | None) -> Place:
    """The time and the id that a cursor names, as a statement takes them.

    Raises:
        InvalidJobError: it is none.
    """
    if cursor is None:
        return START
    try:
        moment, entry = map(int, base64.urlsafe_b64decode(cursor.encode()).decode("ascii").split("."))
    except (binascii.Error, ValueError, AttributeError) as error:
        raise _no_cursor(cursor) from error
    if (moment not in _MOMENTS and moment not in _INFINITE) or entry not in _BIGINT:
        raise _no_cursor(cursor)
    return str(moment), str(entry)


def _no_cursor(cursor: object) -> InvalidJobError:
    return InvalidJobError("cursor", cursor, "the cursor of a page that this call gave before")


def number(found: PGresult, row: int, column: int) -> int | None:
    """An integer, or None for null."""
    raw = text(found, row, column)
    return None if raw is None else int(raw)


def whole(found: PGresult, row: int, column: int) -> int:
    """An integer; 0 for null."""
    return number(found, row, column) or 0


def time(found: PGresult, row: int, column: int) -> datetime | None:
    """A time in microseconds; None for null and for what no datetime can hold."""
    micros = number(found, row, column)
    try:
        return None if micros is None else _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return None
