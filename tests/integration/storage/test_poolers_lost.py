"""Behind PgBouncer, when connections are lost: nothing that was claimed is forgotten, and no other program is hurt."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.storage.wire import Command, Wire
from backfill.worker.pipeline.hot import ConnectionLostError, HotConnections

from plugins.periods import work_for
from plugins.pooler import assert_sessions_are_clean
from plugins.waiting import Eventually
from reading import rows, value

JOBS = 2_000
KILL: LiteralString = """select count(pg_terminate_backend(pid)) from pg_stat_activity
                         where datname = current_database() and pid <> pg_backend_pid()"""
SLOW = "insert into graphile_worker._private_tasks (identifier) values ('slow') returning pg_sleep(1)"
SLEEPING: LiteralString = (
    "select count(*) from pg_stat_activity where query like 'insert%pg_sleep%' and state = 'active'"
)


async def test_sessions_that_are_killed(dsn: str, pooled_dsn: str, eventually: Eventually) -> None:
    """A worker outlives its pooler's sessions: every job runs, and nothing stays locked."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: Counter[int] = Counter()

    @tasks.task("plain")
    async def plain(number: int) -> None:
        seen[number] += 1
        await work_for(0.001)

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk("plain", range(JOBS))
    config = WorkerConfig(pooled_dsn, listen=False, concurrency=20, poll_interval=timedelta(milliseconds=50))
    async with WorkerRunner(config, tasks):
        for part in range(1, 5):
            await eventually(lambda part=part: len(seen) >= part * JOBS // 6)
            await rows(dsn, KILL)
        await eventually(lambda: value(dsn, "select count(*) from graphile_worker.jobs"), lambda left: left == 0)
    assert set(seen) == set(range(JOBS))


async def test_a_lost_claim_is_waited_for_and_others_are_left_alone(
    dsn: str, pooled_dsn: str, eventually: Eventually
) -> None:
    """Behind a pooler a session keeps its last user's name.

    Nobody is ended by it, the lost transaction is waited for.
    """

    async def compare(_: Wire) -> int:
        return 0

    hot = HotConnections(pooled_dsn, schema="graphile_worker", worker="backfill_test", compare=compare)
    await hot.open()
    try:
        for _ in range(6):  # until every session has had our name
            async with hot.line(0) as wire:
                await wire.send([Command("test.name", "select 1")], timeout=10)
        other = await psycopg.AsyncConnection.connect(pooled_dsn, prepare_threshold=None)
        async with other:
            cursor = await other.execute("select current_setting('application_name')")
            assert await cursor.fetchone() == ("backfill backfill_test",)  # what makes it look like one of ours
            with pytest.raises(ConnectionLostError):
                await _lose_in_the_middle(hot, dsn, eventually)
            assert hot.in_doubt
            async with hot.line(0) as wire:
                assert not hot.in_doubt
                assert await value(dsn, SLEEPING) == 0
                assert await value(dsn, "select count(*) from graphile_worker._private_tasks") == 1
            await other.execute("select")
    finally:
        await hot.close()
    await assert_sessions_are_clean(pooled_dsn)


async def test_a_lost_claim_is_waited_for_where_the_dsn_has_a_name_of_its_own(dsn: str, eventually: Eventually) -> None:
    """A session that bears another name than its worker's cannot be found by it.

    What is under way there is waited for.
    """

    async def compare(_: Wire) -> int:
        return 0

    named = make_conninfo(dsn, application_name="shared")
    hot = HotConnections(named, schema="graphile_worker", worker="backfill_test", compare=compare)
    await hot.open()
    try:
        with pytest.raises(ConnectionLostError):
            await _lose_in_the_middle(hot, dsn, eventually)
        async with hot.line(0):
            assert await value(dsn, SLEEPING) == 0
    finally:
        await hot.close()


async def _lose_in_the_middle(hot: HotConnections, dsn: str, eventually: Eventually) -> None:
    """Send something slow on a line, and lose the connection while it is under way."""
    async with hot.line(0) as wire:
        sending = asyncio.create_task(wire.send([Command("test.slow", SLOW)], timeout=30))
        await eventually(lambda: value(dsn, SLEEPING), lambda count: count == 1)
        _cut(wire.connection.pgconn.socket)
        await sending


def _cut(descriptor: int) -> None:
    """Shut a connection's socket under it, as a lost network would."""
    with socket.socket(fileno=os.dup(descriptor)) as doomed:
        doomed.shutdown(socket.SHUT_RDWR)
