"""Schedules as operators see them: each item with where it comes from, its state, and its last and next runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypedDict

from backfill.ends import EndHow

if TYPE_CHECKING:
    from backfill.cron.schedule import Dst, Missed, Overlap, Schedule
    from backfill.specs import JobKeyMode


class ScheduleOrigin(StrEnum):
    """Whose text of an item counts."""

    CODE = "code"
    """That of the workers' code."""
    OPERATOR = "operator"
    """That of an operator, who has added or changed the item; it counts whatever the code says."""


class ScheduleState(StrEnum):
    """Whether an item runs."""

    ACTIVE = "active"
    """It runs at its times, as long as a worker is there that schedules."""
    PAUSED = "paused"
    """An operator has paused it."""
    RESTING = "resting"
    """It comes from code, and no live worker declares it any more."""
    REMOVED = "removed"
    """An operator has removed it, though code declares it or has declared it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """A recurring item as it stands in the fleet at one moment. All times are in UTC, by the database's clock.

    Its `repr` leaves out the lines, whose payloads may be secrets.

    Attributes:
        identifier: what tells the item from all others.
        line: the item as a line of a crontab: the text that counts.
        schedule: the item; None if this version cannot read the line, which a later version has written.
        origin: whose text counts.
        state: whether it runs.
        next_run: when it runs next; None if it does not, or if this version cannot read the line.
        last_run: its last run that a scheduler has dealt with, whether in Python, Node or Rust; None if there was none.
        known_since: since when schedulers know it; earlier runs are not made up for. None if no scheduler has seen it.
        last_job_id: the job of the last run for which a scheduler of this package has added one; None if none has.
        last_job_run: the run that this job is for.
        last_job_state: what became of this job: `waiting`, `running`, `failed` (its attempts are used up), `ended` (it
            has ended, and its end is kept) or `gone` (it has ended, and nothing is kept of it).
        last_end: how this job has ended, where its end is kept.
        last_ended_at: when it ended; None if it has not, or if that is not known.
        declared_by: how many live workers declare the item in their code.
        schedulers: how many live workers schedule. If there is none, nothing runs until one starts.
        code_line: what the code says; None if code has never declared the item.
        other_lines: further texts of the item in the code of live workers, which do not count: that of the worker that
            started last does.
        paused_at: since when it is paused; None if it is not.
        paused_by: who has paused it; None if nobody has.
        removed_at: when an operator removed it; None if none has.
        said_by: who added, changed, paused or removed it last; None if nothing of that stands.
        said_at: when that was.
        looked_at: when all this was so, by the database's clock.
    """

    identifier: str
    line: str = field(repr=False)
    schedule: Schedule | None
    origin: ScheduleOrigin
    state: ScheduleState
    looked_at: datetime
    next_run: datetime | None = None
    last_run: datetime | None = None
    known_since: datetime | None = None
    last_job_id: int | None = None
    last_job_run: datetime | None = None
    last_job_state: str | None = None
    last_end: EndHow | None = None
    last_ended_at: datetime | None = None
    declared_by: int = 0
    schedulers: int = 0
    code_line: str | None = field(default=None, repr=False)
    other_lines: tuple[str, ...] = field(default=(), repr=False)
    paused_at: datetime | None = None
    paused_by: str | None = None
    removed_at: datetime | None = None
    said_by: str | None = None
    said_at: datetime | None = None


class ScheduleChanges(TypedDict, total=False):
    """The settings of an item that can be changed by keyword: those of `Schedule`, without its identifier."""

    task: str
    when: str | None
    every: timedelta | None
    timezone: str
    dst: Dst
    payload: Any
    fill: timedelta
    max_attempts: int | None
    queue: str | None
    priority: int | None
    job_key: str | None
    job_key_mode: JobKeyMode | None
    jitter: timedelta
    overlap: Overlap
    missed: Missed
