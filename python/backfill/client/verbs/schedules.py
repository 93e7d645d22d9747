"""Statements about recurring items: what schedulers read, the one by which they enqueue, and what operators say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from backfill.client.verbs.asked import Steps, Verb
from backfill.storage.schedules import KnownSchedule, LastJob, Look, NewRun, RestingSchedule, RunDone, SaidSchedule


def read_schedules() -> Verb[Look]:
    """Read the database's clock, which workers live, and whether operators said something new.

    Every time by which a scheduler decides comes from here.
    """
    raise NotImplementedError


def find_crontabs(digests: Iterable[str]) -> Verb[dict[str, dict[str, str]]]:
    """Read what code declares: the lines of items by their identifiers, by digest; unknown digests are left out."""
    raise NotImplementedError


def find_resting_schedules() -> Verb[list[RestingSchedule]]:
    """List the items that code declared within 30 days and that no live worker declares, by their identifiers."""
    raise NotImplementedError


def find_said_schedules(identifiers: Iterable[str] | None = None) -> Verb[list[SaidSchedule]]:
    """List what operators said of some items, or of all, by their identifiers."""
    raise NotImplementedError


def find_known_schedules(identifiers: Iterable[str]) -> Verb[dict[str, KnownSchedule]]:
    """Read since when items are known, and their last runs; items that nobody registered are left out."""
    raise NotImplementedError


def register_schedules(identifiers: Iterable[str], known_since: datetime) -> Steps[dict[str, KnownSchedule]]:
    """Register the items that are not known yet; the answer is the rows of all of them.

    Each item is registered in a transaction of its own: a scheduler of Node registers several in one, in another order,
    and must never wait for us in a ring.

    Args:
        identifiers: the items' identifiers.
        known_since: the database's time, as the last look gave it.
    """
    raise NotImplementedError


def add_runs(runs: Sequence[NewRun]) -> Verb[list[RunDone]]:
    """Add the jobs of runs that nobody else has done, and advance the items' last runs, in one statement.

    Runs of an item are done in their order. The statement never waits for what another scheduler does: such items are
    BUSY. A pause that has returned is never followed by a run.

    Args:
        runs: the runs, in any order, a run of an item only once.

    Returns:
        What became of each run, in the order in which they were given.
    """
    raise NotImplementedError


def find_schedule_jobs(identifiers: Iterable[str]) -> Verb[dict[str, LastJob]]:
    """Read the last job of each item, and what became of it; items that never had one are left out."""
    raise NotImplementedError


def add_schedule(identifier: str, line: str, by: str | None, at: datetime | None = None) -> Verb[SaidSchedule | None]:
    """Add an item; the answer is None if operators added one with this identifier already.

    Whether code declares an item with this identifier is for the caller to see. An item of the code's that was removed
    is there again.

    Args:
        identifier: the item's identifier.
        line: the item as a line of a crontab.
        by: who says it; the database role if None.
        at: the time from which on it runs; the database's clock if None.
    """
    raise NotImplementedError


def change_schedule(identifier: str, line: str, by: str | None, at: datetime | None = None) -> Verb[SaidSchedule]:
    """Change an item, of the code's or added by operators; a pause of it stays. Runs before the change are left out."""
    raise NotImplementedError


def pause_schedule(identifier: str, by: str | None, at: datetime | None = None) -> Verb[SaidSchedule]:
    """Pause an item: once this has returned, no run of it is added. A pause that stands stays as it is."""
    raise NotImplementedError


def resume_schedule(identifier: str, by: str | None, at: datetime | None = None) -> Verb[SaidSchedule | None]:
    """End an item's pause; the runs meanwhile are left out. The answer is None if it was not paused."""
    raise NotImplementedError


def remove_schedule(identifier: str, by: str | None, at: datetime | None = None) -> Verb[SaidSchedule | None]:
    """Remove an item, although code may declare it.

    The answer is its row, which says that it is removed; it stays until the item is added again or reset. None if it
    was removed already.
    """
    raise NotImplementedError


def reset_schedule(identifier: str) -> Verb[SaidSchedule | None]:
    """Forget all that operators said of an item; the answer is what stood, None if they had said nothing."""
    raise NotImplementedError


def trigger_schedule(run: NewRun) -> Steps[int]:
    """Add a job for an item now, apart from its runs; the answer is the job's id.

    The job is not the one that `overlap=skip` looks at, and the item's last run stays as it is. What operators said of
    the item does not matter: one that is paused can be triggered.

    Args:
        run: what the job is; its `revision` and `overlap_skip` are not looked at.
    """
    raise NotImplementedError


def sweep_crontabs() -> Verb[int]:
    """Delete what code declared, where no worker has named it for 30 days; the answer is how many rows."""
    raise NotImplementedError
