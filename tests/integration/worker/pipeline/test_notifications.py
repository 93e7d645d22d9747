"""Notifications that any role can send: none is believed, and a flood of them costs a bounded number of looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, SchemaVersionError, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.client.ends import watch as end_watch
from backfill.worker.pipeline import listener
from backfill.worker.pipeline.listener import Listener

from plugins.roles import NewRole
from plugins.waiting import Eventually, wait_until
from reading import rows

FLOOD = 3000
LISTENING: LiteralString = """
    select pid from pg_stat_activity
    where application_name like 'backfill %% listen' and state = 'idle' and query ~ 'Says whose add_job'"""
"""The listeners that have read the ledgers, which they do once they listen."""
BREAKING = '{"migrationNumber": 1000, "breaking": true}'


def _tasks(seen: list[Any]) -> TaskRegistry[None]:
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", keep=timedelta(hours=1))
    async def handler(payload: Any) -> None:
        seen.append(payload)

    return tasks


@pytest.fixture
async def stranger(role: NewRole) -> AsyncIterator[psycopg.AsyncConnection]:
    """A role that may connect, and nothing else."""
    async with await psycopg.AsyncConnection.connect(role(None), autocommit=True) as connection:
        yield connection


async def test_a_migration_that_never_was_stops_nobody(
    dsn: str, stranger: psycopg.AsyncConnection, eventually: Eventually
) -> None:
    """Whatever a stranger says of one; the worker goes on with the jobs that come then."""
    seen: list[Any] = []
    config = WorkerConfig(dsn, poll_interval=timedelta(seconds=30))
    async with WorkerRunner(config, _tasks(seen)), BackfillClient(dsn) as client:
        for number, said in enumerate((BREAKING, '{"breaking": true, "migrationNumber": true}', "[", "", "1e999")):
            await stranger.execute("select pg_notify('worker:migrate', %s)", [said])
            await client.enqueue("t", number)
            await eventually(lambda number=number: len(seen) == number + 1)


@pytest.mark.parametrize("table", ["migrations", "backfill_migrations"])
async def test_a_breaking_migration_in_a_ledger_stops_it(
    dsn: str, stranger: psycopg.AsyncConnection, eventually: Eventually, table: str
) -> None:
    """Either ledger's, and only then; the text of the notification does not matter."""
    running = asyncio.create_task(WorkerRunner(WorkerConfig(dsn), _tasks([])).run())
    columns = "(id, breaking) values (1000, true)"
    if table == "backfill_migrations":
        columns = "(id, name, breaking) values (1000, 'later', true)"
    await eventually(lambda: rows(dsn, LISTENING))
    await rows(dsn, f"insert into graphile_worker.{table} {columns}")
    async with asyncio.timeout(60):
        while not running.done():
            await stranger.execute("select pg_notify('worker:migrate', '')")
            await asyncio.wait([running], timeout=0.5)
    with pytest.raises(SchemaVersionError, match="migration 1000, which is breaking"):
        await running


async def test_a_migration_while_the_listener_was_away_ends_the_worker(dsn: str, eventually: Eventually) -> None:
    """Its notification came to nobody: whoever listens anew reads the ledgers."""
    running = asyncio.create_task(WorkerRunner(WorkerConfig(dsn), _tasks([])).run())
    [[pid]] = await eventually(lambda: rows(dsn, LISTENING))
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("lock table graphile_worker.migrations")  # so that the new listener waits for the row
        await connection.execute("insert into graphile_worker.migrations (id, breaking) values (1000, true)")
        await connection.execute("select pg_terminate_backend(%s)", [pid])
    with pytest.raises(SchemaVersionError, match="migration 1000, which is breaking"):
        await asyncio.wait_for(running, 60)


@asynccontextmanager
async def _listening(dsn: str, asked: list[int | None], claimed: list[int]) -> AsyncIterator[Listener]:
    one = Listener(
        dsn, schema="graphile_worker", worker="w", wake=lambda: asked.append(None), hear=asked.append,
        claimed=lambda: claimed[0],
    )  # fmt: skip
    one.start()
    try:
        await wait_until(lambda: asked)  # it has connected
        asked.clear()
        yield one
    finally:
        await one.stop(5.0)


async def _flood(stranger: psycopg.AsyncConnection, channel: str, payload: str) -> None:
    async with stranger.pipeline():
        for number in range(FLOOD):
            await stranger.execute("select pg_notify(%s, %s)", [channel, payload.replace("#", str(number))])


async def test_a_flood_costs_few_looks_and_none_is_lost(
    dsn: str, stranger: psycopg.AsyncConnection, eventually: Eventually
) -> None:
    """3,000 notifications of a job each are told as fewer ones of more, by a clock; the last of them is told too."""
    asked: list[int | None] = []
    async with _listening(dsn, asked, [0]):
        begun = time.monotonic()
        await _flood(stranger, "jobs:insert", '{"count": 1, "r": #}')
        await eventually(lambda: sum(count or 0 for count in asked), lambda total: total == FLOOD)
        seconds = time.monotonic() - begun
    assert len(asked) <= listener.LOOKS_AT_ONCE + listener.LOOKS_PER_SECOND * seconds + 1
    assert None not in asked


async def test_what_is_claimed_makes_no_look_wait(
    dsn: str, stranger: psycopg.AsyncConnection, eventually: Eventually
) -> None:
    """A worker that finds a job for each notification is told of each at once."""
    asked: list[int | None] = []
    claimed = [0]
    async with _listening(dsn, asked, claimed):
        for number in range(1, 3 * listener.LOOKS_AT_ONCE):
            await stranger.execute("select pg_notify('jobs:insert', %s)", [f'{{"count": 1, "r": {number}}}'])
            await eventually(lambda number=number: len(asked) == number)
            claimed[0] += 1


async def test_a_flood_about_ends_costs_few_looks(
    dsn: str, stranger: psycopg.AsyncConnection, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who awaits a result looks for it so often and no oftener, and still hears of it."""
    looks = 0
    find_ends = end_watch.find_ends

    def counted(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return find_ends(*arguments)

    monkeypatch.setattr(end_watch, "find_ends", counted)
    async with BackfillClient(dsn) as client:
        outcome = await client.enqueue("t", 1)
        begun = time.monotonic()
        waiting = asyncio.create_task(client.result(outcome, timeout=60))
        await eventually(
            lambda: rows(dsn, "select pid from pg_stat_activity where application_name = 'backfill results'")
        )
        await _flood(stranger, "backfill:ends", "[#, 1]")
        await WorkerRunner(WorkerConfig(dsn), _tasks([])).process_available_jobs()
        assert await waiting is None
        seconds = time.monotonic() - begun
    assert looks <= end_watch.LOOKS_AT_ONCE + end_watch.LOOKS_PER_SECOND * seconds + 3
