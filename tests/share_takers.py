"""Sessions that take shares of a limit as workers do, without workers: for the tests of shares."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import psycopg

from backfill.storage.claims import LaneFilter, Look
from backfill.storage.shares import (
    EffectiveLimit,
    Grant,
    LimitedClaim,
    ShareAsk,
    pass_command,
    read_grants,
    read_limits,
    read_passed,
    read_swept,
    take_command,
)
from backfill.storage.statements import render
from backfill.storage.value_claims import ValueClaim, ValueLook, ValuesTaken
from backfill.storage.wire import Command, Wire

SCHEMA = "graphile_worker"
TASK = "limited"
_ADD = """
with task as (
  insert into graphile_worker._private_tasks (identifier) values ($1)
  on conflict (identifier) do update set identifier = excluded.identifier returning id
)
insert into graphile_worker._private_jobs (task_id, run_at, flags)
select task.id, now() - interval '1 hour' + n * interval '1 ms', case
  when $3 > 0
    then jsonb_build_object('backfill.limited', true, 'backfill.limit:' || 'value' || n % $3, true)
  end
from task, generate_series(1, $2) as n
"""
_EMPTY = """
truncate graphile_worker._private_jobs, graphile_worker.backfill_shares, graphile_worker.backfill_limit_states
"""
_COMPLETE = "delete from graphile_worker._private_jobs where id = any ($2::bigint[]) and locked_by = $1 returning id"
_RETURN = """
update graphile_worker._private_jobs set locked_at = null, locked_by = null, attempts = greatest(attempts - 1, 0)
where id = any ($2::bigint[]) and locked_by = $1 returning id
"""
_RENEW = "update graphile_worker._private_jobs set locked_at = now() where locked_by = $1"
_RECOVER = """
update graphile_worker._private_jobs set locked_at = null, locked_by = null where locked_by = $1 returning id
"""
_HELD = "select id from graphile_worker._private_jobs where locked_by = $1 order by id"
_SHARES = """
select shares.job_id, min(shares.slot)
from graphile_worker.backfill_shares as shares
join graphile_worker._private_jobs as jobs on jobs.id = shares.job_id and jobs.locked_by = shares.worker
where shares.worker = $1
group by shares.job_id
"""
_LIVE = """
select count(distinct jobs.id)
from graphile_worker.backfill_shares as shares
join graphile_worker._private_jobs as jobs on jobs.id = shares.job_id and jobs.locked_by = shares.worker
"""


async def session(dsn: str) -> psycopg.AsyncConnection[Any]:
    """A session with the settings of a worker's hot connection."""
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True, cursor_factory=psycopg.AsyncRawCursor)
    await connection.execute(render("set_hot", SCHEMA), [False])
    return connection


class Field:
    """The queue seen from outside: jobs are added, limits are said, shares are counted.

    Args:
        connection: a session of its own.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection
        self.ids: dict[str, int] = {}

    async def empty(self) -> None:
        """Take away all jobs and slots."""
        await self.connection.execute(_EMPTY)

    async def add(self, count: int, *, values: int = 0, task: str = TASK) -> None:
        """Add jobs of the limited task, each with one of so many values."""
        await self.connection.execute(_ADD, [task, count, values])
        found = await self.connection.execute("select identifier, id from graphile_worker._private_tasks")
        self.ids = dict(await found.fetchall())

    async def limit(self, most: int | None, rate: tuple[int, float, int] | None = None, by: str | None = None) -> None:
        """Say the task's limit as an operator does; a rate is its count, period and burst."""
        terms = None if rate is None else dict(zip(("count", "per", "burst"), rate, strict=True))
        said = json.dumps({"most": most, "by": by, "rate": terms})
        await self.connection.execute(render("say", SCHEMA), ["limit", f"task:{TASK}", said, "test", ""])

    async def live(self) -> int:
        """How many jobs have a share."""
        return int((await self.rows(_LIVE))[0][0])

    async def limits(self) -> dict[str, EffectiveLimit]:
        """The limits that hold now."""
        return read_limits(await self._asked("find_limits"))

    async def resolve(self) -> None:
        """Have the limits worked out anew."""
        await self._asked("resolve_limits")

    async def sweep(self) -> int:
        """Delete slots that nothing needs; returns of how many values."""
        return read_swept(await self._asked("sweep_shares", 500))

    async def recover(self, worker: str) -> None:
        """Unlock all jobs of a worker, as others do that think it dead."""
        await self.rows(_RECOVER, worker)

    async def waiting(self) -> int:
        """How many jobs are left, running ones included."""
        return int((await self.rows("select count(*) from graphile_worker._private_jobs"))[0][0])

    async def _asked(self, statement: str, *values: Any) -> Any:
        async with self.connection.cursor(binary=True) as cursor:
            await cursor.execute(render(statement, SCHEMA), values)
            return cursor.pgresult

    async def rows(self, query: Any, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return await (await self.connection.execute(query, values)).fetchall()


class Taker:
    """A worker's side of a limit: it claims, passes and ends, and knows which of its jobs have a share.

    Args:
        connection: a session of its own, as `session` makes it.
        worker: the worker's id.
        field: where the tasks' ids are known.
        by: the limit's `by`.

    Attributes:
        running: its jobs that have a share.
        ahead: its jobs that have none yet.
        slots: the slots of its running jobs.
    """

    def __init__(
        self, connection: psycopg.AsyncConnection[Any], worker: str, field: Field, by: str | None = None
    ) -> None:
        self.connection, self.worker, self.field = connection, worker, field
        self.wire = Wire(connection)
        self.running: list[int] = []
        self.ahead: list[int] = []
        self.slots: dict[int, int] = {}
        self.claim = LimitedClaim(SCHEMA, (LaneFilter(tasks=(TASK,)),), by)
        self.values = ValueClaim(SCHEMA, TASK, by or "", (LaneFilter(tasks=(TASK,)),))

    async def send(self, *commands: Command) -> list[Any]:
        """One transaction."""
        return await self.wire.send(commands, timeout=30)

    async def take(self, wanted: int, ahead: int = 0, *, before: Iterable[Command] = ()) -> Grant:
        """Take shares and claim, after some other statements in the same transaction."""
        first = list(before)
        commands = self.claim.commands(
            Look(wanted + ahead, scan_jobs=False), worker=self.worker, bound=self.claim.bind(self.field.ids)
        )
        ask = ShareAsk(TASK, wanted, ahead, self.claim.by)
        results = await self.send(*first, take_command(ask, schema=SCHEMA), *commands)
        grant = read_grants(results[len(first)])
        names = {number: name for name, number in self.field.ids.items()}
        jobs = [job.id for job in self.claim.read(results[len(first) + 1 :], names).jobs]
        self.running += jobs[: grant.granted]
        self.slots.update(zip(jobs, grant.slots, strict=False))
        self.ahead += jobs[grant.granted :]
        return grant

    async def take_values(self, look: ValueLook) -> ValuesTaken:
        """One look for jobs with values."""
        commands = self.values.commands(look, worker=self.worker, bound=self.values.bind(self.field.ids))
        taken = self.values.read(await self.send(*commands), {n: name for name, n in self.field.ids.items()})
        self.running += [job.id for job in taken.jobs if taken.shares[job.id].has_share]
        self.ahead += [job.id for job in taken.jobs if not taken.shares[job.id].has_share]
        return taken

    def passed(self, pairs: Iterable[tuple[int, int]]) -> Command:
        """The statement that passes shares."""
        return pass_command(pairs, worker=self.worker, schema=SCHEMA)

    def complete(self, *jobs: int) -> Command:
        """A statement that ends jobs."""
        return Command("test.complete", _COMPLETE, (self.worker, f"{{{','.join(map(str, jobs))}}}"))

    def give_back(self, *jobs: int) -> Command:
        """A statement that gives jobs back, as they were."""
        return Command("test.return", _RETURN, (self.worker, f"{{{','.join(map(str, jobs))}}}"))

    def renew(self) -> Command:
        """A statement that renews all locks of the worker."""
        return Command("test.renew", _RENEW, (self.worker,))

    async def hand_over(self, ended: int, begun: int) -> frozenset[int]:
        """End a job whose share another one has by now; returns to which jobs a share was passed."""
        return read_passed((await self.send(self.passed([(ended, begun)]), self.complete(ended)))[0])

    async def adopt(self) -> None:
        """After a lost answer: hold what is locked by this worker, with the shares that it has."""
        held = [row[0] for row in await self.field.rows(_HELD, self.worker)]
        self.slots = dict(await self.field.rows(_SHARES, self.worker))
        self.running = [job for job in held if job in self.slots]
        self.ahead = [job for job in held if job not in self.slots]


MakeTaker = Callable[..., Awaitable[Taker]]
"""Makes a session that takes shares, of a worker's id and of the field of the limit."""
