"""Pages by cursor, which the verbs that list things share.

A cursor names the time and the id of the last entry of its page, so the next page begins where this one ended, whatever
was deleted or added meanwhile. A statement that lists things returns the time in its column `place`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from backfill.checks import ENTRY_IDS, check_int
from backfill.errors import InvalidJobError
from backfill.storage.results import Row, rows

if TYPE_CHECKING:
    from backfill.storage.results import Result

T = TypeVar("T")

PAGE_LIMIT: Final = 1_000
_MOMENTS: Final = range(-211_813_488_000_000_000, 9_223_371_331_200_000_000)
"""The range of PostgreSQL's times, in microseconds since the year 2000."""
_INFINITE: Final = (-(2**63), 2**63 - 1)
Place = tuple[str | None, str | None]
START: Final[Place] = (None, None)


def check_limit(limit: int) -> None:
    """Refuse a limit that is too small or too large for a page.

    Raises:
        InvalidJobError: the limit is not from 1 to 1,000.
    """
    check_int("limit", limit, range(1, PAGE_LIMIT + 1))


def page_of(
    found: Result, limit: int, read: Callable[[Row], T], *, id_column: str = "id"
) -> tuple[list[T], str | None]:
    """Return a page and the cursor of the next page, or None for the cursor if this page is the last.

    Args:
        found: the rows of a statement that was asked for one entry more than the page holds.
        limit: the largest number of entries on the page.
        read: makes an entry from a row.
        id_column: the column of the entries' ids.
    """
    entries: list[T] = []
    last: Row | None = None
    for row in rows(found):
        if len(entries) == limit:
            return entries, None if last is None else cursor_after(last, id_column)
        entries.append(read(row))
        last = row
    return entries, None


def cursor_after(row: Row, id_column: str = "id") -> str:
    """Return the cursor of the page that begins after a row."""
    return base64.urlsafe_b64encode(f"{row.word('place')}.{row.whole(id_column)}".encode()).decode()


def place_of(cursor: str | None) -> Place:
    """Return the time and the id that a cursor names, as a statement takes them.

    Raises:
        InvalidJobError: the value is not a cursor.
    """
    if cursor is None:
        return START
    try:
        moment, entry = map(int, base64.urlsafe_b64decode(cursor.encode()).decode("ascii").split("."))
    except (binascii.Error, ValueError, AttributeError) as error:
        raise _no_cursor(cursor) from error
    if (moment not in _MOMENTS and moment not in _INFINITE) or entry not in ENTRY_IDS:
        raise _no_cursor(cursor)
    return str(moment), str(entry)


def _no_cursor(cursor: object) -> InvalidJobError:
    return InvalidJobError("cursor", cursor, "the cursor of a page that this call gave before")
