"""How each recurring item stands, made of what the database knows: pure, without a statement of its own.

What counts is what a worker's scheduler goes by too: a line that operators gave wins over code, and of the lines that
live workers declare, that of the worker which started last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from backfill.ends import EndHow
from backfill.errors import BackfillError
from backfill.schedules import ScheduleInfo, ScheduleOrigin, ScheduleState
from backfill.storage.schedules import KnownSchedule, LastJob, LiveWorker, Look, SaidSchedule

if TYPE_CHECKING:
    from backfill.cron.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Found:
    """All that the database knows of recurring items at one moment.

    Attributes:
        look: the time, and who lives.
        crontabs: what code declares: the lines by identifier, by digest.
        resting: the lines of items that code declared and that no live worker declares, by identifier.
        said: what operators said, by identifier.
        known: since when schedulers know items, and their last runs, by identifier; perhaps of some items only.
        jobs: the last job of each item, likewise.
    """

    look: Look
    crontabs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    resting: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, SaidSchedule] = field(default_factory=dict)
    known: Mapping[str, KnownSchedule] = field(default_factory=dict)
    jobs: Mapping[str, LastJob] = field(default_factory=dict)

    def identifiers(self) -> list[str]:
        """The items that there are, sorted; one that operators added and removed again is there no more."""
        declared = {identifier for worker in self.look.workers for identifier in self._lines(worker)}
        said = {name for name, said in self.said.items() if said.removed_at is None and not said.is_silent}
        return sorted(declared | self.resting.keys() | said)

    def declared(self, identifier: str) -> list[str]:
        """The lines that live workers declare for an item; that of the worker which started last is the last one."""
        lines = (self._lines(worker).get(identifier) for worker in self.look.workers)
        return [line for line in lines if line is not None]

    def declared_by(self, identifier: str) -> int:
        """How many live workers declare an item."""
        groups = {(worker.digest, worker.schedules): worker for worker in self.look.workers}
        return sum(worker.alike for worker in groups.values() if identifier in self._lines(worker))

    def schedulers(self) -> int:
        """How many live workers schedule."""
        groups = {(worker.digest, worker.schedules): worker for worker in self.look.workers}
        return sum(worker.alike for worker in groups.values() if worker.schedules)

    def _lines(self, worker: LiveWorker) -> Mapping[str, str]:
        return {} if worker.digest is None else self.crontabs.get(worker.digest, {})


def info_of(found: Found, identifier: str) -> ScheduleInfo:
    """How an item stands that there is."""
    said = found.said.get(identifier)
    if said is not None and said.is_silent:
        said = None
    lines = found.declared(identifier)
    code_line = lines[-1] if lines else found.resting.get(identifier)
    of_operator = None if said is None else said.line
    line = of_operator or code_line or ""
    schedule = read_line(line, identifier)
    state = _state(said, declared=bool(lines))
    info = ScheduleInfo(
        identifier=identifier,
        line=line,
        schedule=schedule,
        origin=ScheduleOrigin.CODE if of_operator is None else ScheduleOrigin.OPERATOR,
        state=state,
        looked_at=found.look.clock,
        next_run=_next_run(schedule, state, found.look.clock),
        declared_by=found.declared_by(identifier),
        schedulers=found.schedulers(),
        code_line=code_line,
        other_lines=tuple(other for other in dict.fromkeys(lines) if other != lines[-1]),
    )
    return _with_runs(_with_words(info, said), found.known.get(identifier), found.jobs.get(identifier))


def read_line(line: str, identifier: str) -> Schedule | None:
    """The item of a line; None if this version cannot read it, or if it is the line of another item.

    Schedulers leave out both: a role that writes plain SQL may give an item any text.
    """
    from backfill.cron.text import parse_crontab  # noqa: PLC0415 (only programs that have recurring jobs load it)

    try:
        items = parse_crontab(line)
    except (BackfillError, ValueError):
        return None
    return items[0] if [item.identifier for item in items] == [identifier] else None


def _state(said: SaidSchedule | None, *, declared: bool) -> ScheduleState:
    if said is not None and said.removed_at is not None:
        return ScheduleState.REMOVED
    if said is not None and said.paused_at is not None:
        return ScheduleState.PAUSED
    if declared or (said is not None and said.line is not None):
        return ScheduleState.ACTIVE
    return ScheduleState.RESTING


def _next_run(schedule: Schedule | None, state: ScheduleState, now: datetime) -> datetime | None:
    from backfill.cron.runs import next_runs  # noqa: PLC0415 (as above)

    if schedule is None or state is not ScheduleState.ACTIVE:
        return None
    return next(iter(next_runs(schedule, now, 1)), None)


def _with_words(info: ScheduleInfo, said: SaidSchedule | None) -> ScheduleInfo:
    if said is None:
        return info
    return replace(
        info,
        paused_at=said.paused_at,
        paused_by=said.paused_by,
        removed_at=said.removed_at,
        said_by=said.said_by,
        said_at=said.said_at,
    )


def _with_runs(info: ScheduleInfo, known: KnownSchedule | None, job: LastJob | None) -> ScheduleInfo:
    if known is not None:
        info = replace(info, known_since=known.known_since, last_run=known.last_execution)
    if job is None:
        return info
    return replace(
        info,
        last_job_id=job.job_id,
        last_job_run=job.run,
        last_job_state=str(job.state),
        last_end=None if job.how is None else next((how for how in EndHow if how == job.how), None),
        last_ended_at=job.ended_at,
    )
