"""Ties: waiting jobs of one priority and one run_at, which only their places in the table tell apart.

A look begins at a floor, which is a run_at. Where many jobs have the same one, and many of them are passed over since
their tasks are left out, each look would read all of these again. So the next look begins at the place in the table
where the last claim ended: an index has the entries of one run_at in the table's order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backfill._native import pack_array
from backfill.storage.wire import Parameter

PAGES: Final = 1_000
"""How many pages of the table a look reads behind the place at most; it stops earlier where it has found enough."""
NO_TIE: Final[tuple[Parameter, ...]] = (None, None, None, None)
"""The parameters of a look that begins at no place."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the table of jobs.

    Attributes:
        page: the number of the page.
        item: the number of the row on it.
    """

    page: int
    item: int

    @classmethod
    def read(cls, raw: bytes) -> Place:
        """The place that a text such as `(12,34)` names."""
        page, item = raw.strip(b"()").split(b",")
        return cls(int(page), int(item))


@dataclass(frozen=True, slots=True, order=True)
class Tie:
    """Where the next look begins among the waiting parallel jobs of one priority and one run_at.

    Attributes:
        priority: their priority.
        run_at: their run_at, in PostgreSQL's microseconds.
        place: where the last claim ended.
    """

    priority: int
    run_at: int
    place: Place

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of a claim that begins there: priority, times, place and bound."""
        times = pack_array([self.run_at - 1, self.run_at], "timestamptz")
        bound = self.place.page + PAGES
        return str(self.priority), times, f"({self.place.page},{self.place.item})", f"({bound},0)"
