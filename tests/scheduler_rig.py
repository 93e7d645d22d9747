"""A scheduler on a table in memory, whose times are the test's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from backfill import TaskRegistry
from backfill.cron import Schedule
from backfill.hooks import ObservedEvent, composed
from backfill.hooks.registry import Plugin
from backfill.worker.scheduling.jobs import JobMaker
from backfill.worker.scheduling.scheduler import Scheduler

from schedule_tables import START, MemoryTable, at


class Rig:
    """A scheduler of worker `me`, which declares some items, and what it tells observers."""

    def __init__(self, *schedules: Schedule, plugin: Plugin | None = None, started: datetime = START) -> None:
        self.table = MemoryTable()
        self.schedules = schedules
        self.plugin = plugin
        self.table.declare("me", *schedules, at=started)
        self.events = list[ObservedEvent]()
        self.steady = 0.0
        self.registry = TaskRegistry(crontab=schedules)
        self.one = self.another()

    def another(self) -> Scheduler:
        """A scheduler that knows nothing yet, as a worker has after a new start."""
        return Scheduler(
            self.table,
            JobMaker(self.registry, composed([] if self.plugin is None else [self.plugin])),
            worker=lambda: "me",
            schedules=self.schedules,
            tell=self.events.append,
            clock=lambda: self.steady,
        )

    async def look(self, hours: float) -> float:
        """Look so many hours after START."""
        self.table.clock = at(hours)
        return await self.one.look()


def hours_of(moments: Sequence[datetime]) -> list[float]:
    """The times as hours after START."""
    return [(moment - START) / timedelta(hours=1) for moment in moments]
