"""Workers and clients while the server is away, and how soon they are back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest

from backfill import BackfillClient, DatabaseConnectionError, TaskRegistry, WorkerConfig, WorkerRunner

from plugins.away import OwnServer
from plugins.periods import keeps_waiting, let_pass
from plugins.waiting import Eventually
from reading import value

BLOCKED: LiteralString = (
    "select max(pid) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
)

AWAY = 9.0
"""Seconds; psycopg's own pool would then be back eight seconds after the server."""
SOON = 3.0


def _warnings(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    return Counter(record.name for record in caplog.records if record.levelno >= logging.WARNING)


@pytest.mark.timeout(90)
async def test_all_are_back_soon_after_the_server_and_have_told_of_it_once(
    own_server: OwnServer, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that ran meanwhile is settled, an enqueue that waits goes on, and each part has said so once."""
    caplog.set_level(logging.INFO)
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = Counter[int]()
    begun, go_on = asyncio.Event(), asyncio.Event()

    @tasks.task("long")
    async def long(number: int) -> None:
        begun.set()
        await go_on.wait()
        ran[number] += 1

    @tasks.task("short")
    async def short(number: int) -> None:
        ran[number] += 1

    config = WorkerConfig(own_server.dsn, dead_after=timedelta(seconds=4), heartbeat_interval=timedelta(seconds=1))
    async with BackfillClient(own_server.dsn, migrate=True) as client, WorkerRunner(config, tasks):
        await client.enqueue(long.job(1))
        await begun.wait()
        await own_server.stop()
        waiting = asyncio.ensure_future(client.enqueue(short.job(2)))
        await let_pass(AWAY / 2)
        go_on.set()
        await eventually(lambda: ran[1])
        await keeps_waiting(waiting, AWAY / 2)
        await own_server.start()
        back = time.monotonic()
        await waiting
        assert time.monotonic() - back < SOON
        await eventually(lambda: ran[2], timeout=SOON)
        left = "select count(*) from graphile_worker._private_jobs"
        await eventually(lambda: value(own_server.dsn, left), (0).__eq__, timeout=SOON)
    assert ran == {1: 1, 2: 1}
    warnings = _warnings(caplog)
    assert warnings["backfill.worker.pipeline.hot"] + warnings["backfill.worker.pipeline.pump"] == 1
    assert warnings.pop("backfill.storage.pool") == 2  # the client's and the worker's
    assert set(warnings.values()) == {1}, warnings
    assert "the database answers again" in caplog.text
    assert "the pool has connections again" in caplog.text


async def test_a_call_that_waits_in_vain_says_what_keeps_it(own_server: OwnServer) -> None:
    """A pool without a connection names what the last attempt met; one that is exhausted says so."""
    async with BackfillClient(own_server.dsn, migrate=True, max_size=1) as client:
        session = client._session
        assert session is not None
        session.pool.timeout = 0.5
        async with client._connection(None):
            with pytest.raises(DatabaseConnectionError, match="all 1 are in use"):
                await client.enqueue("never")
        await own_server.stop()
        with pytest.raises(DatabaseConnectionError, match=r"No such file|refused|shutting down"):
            await client.enqueue("never")
        began = time.monotonic()
    assert time.monotonic() - began < 2.0  # closing waits for no attempt
    await own_server.start()
    async with BackfillClient(own_server.dsn) as client:
        assert await client.enqueue("later")


async def test_what_a_dsn_function_raises_is_not_shown(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """It may tell a secret: the log and the error name its class."""
    caplog.set_level(logging.DEBUG)
    expired = False

    def ask() -> str:
        if expired:
            raise LookupError("token hunter2 has expired")
        return dsn

    async with BackfillClient(ask, min_size=0) as client:
        session = client._session
        assert session is not None
        session.pool.timeout = 0.5
        expired = True
        with pytest.raises(DatabaseConnectionError, match="LookupError") as raised:
            await client.enqueue("never")
    assert "hunter2" not in str(raised.value)
    assert "LookupError" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_call_whose_time_is_over_is_not_repeated(dsn: str, eventually: Eventually) -> None:
    """Not even where the server's word that it did nothing meets the cancellation, which the driver then forgets."""
    async with BackfillClient(dsn, max_size=1) as client:
        with psycopg.connect(dsn) as holder, psycopg.connect(dsn, autocommit=True) as other:
            holder.execute("lock table graphile_worker._private_jobs")

            async def limited() -> None:
                async with asyncio.timeout(None) as limit:
                    limits.append(limit)
                    await client.enqueue("late")

            limits: list[asyncio.Timeout] = []
            adding = asyncio.ensure_future(limited())
            pid = await eventually(lambda: value(dsn, BLOCKED))
            other.execute("select pg_terminate_backend(%s, 5000)", [pid])  # the loop stands still until it is gone
            limits[0].reschedule(asyncio.get_running_loop().time())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(adding), 5)
            assert adding.done()
        assert await value(dsn, "select count(*) from graphile_worker.jobs") == 0
