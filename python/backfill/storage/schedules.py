"""What the database knows of recurring items, as types: what code declares, what operators said, and what has run.

The statements that read and write these are in `client/verbs/schedules.py`. Used by the scheduler of a worker and by
the verbs by which operators change schedules. All times are in UTC; the database's clock gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING

import orjson

from backfill.specs import JobKeyMode

if TYPE_CHECKING:
    from backfill.cron.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Crontab:
    """The items that the code of a worker declares; workers with the same items share a row of `backfill_crontabs`.

    Attributes:
        items: each item's line, as `str(schedule)` gives it, by the item's identifier.
    """

    items: Mapping[str, str] = field(repr=False)

    @property
    def digest(self) -> str:
        """What tells this set of items from others, as a text of 64 characters."""
        return sha256(orjson.dumps(dict(self.items), option=orjson.OPT_SORT_KEYS)).hexdigest()


def crontab_of(schedules: Iterable[Schedule]) -> Crontab | None:
    """The crontab that a worker's row names; None if its code declares no item."""
    items = {schedule.identifier: str(schedule) for schedule in schedules}
    return Crontab(items) if items else None


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A live worker, as a scheduler sees it.

    Attributes:
        id: its id.
        started_at: when its row was written.
        digest: the digest of the items that its code declares; None if it declares none.
        schedules: whether it runs a scheduler.
        alike: how many live workers have the same `digest` and `schedules`, itself included.
    """

    id: str
    started_at: datetime
    digest: str | None
    schedules: bool
    alike: int = 1


@dataclass(frozen=True, slots=True)
class Look:
    """What the one statement that reads time found.

    Attributes:
        clock: the database's time.
        said: a text that is another one after each change of what operators said of schedules.
        workers: the live workers that declare items or schedule, those first that started first. Of workers with the
            same `digest` and `schedules` only the one that started first and the one that started last are there, since
            a fleet may have thousands.
        is_awaited: whether a worker that schedules, and does not live, was seen last before the first of those that
            live was started. It is dead, or it was cut off from the database and comes back soon.
    """

    clock: datetime
    said: str
    workers: tuple[LiveWorker, ...]
    is_awaited: bool = False


@dataclass(frozen=True, slots=True)
class SaidSchedule:
    """What operators said of an item.

    A row may say nothing but `since`: it is what a resumed or reset item leaves, until it has run again.

    Attributes:
        identifier: the item's identifier.
        line: the item as operators added or changed it, a line of a crontab; None where the code's line counts. A role
            may have written it in plain SQL, so it may be none that `parse_crontab` reads.
        is_added: whether operators added the item; False if they only changed, paused or removed one of the code's.
            Where code declares an item that operators added as well, the operators' line counts.
        paused_at: since when it is paused; None if it is not.
        paused_by: who paused it.
        removed_at: since when it is removed although code may declare it; None if it is not.
        since: runs up to this time are not made up for; None if nothing said so.
        said_by: who said something of it last.
        said_at: when.
        revision: a number that no other state of any item has.
    """

    identifier: str
    line: str | None = field(repr=False)  # its payload may be secret, and messages may show rows
    is_added: bool
    paused_at: datetime | None
    paused_by: str | None
    removed_at: datetime | None
    since: datetime | None
    said_by: str
    said_at: datetime
    revision: int

    @property
    def is_silent(self) -> bool:
        """Whether it says nothing but `since`, so that the item is what code declares, if any."""
        return self.line is None and self.paused_at is None and self.removed_at is None


@dataclass(frozen=True, slots=True)
class KnownSchedule:
    """An item's row in the table that all schedulers share, those of Node and Rust too.

    Attributes:
        identifier: the item's identifier.
        known_since: since when it is known.
        last_execution: the last run that somebody enqueued; None if nobody enqueued one yet.
    """

    identifier: str
    known_since: datetime
    last_execution: datetime | None


@dataclass(frozen=True, slots=True)
class RestingSchedule:
    """An item that code declared once, and that no live worker declares now.

    Attributes:
        identifier: the item's identifier.
        line: the item as it was declared last.
        declared_at: when a worker that declares it started last.
    """

    identifier: str
    line: str = field(repr=False)
    declared_at: datetime


class JobState(StrEnum):
    """What became of the job of an item's last run, as far as the database knows it."""

    WAITING = "waiting"
    """It waits for its first or a further attempt."""
    RUNNING = "running"
    """A worker holds it."""
    FAILED = "failed"
    """It has used up its attempts, and is in the queue or among the dead letters."""
    ENDED = "ended"
    """Its end is kept; `how` and `ended_at` say what it was."""
    GONE = "gone"
    """It ended, and nothing is kept of it."""


@dataclass(frozen=True, slots=True)
class LastJob:
    """The job of the last run of an item for which one was added.

    Attributes:
        identifier: the item's identifier.
        run: the run.
        job_id: the job's id.
        added_at: when it was added.
        state: what became of it.
        how: how it ended, where its end is kept: a value of `EndHow`.
        ended_at: when it ended, where that is known.
    """

    identifier: str
    run: datetime
    job_id: int
    added_at: datetime
    state: JobState
    how: str | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run of an item, and the job that is to be added for it.

    Attributes:
        identifier: the item's identifier.
        run: the moment at which it is due.
        revision: the revision of what operators said by which the scheduler went; 0 if they said nothing of it.
        overlap_skip: whether no job is added while the job of the run before waits or runs.
        refused: whether no job is added in any case, since a plugin has said so; the run is done with all the same.
        task: the job's task.
        payload: the job's payload, as JSON text.
        run_at: when the job may begin.
        queue: the name of its serial queue.
        max_attempts: the number of all its runs; None for the contract's 25.
        priority: its priority; None for 0.
        job_key: its key.
        job_key_mode: what becomes of a waiting job with the key.
        flags: its flags.
    """

    identifier: str
    run: datetime
    revision: int = 0
    overlap_skip: bool = False
    refused: bool = False
    task: str
    payload: bytes = field(repr=False)
    run_at: datetime
    queue: str | None = None
    max_attempts: int | None = None
    priority: int | None = None
    job_key: str | None = None
    job_key_mode: JobKeyMode | None = None
    flags: tuple[str, ...] = ()


class RunOutcome(StrEnum):
    """What `add_runs` did with a run."""

    ADDED = "added"
    """Its job was added, and nobody else adds one."""
    OVERLAPPED = "overlapped"
    """No job was added, since the job of the run before waits or runs. The run is done with."""
    REFUSED = "refused"
    """No job was added, since the run is `refused`. It is done with."""
    TAKEN = "taken"
    """Somebody else did it, or a later one, or the item became known only after it."""
    STALE = "stale"
    """Operators have said something else of the item than the scheduler knew. Nothing was done; read what they said."""
    BUSY = "busy"
    """Another transaction is doing something with the item just now. Nothing was done; look again soon."""
    UNKNOWN = "unknown"
    """The item is not registered. Nothing was done; register it."""


@dataclass(frozen=True, slots=True)
class RunDone:
    """What became of a run.

    Attributes:
        identifier: the item's identifier.
        run: the run.
        outcome: what was done.
        job_id: the id of the job that was added; None for other outcomes.
    """

    identifier: str
    run: datetime
    outcome: RunOutcome
    job_id: int | None = None
