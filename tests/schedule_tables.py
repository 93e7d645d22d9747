"""A table of schedules in memory, for tests of a scheduler: its rules are those of the statements, its time the test's.

`tests/integration/worker/scheduling` shows the same on a real database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from backfill.client.schedule_table import ScheduleTable
from backfill.cron import Schedule
from backfill.storage.schedules import (
    KnownSchedule,
    LiveWorker,
    Look,
    NewRun,
    RunDone,
    RunOutcome,
    SaidSchedule,
    crontab_of,
)

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(hours: float) -> datetime:
    """A time so many hours after START."""
    return START + timedelta(hours=hours)


def spoken(identifier: str, line: str | None = None, *, paused: bool = False, since: datetime | None = None,
           removed: bool = False, revision: int = 1) -> SaidSchedule:  # fmt: skip
    """What operators said of an item."""
    return SaidSchedule(
        identifier=identifier,
        line=line,
        is_added=line is not None,
        paused_at=START if paused else None,
        paused_by="ops" if paused else None,
        removed_at=START if removed else None,
        since=since,
        said_by="ops",
        said_at=START,
        revision=revision,
    )


class MemoryTable(ScheduleTable):
    """The tables, in memory."""

    def __init__(self) -> None:
        self.clock = START
        self.workers: dict[str, LiveWorker] = {}
        self.crontabs: dict[str, dict[str, str]] = {}
        self.words: dict[str, SaidSchedule] = {}
        self.known: dict[str, KnownSchedule] = {}
        self.added: list[NewRun] = []
        self.calls: list[str] = []
        self.failing: list[Exception] = []
        """What the next calls raise, one after the other."""
        self.poison: dict[str, Exception] = {}
        """What `add_runs` raises if a run of such an item is among those given."""
        self.busy: set[str] = set()
        """The items that another transaction works on at the next `add_runs`."""
        self.is_awaited = False
        """Whether a worker that was there before all that live may come back."""
        self.waiting: set[str] = set()
        """The items whose last job still waits or runs."""
        self._words_read = 0

    def declare(self, worker: str, *schedules: Schedule, at: datetime = START, schedules_too: bool = True) -> None:
        """Let a live worker declare items."""
        crontab = crontab_of(schedules)
        if crontab is not None:
            self.crontabs[crontab.digest] = dict(crontab.items)
        digest = None if crontab is None else crontab.digest
        self.workers[worker] = LiveWorker(worker, at, digest, schedules=schedules_too)

    def say(self, words: SaidSchedule) -> None:
        """Let operators say something."""
        self.words[words.identifier] = words
        self._words_read += 1

    def knows(self, identifier: str, known_since: datetime, last_execution: datetime | None = None) -> None:
        """Let the database remember something of an item."""
        self.known[identifier] = KnownSchedule(identifier, known_since, last_execution)

    def runs(self, identifier: str) -> list[datetime]:
        """The runs of an item whose jobs were added, in the order in which they were."""
        return [run.run for run in self.added if run.identifier == identifier]

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.failing:
            raise self.failing.pop(0)

    async def read_schedules(self) -> Look:
        """Read the clock and who lives."""
        self._called("read_schedules")
        workers = sorted(self.workers.values(), key=lambda one: (one.started_at, one.id))
        return Look(self.clock, str(self._words_read), tuple(workers), is_awaited=self.is_awaited)

    async def find_crontabs(self, digests: Iterable[str]) -> dict[str, dict[str, str]]:
        """Read what code declares."""
        self._called("find_crontabs")
        return {digest: self.crontabs[digest] for digest in digests if digest in self.crontabs}

    async def find_said_schedules(self) -> list[SaidSchedule]:
        """List what operators said."""
        self._called("find_said_schedules")
        return list(self.words.values())

    async def find_known_schedules(self, identifiers: Iterable[str]) -> dict[str, KnownSchedule]:
        """Read the rows that all schedulers share."""
        self._called("find_known_schedules")
        return {identifier: self.known[identifier] for identifier in identifiers if identifier in self.known}

    async def register_schedules(self, identifiers: Iterable[str], known_since: datetime) -> dict[str, KnownSchedule]:
        """Register items."""
        self._called("register_schedules")
        for identifier in identifiers:
            self.known.setdefault(identifier, KnownSchedule(identifier, known_since, None))
        return await self.find_known_schedules(identifiers)

    async def add_runs(self, runs: Sequence[NewRun]) -> list[RunDone]:
        """Add the jobs of runs that nobody else has done."""
        self._called("add_runs")
        for run in runs:
            if run.identifier in self.poison:
                raise self.poison[run.identifier]
        done = [self._add(run) for run in sorted(runs, key=lambda run: run.run)]
        self.busy.clear()
        return done

    def _add(self, run: NewRun) -> RunDone:
        words = self.words.get(run.identifier)
        known = self.known.get(run.identifier)
        if run.identifier in self.busy:
            outcome = RunOutcome.BUSY
        elif known is None:
            outcome = RunOutcome.UNKNOWN
        elif (0 if words is None else words.revision) != run.revision:
            outcome = RunOutcome.STALE
        elif run.run <= (known.last_execution or known.known_since):
            outcome = RunOutcome.TAKEN
        else:
            self.known[run.identifier] = KnownSchedule(run.identifier, known.known_since, run.run)
            if run.refused:
                outcome = RunOutcome.REFUSED
            elif run.overlap_skip and run.identifier in self.waiting:
                outcome = RunOutcome.OVERLAPPED
            else:
                self.added.append(run)
                self.waiting.add(run.identifier)
                return RunDone(run.identifier, run.run, RunOutcome.ADDED, len(self.added))
        return RunDone(run.identifier, run.run, outcome)
