"""Each recurring job that a scheduler adds to a database, whoever adds it: noted by a trigger on the jobs' table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString, NamedTuple

from backfill.cron import Schedule, runs_between

from reading import rows

_NOTES: LiteralString = """
create table ticks (
  task text not null, mark text not null, run timestamptz not null, backfilled boolean not null,
  run_at timestamptz not null, job jsonb not null,
  added_at timestamptz not null default clock_timestamp(),
  added_by text not null default current_setting('application_name')
);
create function note_tick() returns trigger language plpgsql as $$
begin
  insert into ticks (task, mark, run, backfilled, run_at, job)
  select tasks.identifier, new.payload -> '_cron' ->> 'ts', (new.payload -> '_cron' ->> 'ts')::timestamptz,
         (new.payload -> '_cron' ->> 'backfilled')::boolean, new.run_at,
         jsonb_build_object('payload', new.payload::jsonb - '_cron', 'priority', new.priority, 'key', new.key,
                            'queue', new.job_queue_id, 'flags', new.flags)
  from graphile_worker._private_tasks as tasks
  where tasks.id = new.task_id and new.payload -> '_cron' ->> 'ts' is not null;
  return null;
end
$$;
create trigger note_tick after insert or update of payload on graphile_worker._private_jobs
for each row execute function note_tick()
"""
_ALL: LiteralString = """
select task, mark, run, backfilled, extract(epoch from added_at - run)::float8, run_at = run, job::text, added_by
from ticks order by run, task
"""


class Tick(NamedTuple):
    """A job that was added for a run of an item."""

    task: str
    mark: str
    """The run as the payload has it."""
    run: datetime
    backfilled: bool
    late: float
    """How many seconds after the run it was added, by the database's clock."""
    at_its_run: bool
    """Whether the job's run_at is the run."""
    job: str
    """The payload without what the scheduler writes, and the job's settings."""
    added_by: str
    """The application's name that the scheduler's connection has."""


@dataclass(frozen=True)
class Ticks:
    """The ticks of a database; each item there has a task of its own."""

    dsn: str

    async def open(self) -> None:
        """Begin to note them."""
        await rows(self.dsn, _NOTES)

    async def all(self) -> list[Tick]:
        """Those so far."""
        return [Tick(*row) for row in await rows(self.dsn, _ALL)]


def expected(schedules: Iterable[Schedule], start: datetime, end: datetime) -> Counter[tuple[str, datetime]]:
    """The runs of items from a time on and before another, each once."""
    return Counter((item.task, run) for item in schedules for run in runs_between(item, start, end))


def missing(ticks: Iterable[Tick], wanted: Counter[tuple[str, datetime]]) -> list[str]:
    """The runs that were wanted and are not there."""
    return _shown(wanted - _counted(ticks))


def more_than(ticks: Iterable[Tick], wanted: Counter[tuple[str, datetime]]) -> list[str]:
    """The runs that were not wanted, or not that often."""
    return _shown(_counted(ticks) - wanted)


def _counted(ticks: Iterable[Tick]) -> Counter[tuple[str, datetime]]:
    return Counter((tick.task, tick.run) for tick in ticks)


def _shown(runs: Counter[tuple[str, datetime]]) -> list[str]:
    return sorted(f"{run:%d %H:%M:%S} {task} ({count})" for (task, run), count in runs.items())
