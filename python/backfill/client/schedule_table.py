"""What a worker's scheduler asks of the database, as verbs of the client that a worker's services share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from backfill.client.connect import ClientLife
from backfill.client.verbs import schedules as verbs
from backfill.storage.schedules import KnownSchedule, LastJob, Look, NewRun, RunDone, SaidSchedule


class ScheduleTable(ClientLife):
    """The verbs by which a scheduler reads what is due and enqueues it; `ServicesClient` has them."""

    async def read_schedules(self) -> Look:
        """Read the database's clock, which workers live, and whether operators said something new."""
        return await self._run(verbs.read_schedules())

    async def find_crontabs(self, digests: Iterable[str]) -> dict[str, dict[str, str]]:
        """Read what code declares: the lines of items by their identifiers, by digest."""
        return await self._run(verbs.find_crontabs(digests))

    async def find_said_schedules(self) -> list[SaidSchedule]:
        """List what operators said of schedules."""
        return await self._run(verbs.find_said_schedules())

    async def find_known_schedules(self, identifiers: Iterable[str]) -> dict[str, KnownSchedule]:
        """Read since when items are known, and their last runs."""
        return await self._run(verbs.find_known_schedules(identifiers))

    async def register_schedules(self, identifiers: Iterable[str], known_since: datetime) -> dict[str, KnownSchedule]:
        """Register the items that are not known yet, and return the rows of all of them.

        Args:
            identifiers: the items' identifiers.
            known_since: the database's time, as the last look gave it.
        """
        return await self._run(verbs.register_schedules(identifiers, known_since))

    async def add_runs(self, runs: Sequence[NewRun]) -> list[RunDone]:
        """Add the jobs of runs that nobody else has done; what became of each is in the order in which they were given.

        Args:
            runs: the runs, a run of an item only once.
        """
        return await self._run(verbs.add_runs(runs))

    async def find_schedule_jobs(self, identifiers: Iterable[str]) -> dict[str, LastJob]:
        """Read the last job of each item, and what became of it."""
        return await self._run(verbs.find_schedule_jobs(identifiers))

    async def sweep_crontabs(self) -> int:
        """Delete what code declared, where no worker has named it for 30 days, and return how many rows that were."""
        return await self._run(verbs.sweep_crontabs())
