"""Gates on what the server is asked for: statements and commits a job, as the server itself counts them.

Statements are those of pg_stat_statements, everything that a program sends included: its start, its looks, its beats. Both
counts hardly change from run to run, whatever else the machine does. `nox -s gates` starts a server that has the extension
loaded, and no autovacuum, whose commits would count too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from backfill import BackfillClient, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

from plugins.waiting import wait_until

BACKLOG: Final = 20_000
BULK: Final = 10_000
SINGLE: Final = 100
COUNTS: Final = """
select
  (select coalesce(sum(calls), 0)::bigint from pg_stat_statements where dbid = databases.datid),
  databases.xact_commit,
  databases.numbackends
from pg_stat_database as databases
where databases.datname = %s
"""
TOP: Final = """
select calls, left(regexp_replace(query, '\\s+', ' ', 'g'), 90)
from pg_stat_statements
where dbid = (select oid from pg_database where datname = %s)
order by calls desc
limit 12
"""
WRITERS: Final = """
select count(*) from graphile_worker._private_jobs group by xmin order by count(*) desc limit 1
"""
Program = Callable[[BackfillClient], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a program cost the server."""

    statements: int
    commits: int

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.statements - other.statements, self.commits - other.commits)

    def a_job(self, jobs: int) -> tuple[float, float]:
        """Statements and commits for each job."""
        return self.statements / jobs, self.commits / jobs


class Meter:
    """Reads a database's counts from outside of it, by a connection to another database."""

    def __init__(self, observer: psycopg.Connection[Any], dsn: str) -> None:
        self._observer = observer
        self._name = conninfo_to_dict(dsn)["dbname"]
        self.dsn = dsn

    async def cost(self, program: Callable[[], Awaitable[object]]) -> Cost:
        """Run a program that closes all of its connections; only then has the server all of its counts."""
        before = await self._settled()
        await program()
        cost = await self._settled() - before
        print(f"\n{cost}")
        return cost

    async def client_cost(self, program: Program) -> Cost:
        """What a program costs beyond opening and closing its client, and a connection's first two jobs.

        The first makes the task, once in a database; at the second its statement is prepared, once in a connection.
        """

        async def using(inner: Program | None) -> None:
            async with BackfillClient(self.dsn) as client:
                for _ in range(2):
                    await client.enqueue("noop", {})
                if inner is not None:
                    await inner(client)

        await using(None)
        return await self.cost(lambda: using(program)) - await self.cost(lambda: using(None))

    def top(self) -> str:
        """The statements that came most often."""
        rows = self._observer.execute(TOP, [self._name]).fetchall()
        return "\n".join(f"{calls:6} {text}" for calls, text in rows)

    async def _settled(self) -> Cost:
        statements, commits, _ = await wait_until(self._read, lambda row: row[2] == 0)
        return Cost(statements, commits)

    def _read(self) -> tuple[int, int, int]:
        row = self._observer.execute(COUNTS, [self._name]).fetchone()
        assert row is not None
        return row


@pytest.fixture
def meter(dsn: str, empty_dsn: str) -> Iterator[Meter]:
    """Counts of a new database with the queue's schema."""
    with psycopg.connect(make_conninfo(empty_dsn), autocommit=True) as observer:
        observer.execute("create extension pg_stat_statements")
        yield Meter(observer, dsn)


async def _run(dsn: str, jobs: int) -> None:
    """A worker from its start to its stop, with so many jobs to run between."""
    done = asyncio.Event()
    registry: TaskRegistry[None] = TaskRegistry()
    left = jobs

    @registry.task("noop")
    async def noop(payload: dict[str, Any]) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async with WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(100)]), registry):
        await asyncio.wait_for(done.wait(), 60)


async def test_a_backlog_costs_few_statements_and_commits(meter: Meter) -> None:
    """A worker with a backlog settles and claims by the hundred, both in one commit; its start and stop are left out."""
    costs = []
    for jobs in (1, BACKLOG):
        async with BackfillClient(meter.dsn) as client:
            await client.enqueue_bulk("noop", ({"user": user} for user in range(jobs)))
        costs.append(await meter.cost(lambda jobs=jobs: _run(meter.dsn, jobs)))
    statements, commits = (costs[1] - costs[0]).a_job(BACKLOG)
    assert statements <= 0.008, f"{statements}, {commits}\n{meter.top()}"
    assert commits <= 0.0033, f"{statements}, {commits}\n{meter.top()}"


async def test_a_single_job_is_one_statement_and_one_commit(meter: Meter) -> None:
    """Enqueueing one job costs the server one statement and one commit."""

    async def enqueue(client: BackfillClient) -> None:
        for user in range(SINGLE):
            await client.enqueue("noop", {"user": user})

    cost = await meter.client_cost(enqueue)
    assert cost.a_job(SINGLE) == (1, 1), f"{cost}\n{meter.top()}"


async def test_a_bulk_is_one_transaction_and_a_handful_of_statements(meter: Meter) -> None:
    """10,000 jobs are written by one transaction, behind one that makes missing names; statements do not grow with them."""

    async def bulk(client: BackfillClient) -> None:
        await client.enqueue_bulk("noop", ({"user": user} for user in range(BULK)))

    cost = await meter.client_cost(bulk)
    assert cost.commits == 2, f"{cost}\n{meter.top()}"
    assert cost.statements <= 8, f"{cost}\n{meter.top()}"
    async with await psycopg.AsyncConnection.connect(meter.dsn) as connection:
        cursor = await connection.execute(WRITERS)
        assert (await cursor.fetchone()) == (BULK,)
