"""The statement that deletes reservations of keys whose time is over."""

from __future__ import annotations

from typing import Final, NamedTuple

from backfill.client.verbs.asked import Verb
from backfill.storage.results import Result, first

PAGE: Final = 1000


class SweptReservations(NamedTuple):
    """What one statement deleted.

    Attributes:
        deleted: how many reservations.
        place: the time of the last of them, from which the next statement goes on; None if there were none.
    """

    deleted: int
    place: str | None


def sweep_reservations(since: str | None) -> Verb[SweptReservations]:
    """Delete reservations whose time is over, 1,000 at most, from a time on."""
    return Verb("sweep_reservations", (since, str(PAGE)), _swept)


def _swept(found: Result) -> SweptReservations:
    row = first(found)
    return SweptReservations(row.whole("deleted"), row.text("place"))
