"""A handler that raises KeyboardInterrupt or SystemExit has failed, and harms neither its worker nor its neighbours."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient

from programs import running, shell

TASKS = """
import asyncio, sys, threading
from backfill import TaskRegistry

tasks = TaskRegistry()

class Odd(BaseException):
    pass

ERRORS = {
    "interrupt": lambda: KeyboardInterrupt(),
    "exit": lambda: SystemExit(3),
    "generator": lambda: GeneratorExit(),
    "odd": lambda: Odd("odd"),
    "group": lambda: BaseExceptionGroup("several", [ValueError("one"), KeyboardInterrupt()]),
}

@tasks.task("eager")
async def eager(kind: str) -> None:
    raise ERRORS[kind]()

@tasks.task("later")
async def later(kind: str) -> None:
    await asyncio.sleep(0.01)
    raise ERRORS[kind]()

@tasks.task("thread")
def thread(kind: str) -> None:
    raise ERRORS[kind]()

@tasks.task("to_thread")
async def to_thread(kind: str) -> None:
    await asyncio.to_thread(thread.handler, kind)

@tasks.task("child")
async def child(kind: str) -> None:
    await asyncio.create_task(later.handler(kind))

@tasks.task("stops")
async def stops(kind: str) -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)

def sweep():
    for task in asyncio.all_tasks():
        task.cancel()

async def sweep_later():
    sweep()

@tasks.task("sweeps")
async def sweeps(kind: str) -> None:
    if kind == "itself":
        sweep()
    elif kind == "child":
        await asyncio.gather(sweep_later())
    else:
        asyncio.get_running_loop().call_soon(sweep)
    await asyncio.sleep(600)

@tasks.task("innocent")
async def innocent(word: str) -> None:
    print("innocent begins", flush=True)
    while not await asyncio.to_thread(__import__("pathlib").Path(word).exists):
        await asyncio.sleep(0.01)
    print("innocent ends", flush=True)

@tasks.task("after")
async def after(word: str) -> None:
    print(f"after {word}", flush=True)
"""
LIBRARY = """
import asyncio, sys
from datetime import timedelta
from app_jobs import tasks
from backfill import WorkerConfig, WorkerRunner

async def main(dsn, mode):
    runner = WorkerRunner(WorkerConfig(dsn, concurrency=4, shutdown_timeout=timedelta(seconds=20)), tasks)
    if mode == "run":
        await runner.run()
    elif mode == "event":
        await runner.run_until_cancelled(asyncio.Event())
    elif mode == "available":
        await runner.process_available_jobs()
    else:
        async with runner:
            await asyncio.sleep(600)

try:
    asyncio.run(main(*sys.argv[1:]))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("kind", ["interrupt", "exit", "generator", "odd", "group"])
async def test_the_shells_worker_goes_on(dsn: str, tmp_path: Path, eventually: Any, kind: str) -> None:
    """Each attempt counts, whatever raised it and wherever; the neighbour ends well and later jobs run."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    raising = ["eager", "later", "thread", "to_thread"] + (["child"] if kind != "generator" else [])
    async with BackfillClient(dsn) as client:
        await client.enqueue("innocent", "release", max_attempts=1, priority=-1)
        with running(shell("worker", "app_jobs:tasks", "--dsn", dsn), folder=tmp_path) as worker:
            worker.wait_for("innocent begins")
            for task in raising:
                await client.enqueue(task, kind, max_attempts=1)
                await client.enqueue(task, kind, max_attempts=2)
            counted = (
                "select count(*) from graphile_worker.backfill_dlq "
                "union all select sum(attempts) from graphile_worker.jobs"
            )
            await eventually(lambda: rows(dsn, counted), lambda found: found == [(len(raising),), (len(raising) + 1,)])
            (tmp_path / "release").touch()
            worker.wait_for("innocent ends")
            await client.enqueue("after", "all")
            worker.wait_for("after all")
            worker.process.send_signal(signal.SIGTERM)
            assert worker.end() == 0, worker.output
    left = rows(dsn, "select task_identifier, attempts, locked_by from graphile_worker.jobs")
    assert sorted(left) == sorted((task, 1, None) for task in raising), worker.output
    assert rows(dsn, "select * from graphile_worker.backfill_workers") == []


async def test_a_job_that_stops_the_loop_is_done(dsn: str, tmp_path: Path) -> None:
    """The shell's loop goes on, and so do the job and the worker."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    async with BackfillClient(dsn) as client:
        await client.enqueue("stops", "", max_attempts=1)
        with running(shell("worker", "app_jobs:tasks", "--dsn", dsn), folder=tmp_path) as worker:
            worker.wait_for("the event loop was stopped by a job")
            await client.enqueue("after", "all")
            worker.wait_for("after all")
            worker.process.send_signal(signal.SIGTERM)
            assert worker.end() == 0, worker.output
    assert rows(dsn, "select * from graphile_worker.jobs") == []


@pytest.mark.parametrize("kind", ["itself", "child", "callback"])
async def test_a_job_that_cancels_all_tasks_has_failed(dsn: str, tmp_path: Path, kind: str) -> None:
    """Its attempt counts, also where a task or a callback that it has started does that.

    The neighbour's goes back without cost, and runs once the worker has started again.
    """
    (tmp_path / "app_jobs.py").write_text(TASKS)
    async with BackfillClient(dsn) as client:
        await client.enqueue("innocent", "release", max_attempts=1, priority=-1)
        with running(shell("worker", "app_jobs:tasks", "--dsn", dsn), folder=tmp_path) as worker:
            worker.wait_for("innocent begins")
            await client.enqueue("sweeps", kind, max_attempts=2)
            worker.wait_for("a job has cancelled all tasks")
            worker.wait_for("innocent begins")
            (tmp_path / "release").touch()
            worker.wait_for("innocent ends")
            worker.process.send_signal(signal.SIGTERM)
            assert worker.end() == 0, worker.output
    left = rows(dsn, "select task_identifier, attempts, locked_by from graphile_worker.jobs")
    assert left == [("sweeps", 1, None)], worker.output
    assert rows(dsn, "select * from graphile_worker.backfill_dlq") == []
    assert rows(dsn, "select * from graphile_worker.backfill_workers") == []


@pytest.mark.parametrize("mode", ["run", "event", "available"])
async def test_a_worker_of_a_program_drains_and_raises_it(dsn: str, tmp_path: Path, mode: str) -> None:
    """Under `asyncio.run` it may be a Ctrl-C: it counts, the neighbour may end in time, and the program gets it."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    (tmp_path / "program.py").write_text(LIBRARY)
    async with BackfillClient(dsn) as client:
        await client.enqueue("innocent", "release", max_attempts=1, priority=-1)
        await client.enqueue("later", "interrupt", max_attempts=2, priority=1)
        with running([sys.executable, "program.py", dsn, mode], folder=tmp_path) as program:
            program.wait_for("innocent begins")
            (tmp_path / "release").touch()
            program.wait_for("interrupted")
            assert program.end() == 0, program.output
    assert "innocent ends" in program.output
    assert rows(dsn, "select task_identifier, attempts, locked_by from graphile_worker.jobs") == [("later", 1, None)]
    assert rows(dsn, "select * from graphile_worker.backfill_dlq") == []
    assert rows(dsn, "select * from graphile_worker.backfill_workers") == []


async def test_a_worker_beside_other_code_ends_the_loop(dsn: str, tmp_path: Path) -> None:
    """In `async with`, where nobody waits for the worker, it is raised as from any task.

    All goes back but the one attempt.
    """
    (tmp_path / "app_jobs.py").write_text(TASKS)
    (tmp_path / "program.py").write_text(LIBRARY)
    async with BackfillClient(dsn) as client:
        await client.enqueue("innocent", "never", max_attempts=1, priority=-1)
        await client.enqueue("later", "interrupt", max_attempts=2, priority=1)
        with running([sys.executable, "program.py", dsn, "inside"], folder=tmp_path) as program:
            program.wait_for("interrupted")
            assert program.end() == 0, program.output
    left = rows(dsn, "select task_identifier, attempts, locked_by from graphile_worker.jobs order by id")
    assert left == [("innocent", 0, None), ("later", 1, None)]
    assert rows(dsn, "select * from graphile_worker.backfill_workers") == []


async def test_in_a_thread_it_is_never_a_ctrl_c(dsn: str, tmp_path: Path) -> None:
    """A program's worker goes on then, too."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    (tmp_path / "program.py").write_text(LIBRARY)
    async with BackfillClient(dsn) as client:
        await client.enqueue("thread", "interrupt", max_attempts=2, priority=-1)
        await client.enqueue("after", "it")
        with running([sys.executable, "program.py", dsn, "available"], folder=tmp_path) as program:
            assert program.end() == 0, program.output
    assert "after it" in program.output
    assert "interrupted" not in program.output
    assert rows(dsn, "select task_identifier, attempts from graphile_worker.jobs") == [("thread", 1)]
