"""The signals of `backfill worker`: one after the other, two at once, and while nothing of Python's can run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient

from programs import Program, between_signals, shell

TASKS = """
import asyncio, ctypes, time
from backfill import TaskRegistry

tasks = TaskRegistry()

@tasks.task("loop")
async def loop() -> None:
    print("holding", flush=True)
    while True:
        pass

@tasks.task("lock")
async def lock() -> None:
    print("holding", flush=True)
    sleep = ctypes.PyDLL(None).sleep  # holds the interpreter's lock
    while True:
        sleep(600)

@tasks.task("thread")
def thread() -> None:
    print("holding", flush=True)
    sleep = ctypes.PyDLL(None).sleep
    while True:
        sleep(600)

@tasks.task("clings")
async def clings() -> None:
    print("holding", flush=True)
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            print("clings", flush=True)

@tasks.task("leaves")
async def leaves() -> None:
    print("holding", flush=True)
    await asyncio.to_thread(time.sleep, 600)

@tasks.task("ends")
async def ends() -> None:
    print("holding", flush=True)
    await asyncio.sleep(1)
    print("ended", flush=True)
"""
Begin = Callable[..., Program]


@pytest.fixture
def begin(dsn: str, tmp_path: Path) -> Iterator[Begin]:
    """Starts a worker with this test's tasks; all are gone at the end."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    programs = []

    def start(*words: str) -> Program:
        command = shell("worker", "app_jobs:tasks", "--shutdown-timeout", "10m", *words)
        programs.append(Program(command, environment={"DATABASE_URL": dsn}, folder=tmp_path))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.leaves_rows
@pytest.mark.parametrize("task", ["loop", "lock", "thread", "clings"])
async def test_the_third_ends_the_process_whatever_holds_it(dsn: str, begin: Begin, task: str) -> None:
    """A handler holds the loop, or the interpreter's lock on the loop or in a thread, or cannot be cancelled."""
    async with BackfillClient(dsn) as client:
        await client.enqueue(task)
        worker = begin()
        worker.wait_for("holding")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            assert worker.process.poll() is None, worker.output
            worker.process.send_signal(number)
            between_signals()
        assert worker.end(10) == 130, worker.output


async def test_two_at_once_are_one(dsn: str, begin: Begin) -> None:
    """A group's signal and a supervisor's come together: the job may end in time, and the worker ends with 0."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("ends", max_attempts=1)
        worker = begin()
        worker.wait_for("holding")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            worker.process.send_signal(number)
        worker.wait_for("ended")
        assert worker.end() == 0, worker.output
    assert "at once:" not in worker.output
    assert rows(dsn, "select * from graphile_worker.jobs") == []


async def test_the_second_interrupts(dsn: str, begin: Begin) -> None:
    """When it comes later than that, and the jobs go back as they were."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("ends", max_attempts=1)
        worker = begin()
        worker.wait_for("holding")
        worker.process.send_signal(signal.SIGTERM)
        between_signals()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end() == 130, worker.output
    assert "stopping at once" in worker.output
    assert rows(dsn, "select attempts, locked_by from graphile_worker.jobs") == [(0, None)]


async def test_a_thread_that_is_left_does_not_hold_up_the_end(dsn: str, begin: Begin) -> None:
    """Its job goes back at the deadline; the process ends soon afterwards, with the code that it would have had."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("leaves", max_attempts=1)
        worker = begin("--shutdown-timeout", "100ms")
        worker.wait_for("holding")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end(3 * 15) == 0, worker.output
    assert "threads of its jobs still run" in worker.output
    assert rows(dsn, "select attempts, locked_by from graphile_worker.jobs") == [(0, None)]


async def test_what_is_ignored_at_the_start_stays_ignored(dsn: str, begin: Begin) -> None:
    """Under nohup a hangup is nothing."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        worker = begin()
    finally:
        signal.signal(signal.SIGHUP, before)
    worker.wait_for("starts")
    worker.process.send_signal(signal.SIGHUP)
    async with BackfillClient(dsn) as client:
        await client.enqueue("ends")
        worker.wait_for("ended")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 0, worker.output
