"""The items that are in force, as one scheduler knows them: up to when it has looked at each, and when it looks again.

It knows neither the database nor the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from backfill.cron.due import Due, Known, due_runs
from backfill.cron.runs import next_runs
from backfill.cron.schedule import Schedule
from backfill.cron.standing import InForce


@dataclass(slots=True)
class Planned:
    """An item in force.

    Attributes:
        item: what stands of it.
        schedule: the same, read from its line.
        covered: the time up to which all its runs are done with; None before the first look at it.
        next_at: its next run after that time; None if there is none, or before the first look.
    """

    item: InForce
    schedule: Schedule
    covered: datetime | None = None
    next_at: datetime | None = None

    def due(self, known: Known, now: datetime) -> Due:
        """The runs that are due."""
        return due_runs(
            self.schedule,
            known,
            now=now,
            alive_since=self.item.alive_since,
            since=self.item.since,
            covered=self.covered,
        )

    def cover(self, now: datetime) -> None:
        """Take note that all runs up to a time are done with."""
        self.covered = now
        self.next_at = next(iter(next_runs(self.schedule, now, 1)), None)


class Plan:
    """The items that are in force, and when the next run of any of them is.

    An item that was looked at keeps the time up to which it was, as long as it stays in force, whatever text it gets.
    So no run of it is left out, however long a look takes to succeed, and if the workers that were there when a run was
    due have ended meanwhile; and a new text has no runs from before the time at which it was seen. When an item is no
    longer in force, that time is forgotten, and the item begins anew if it comes back.
    """

    def __init__(self) -> None:
        self._planned: dict[str, Planned] = {}

    def __len__(self) -> int:
        """How many items are in force."""
        return len(self._planned)

    def follow(self, items: Mapping[str, InForce], read: Callable[[InForce], Schedule | None]) -> None:
        """Let these items be in force, and no others.

        Args:
            items: the items, by their identifiers.
            read: reads the line of an item; None for one that this version cannot read, which is left out.
        """
        planned = dict[str, Planned]()
        for identifier, item in items.items():
            schedule = read(item)
            if schedule is None:
                continue
            before = self._planned.get(identifier)
            planned[identifier] = one = Planned(item, schedule, None if before is None else before.covered)
            if before is not None and before.schedule == schedule:
                one.next_at = before.next_at
            elif one.covered is not None:
                one.cover(one.covered)
        self._planned = planned

    def due(self, now: datetime) -> list[Planned]:
        """The items that are to be looked at: those of which a run may be due, and those that are new.

        All others have no run up to this time, so they are covered.
        """
        found = list[Planned]()
        for one in self._planned.values():
            if one.covered is None or (one.next_at is not None and one.next_at <= now):
                found.append(one)
            else:
                one.covered = now
        return found

    def next_at(self, now: datetime) -> datetime | None:
        """The next run of any item after a time; None if there is none."""
        later = (one.next_at for one in self._planned.values() if one.next_at is not None and one.next_at > now)
        return min(later, default=None)
