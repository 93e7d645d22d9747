"""A program whose main coroutine is over.

`asyncio.run` cancels every task at once, and the worker drains all the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient, Queue

from programs import between_signals, running

PROGRAM = """
import asyncio, sys, threading
from datetime import timedelta
from backfill import QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

tasks = TaskRegistry()
begun, seen = asyncio.Event(), []

def note(number):
    seen.append(number)
    if len(seen) == 4:
        loop.call_soon_threadsafe(begun.set)

@tasks.task("waits")
async def waits(number: int) -> None:
    note(number)
    await asyncio.sleep(600)

@tasks.task("tidies")
async def tidies(number: int) -> None:
    note(number)
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        await asyncio.sleep(0.05)
        raise RuntimeError("its clean-up has turned the cancellation into another error")

@tasks.task("thread")
def thread(number: int) -> None:
    note(number)
    threading.Event().wait(1.0)

@tasks.task("cancels_itself")
async def cancels_itself(number: int) -> None:
    asyncio.current_task().cancel()
    await asyncio.sleep(600)

@tasks.task("raises_it")
async def raises_it(number: int) -> None:
    raise asyncio.CancelledError

async def main(dsn, mode):
    global loop
    loop = asyncio.get_running_loop()
    config = WorkerConfig(dsn, shutdown_timeout=timedelta(seconds=20), queues=[QueueConfig.default_queue(4)])
    runner = WorkerRunner(config, tasks)
    if mode == "inside":
        async with runner:
            await begun.wait()
            raise RuntimeError("main failed")
    work = {
        "event": lambda: runner.run_until_cancelled(asyncio.Event()),
        "available": runner.process_available_jobs,
    }.get(mode, runner.run)
    task = asyncio.create_task(work())
    await begun.wait()
    print("all have begun", flush=True)
    if mode == "waits":
        await task
    if mode == "raises":
        raise RuntimeError("main failed")
    if mode == "draining":
        task.cancel()
        await asyncio.sleep(0.1)
    if mode == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(600))
            raise RuntimeError("main failed")

asyncio.run(main(*sys.argv[1:]))
"""
COUNTED = """
import asyncio, psycopg, sys
from backfill import TaskRegistry, WorkerConfig, WorkerRunner

tasks = TaskRegistry()

@tasks.task("done")
async def done() -> None:
    pass

async def ask(client):
    async with client._connection(None) as connection:
        await connection.execute("select pg_sleep(3)")

async def as_services_do(client):
    asking = asyncio.create_task(ask(client))
    try:
        await asyncio.wait([asking])
    finally:
        asking.cancel()  # a second time, which breaks into the query's own cancelling
        await asyncio.wait([asking])

async def main(dsn):
    runner = WorkerRunner(WorkerConfig(dsn), tasks)
    working = asyncio.create_task(runner.run())
    while runner._parts is None or not runner._parts.one.counters._tallies.pending:
        await asyncio.sleep(0.01)
    asking = asyncio.create_task(as_services_do(runner._parts.own))
    asked = "select exists (select from pg_stat_activity where query like 'select pg_sleep%' and state = 'active')"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watcher:
        while not (await (await watcher.execute(asked)).fetchone())[0]:
            await asyncio.sleep(0.01)

asyncio.run(main(*sys.argv[1:]))
"""


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("mode", ["task", "raises", "event", "inside", "available", "draining", "group"])
async def test_a_program_that_ends_leaves_nothing_locked(dsn: str, tmp_path: Path, mode: str) -> None:
    """What runs goes back without cost, a last attempt too; a thread is waited for; the worker's row is gone."""
    (tmp_path / "program.py").write_text(PROGRAM)
    async with BackfillClient(dsn) as client:
        await client.enqueue("waits", 1, max_attempts=1)
        await client.enqueue("tidies", 2, max_attempts=1)
        await client.enqueue("waits", 3, queue=Queue.serial("lane"))
        await client.enqueue("thread", 4)
        await client.enqueue("waits", 5, max_attempts=1)  # claimed ahead, or not claimed at all
        with running([sys.executable, "program.py", dsn, mode], folder=tmp_path) as program:
            code = program.end()
    fails = mode in ("raises", "inside", "group")
    assert code == int(fails), program.output
    assert ("RuntimeError: main failed" in program.output) == fails, program.output
    left = rows(dsn, "select task_identifier, attempts, locked_by from graphile_worker.jobs order by id")
    assert left == [("waits", 0, None), ("tidies", 0, None), ("waits", 0, None), ("waits", 0, None)], program.output
    assert rows(dsn, "select locked_at from graphile_worker._private_job_queues") == [(None,)]
    assert rows(dsn, "select * from graphile_worker.backfill_workers") == []
    assert rows(dsn, "select * from graphile_worker.backfill_dlq") == []


async def test_what_is_counted_is_written_although_the_pools_tasks_are_cancelled(dsn: str, tmp_path: Path) -> None:
    """A query of a service is cut off: its pool has no connection left, and nobody who makes another."""
    (tmp_path / "program.py").write_text(COUNTED)
    async with BackfillClient(dsn) as client:
        await client.enqueue("done", None)
        with running([sys.executable, "program.py", dsn], folder=tmp_path) as program:
            assert program.end() == 0, program.output
    assert rows(dsn, "select sum(done) from graphile_worker.backfill_counters") == [(1,)], program.output
    assert rows(dsn, "select * from graphile_worker.backfill_workers") == []


async def test_a_second_ctrl_c_gives_all_back(dsn: str, tmp_path: Path) -> None:
    """The first drains; the second breaks into that and cancels all tasks, and yet the drain is carried through."""
    (tmp_path / "program.py").write_text(PROGRAM)
    async with BackfillClient(dsn) as client:
        for number in range(4):
            await client.enqueue("waits", number, max_attempts=1)
        with running([sys.executable, "program.py", dsn, "waits"], folder=tmp_path) as program:
            program.wait_for("all have begun")
            program.press_ctrl_c()
            between_signals()
            program.press_ctrl_c()
            assert program.end() != 0
    assert "KeyboardInterrupt" in program.output
    assert rows(dsn, "select attempts, locked_by from graphile_worker.jobs") == [(0, None)] * 4
    assert rows(dsn, "select * from graphile_worker.backfill_workers") == []


@pytest.mark.parametrize("task", ["cancels_itself", "raises_it"])
async def test_a_handler_that_cancels_itself_has_failed(dsn: str, tmp_path: Path, task: str) -> None:
    """Nobody has cancelled the worker: the attempt counts, and the last one leaves a dead letter."""
    (tmp_path / "program.py").write_text(PROGRAM)
    async with BackfillClient(dsn) as client:
        await client.enqueue(task, 0, max_attempts=1)
        await client.enqueue(task, 0, max_attempts=2)
        for number in range(4):
            await client.enqueue("thread", number, priority=10)
        with running([sys.executable, "program.py", dsn, "task"], folder=tmp_path) as program:
            assert program.end() == 0, program.output
    assert rows(dsn, "select attempts, locked_by from graphile_worker.jobs") == [(1, None)]
    assert rows(dsn, "select count(*) from graphile_worker.backfill_dlq") == [(1,)]
