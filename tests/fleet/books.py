"""The books of a fleet: what was asked of it, what its handlers did and who was killed; and whether all of it balances.

Everything is judged from outside, by tables of the tests. Handlers write an attempt before and after their work, a
trigger writes when a worker was given up, and the harness writes what it asked for and whom it killed.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest

from fleet.rules import RULES

from reading import rows

TABLES: LiteralString = """
create table asked (
  seq bigint primary key, kind text not null, number bigint, job_key text, acknowledged boolean not null,
  at timestamptz, returned timestamptz, replaced boolean not null
);
create table attempts (
  token uuid primary key, job_id bigint not null, number bigint not null, attempt integer not null,
  worker text not null,
  process text not null, queue text, began timestamptz not null, ended timestamptz, good boolean
);
create index on attempts (job_id);
create index on attempts (number);
create table kills (process text primary key, at timestamptz not null);
create table lost_windows (process text not null, at timestamptz not null, primary key (process, at));
create table recoveries (worker text not null, at timestamptz not null);

create function note_recovery() returns trigger language plpgsql as $$
begin
  insert into public.recoveries values (new.id, clock_timestamp());
  return null;
end;
$$;
create trigger note_recovery after update of given_up_at on graphile_worker.backfill_workers
for each row when (old.given_up_at is null and new.given_up_at is not null)
execute function note_recovery();

-- An attempt lasts until it said so or its process was killed; one that neither befell has not ended. It may have been
-- in a window that was lost if its process said so while it ran, or in the second after: others may run its job then.
create view stints as
select
  attempts.*, kills.at as killed_at, recovered.at as recovered_at,
  (
    select min(lost_windows.at)
    from lost_windows
    where lost_windows.process = attempts.process
      and lost_windows.at >= attempts.began
      and lost_windows.at < coalesce(attempts.ended, 'infinity') + interval '1 second'
  ) as lost_at,
  least(coalesce(attempts.ended, 'infinity'), coalesce(kills.at, 'infinity')) as until
from attempts
left join kills on kills.process = attempts.process
left join (select worker, min(at) as at from recoveries group by worker) as recovered
  on recovered.worker = attempts.worker;

create view dead as
select
  original_job_id as job_id, (payload ->> 'number')::bigint as number, (payload ->> 'fails')::integer as fails, job_key,
  failure_count, attempts, max_attempts, failure_reason
from graphile_worker.backfill_dlq;
"""


@dataclass(slots=True)
class Ask:
    """One thing that a producer asked for.

    Attributes:
        kind: `add`, or `remove` for a job's removal by its key.
        number: of the job, its own in all the books; None for a removal.
        key: the job's key, if any. What has a key is asked for by one producer at a time.
        acknowledged: whether the call returned; else nobody knows whether it was done.
        at: when the call began, if it is known.
        returned: when it returned, if it is known.
        replaced: whether it said that it replaced a waiting job of this key, whose payload is gone then.
    """

    kind: str
    number: int | None = None
    key: str | None = None
    acknowledged: bool = False
    at: dt.datetime | None = None
    returned: dt.datetime | None = None
    replaced: bool = False


class Books:
    """The harness's side of the books; it is kept in memory, so that it can be kept while the database is away.

    Args:
        dsn: of the database, which has the queue's schema.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.asks: list[Ask] = []
        self.kills: dict[str, dt.datetime] = {}
        self._written = 0

    async def open(self) -> None:
        """Make the tables."""
        await rows(self.dsn, TABLES)

    def ask(self, *asks: Ask) -> None:
        """Note what is about to be asked for, in this order."""
        self.asks.extend(asks)

    def killed(self, process: str) -> None:
        """Note that a process is dead now, unless that is noted already."""
        self.kills.setdefault(process, dt.datetime.now(dt.UTC))

    async def write(self) -> None:
        """Write down what is in memory, and forget it."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            cursor = connection.cursor()
            await cursor.executemany(
                "insert into kills values (%s, %s) on conflict do nothing", list(self.kills.items())
            )
            async with cursor.copy("copy asked from stdin") as copy:
                for ask in self.asks:
                    self._written += 1
                    await copy.write_row(
                        (
                            self._written, ask.kind, ask.number, ask.key, ask.acknowledged, ask.at, ask.returned,
                            ask.replaced,
                        )
                    )  # fmt: skip
        self.asks.clear()


async def violations(dsn: str, *, excused: bool = False, express: bool = False) -> dict[str, list[dict[str, Any]]]:
    """The rows that break a rule, a list a rule; nothing where the books balance.

    Args:
        dsn: of the database.
        excused: whether attempts may overlap where the recovery of the first one's worker was recorded before the
            second began.
        express: whether tasks are express, so that a kill may not count that met a job in its first attempt.
    """
    found = {}
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
        for name, query in RULES.items():
            cursor = await connection.execute(query, {"excused": excused, "express": express})
            broken = await cursor.fetchall()
            if broken:
                found[name] = broken
    return found


async def balance(books: Books, *, excused: bool = False, express: bool = False, note: str = "") -> None:
    """Write the books down and fail the test unless they balance, with the rows that break a rule.

    Args:
        books: the harness's.
        excused: see `violations`.
        express: see `violations`.
        note: said beside a failure, such as a seed.
    """
    await books.write()
    found = await violations(books.dsn, excused=excused, express=express)
    if found:
        lines = [note] if note else []
        for name, broken in found.items():
            lines.append(f"{name}: {len(broken)} rows")
            lines += [f"  {_text(row)}" for row in broken[:8]]
        pytest.fail("the books do not balance\n" + "\n".join(lines))


def _text(row: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in row.items() if value is not None)


def _short(value: Any) -> str:
    return value.strftime("%H:%M:%S.%f")[:-3] if isinstance(value, dt.datetime) else str(value)
