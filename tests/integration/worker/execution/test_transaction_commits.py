"""Commits of `ctx.transaction()` whose answers are lost: each is looked at before anything is decided about its job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

import sessions
from backfill import BackfillClient, JobComplete, JobInterrupted, RetryPolicy, WorkerConfig, WorkerRunner
from faults.proxy import Proxy
from own_transactions import JOBS, Adding, make_sums, summed

from plugins.away import OwnServer
from plugins.periods import let_pass
from plugins.waiting import Eventually
from programs import own_temp_folder
from reading import rows, value

KINDS = pytest.mark.parametrize("kind", ["async", "thread", "async psycopg", "async asyncpg", "thread psycopg2"])
WAIT_AT_COMMIT: LiteralString = """
create or replace function wait_for_leave() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(7);
  return null;
end $$;
create constraint trigger wait_for_leave after update on sums
deferrable initially deferred for each row execute function wait_for_leave()
"""
WAITING: LiteralString = """
select count(*) from pg_stat_activity where wait_event_type = 'Lock' and wait_event = 'advisory'
"""
END_WAITING: LiteralString = """
select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' and wait_event = 'advisory'
"""
OTHER_TIMELINE: LiteralString = """
create or replace function graphile_worker.backfill_timeline() returns text language sql as $$ select 'other' $$
"""
SOON = RetryPolicy(9, timedelta(milliseconds=10), timedelta(milliseconds=10), 1.0, 0.0)


class Heard:
    """A plugin that notes how attempts ended."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def register(self, hooks: Any) -> None:
        """Hear of ends."""
        for event in (JobComplete, JobInterrupted):
            hooks.on(event, lambda one: self.told.append(type(one).__name__))


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    """A server that all tests of this file share."""
    with own_temp_folder() as folder:
        one = OwnServer(folder / "server")
        yield one
        one.end()


@pytest.fixture
async def far(server: OwnServer) -> AsyncIterator[Proxy]:
    """The way to a new queue, and to a table of sums at whose commit everybody waits."""
    await rows(server.dsn, "drop schema if exists graphile_worker cascade; drop table if exists sums")
    async with BackfillClient(server.dsn, migrate=True):
        await make_sums(server.dsn)
    await rows(server.dsn, WAIT_AT_COMMIT)
    async with Proxy(server.socket).listening() as one:
        yield one


@asynccontextmanager
async def cut_at_commit(
    server: OwnServer, far: Proxy, kind: str, eventually: Eventually
) -> AsyncIterator[tuple[Adding | sessions.Adding, Heard, psycopg.AsyncConnection[Any]]]:
    """A worker whose connections are cut while its handler's commit is in progress on the server.

    It gives the connection that holds the commit up. A kind with a driver has a session of its own.
    """
    heard = Heard()
    adding = sessions.Adding(far.dsn, kind, enqueues=False) if " " in kind else Adding()
    async with (
        await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as gate,
        BackfillClient(server.dsn) as client,
    ):
        await gate.execute("select pg_advisory_lock(7)")
        config = WorkerConfig(far.dsn, retry=SOON, poll_interval=timedelta(milliseconds=100))
        async with WorkerRunner(config, adding.tasks, plugins=[heard]):
            await client.enqueue("add" if " " in kind else kind, 5)
            await eventually(lambda: value(server.dsn, WAITING), lambda count: count == 1)
            assert far.cut() > 0
            yield adding, heard, gate
            await eventually(lambda: value(server.dsn, JOBS), lambda count: count == 0)
            await eventually(lambda: heard.told)


@KINDS
async def test_it_was_committed(server: OwnServer, far: Proxy, kind: str, eventually: Eventually) -> None:
    """Nothing is decided while it is in progress; the job is completed then, and does not run again."""
    async with cut_at_commit(server, far, kind, eventually) as (adding, heard, gate):
        await let_pass(0.5)
        assert heard.told == []
        await gate.execute("select pg_advisory_unlock(7)")
    assert (adding.runs, heard.told, await summed(server.dsn)) == ([1], ["JobComplete"], 5)


@KINDS
async def test_it_was_not_committed(server: OwnServer, far: Proxy, kind: str, eventually: Eventually) -> None:
    """The server gives the commit up: the row is still locked by the attempt, which fails, and the next one does it."""
    async with cut_at_commit(server, far, kind, eventually) as (adding, heard, gate):
        await rows(server.dsn, END_WAITING)
        await gate.execute("select pg_advisory_unlock(7)")
    assert (adding.runs, heard.told, await summed(server.dsn)) == ([1, 2], ["JobComplete"], 5)


@KINDS
async def test_on_another_timeline_it_is_not_believed(
    server: OwnServer, far: Proxy, kind: str, eventually: Eventually
) -> None:
    """Its id may stand for another transaction there. The row is gone, so nobody runs the job again."""
    async with cut_at_commit(server, far, kind, eventually) as (adding, heard, gate):
        far.pause()
        await gate.execute("select pg_advisory_unlock(7)")
        await eventually(lambda: summed(server.dsn), lambda total: total == 5)
        await rows(server.dsn, OTHER_TIMELINE)
        far.go_on()
    assert (adding.runs, heard.told, await summed(server.dsn)) == ([1], ["JobInterrupted"], 5)


async def test_on_another_timeline_the_row_counts(server: OwnServer, far: Proxy, eventually: Eventually) -> None:
    """A standby that took over without the commit has the row as it was, so the job runs again there."""
    async with cut_at_commit(server, far, "async", eventually) as (adding, heard, gate):
        far.pause()
        await rows(server.dsn, END_WAITING)
        await eventually(lambda: value(server.dsn, WAITING), lambda count: count == 0)
        await rows(server.dsn, OTHER_TIMELINE)
        await gate.execute("select pg_advisory_unlock(7)")
        far.go_on()
    assert (adding.runs, heard.told, await summed(server.dsn)) == ([1, 2], ["JobComplete"], 5)


async def test_a_worker_that_stops_in_doubt_gives_back(server: OwnServer, far: Proxy, eventually: Eventually) -> None:
    """The giving back waits for the row, and finds none once the commit has taken effect."""
    adding, heard = Adding(), Heard()
    async with (
        await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as gate,
        BackfillClient(server.dsn) as client,
    ):
        await gate.execute("select pg_advisory_lock(7)")
        config = WorkerConfig(far.dsn, retry=SOON, shutdown_timeout=timedelta(milliseconds=100))
        async with WorkerRunner(config, adding.tasks, plugins=[heard]):
            await client.enqueue("async", 5)
            await eventually(lambda: value(server.dsn, WAITING), lambda count: count == 1)
            assert far.cut() > 0
            asyncio.get_running_loop().call_later(
                1.0, lambda: asyncio.ensure_future(gate.execute("select pg_advisory_unlock(7)"))
            )
        await eventually(lambda: value(server.dsn, JOBS), lambda count: count == 0)
    assert (adding.runs, await summed(server.dsn)) == ([1], 5)
