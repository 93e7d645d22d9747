"""A worker whose connections are ended again and again keeps nothing of those that it had."""

from __future__ import annotations

import asyncio
import gc
import logging
import tracemalloc
from dataclasses import dataclass

import psutil
import psycopg
import pytest

from backfill import TaskRegistry, WorkerConfig, WorkerRunner

from plugins.waiting import Eventually

END = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and application_name like 'backfill%' and pid <> pg_backend_pid()"""
PIDS = """
select array_agg(pid order by pid) from pg_stat_activity
where datname = current_database() and application_name like 'backfill%'
  and (application_name like '%listen' or application_name ~ '^backfill backfill_[0-9a-f]+$') and state = 'idle'"""
ROOM = 300_000
"""Bytes that memory may differ by, whatever the number of reconnects: caches; less than 300 for each of 1,000."""


@dataclass
class Held:
    """What a process holds."""

    tasks: int
    sockets: int
    memory: int


async def _nothing() -> None:
    """What no job asks for."""


def _held() -> Held:
    gc.collect()
    return Held(len(asyncio.all_tasks()), psutil.Process().num_fds(), tracemalloc.get_traced_memory()[0])


async def _reconnect(other: psycopg.AsyncConnection, runner: WorkerRunner, eventually: Eventually) -> None:
    """End all connections, and wait until the worker works, and hears, on others."""
    before = await (await other.execute(PIDS)).fetchone()
    await other.execute(END)

    async def connected() -> bool:
        assert runner._parts is not None
        runner._parts.one.station.claimer.wake()
        found = await (await other.execute(PIDS)).fetchone()
        return bool(found and found[0] and before and len(found[0]) >= 2 and not set(found[0]) & set(before[0] or ()))

    await eventually(connected)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("times", [100, pytest.param(1_000, marks=pytest.mark.long)])
async def test_reconnects_leave_nothing_behind(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    """After many it holds as many tasks and sockets as after ten, as much memory, and has hardly spoken of it."""
    tasks: TaskRegistry[None] = TaskRegistry()
    tasks.task("nothing")(_nothing)
    caplog.set_level(logging.WARNING)
    tracemalloc.start()
    try:
        async with (
            await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other,
            WorkerRunner(WorkerConfig(dsn), tasks) as runner,
        ):
            for _ in range(10):
                await _reconnect(other, runner, eventually)
            few = _held()
            for _ in range(times):
                await _reconnect(other, runner, eventually)
            spoken = len([record for record in caplog.records if record.levelno >= logging.WARNING])
            caplog.clear()
            many = await eventually(_held, lambda now: now.tasks <= few.tasks and now.sockets <= few.sockets + 1)
    finally:
        tracemalloc.stop()
    assert many.memory <= few.memory + ROOM, (few, many)
    assert spoken <= 5 * (1 + times // 100), "a few lines a minute, not one for each"
