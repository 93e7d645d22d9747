"""How `backfill worker` ends where something does not: threads, coroutines, the lifespan; and as process 1."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient

from programs import Program, between_signals, shell

TASKS = """
import asyncio, ctypes, os, time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from backfill import BackfillClient, TaskRegistry, WorkerContext

HANGS = os.environ.get("HANGS")

async def hang() -> None:
    print("hanging", flush=True)
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            if HANGS != "clings":
                raise

@asynccontextmanager
async def lifespan(_: BackfillClient) -> AsyncIterator[None]:
    if HANGS == "start":
        await hang()
    print("entered", flush=True)
    yield
    if HANGS in {"end", "clings"}:
        await hang()

tasks: TaskRegistry[None] = TaskRegistry(lifespan=lifespan)

@tasks.task("thread")
def thread() -> None:
    print("holding", flush=True)
    time.sleep(600)

@tasks.task("obeys")
def obeys(ctx: WorkerContext[None]) -> None:
    print("holding", flush=True)
    while not ctx.should_stop:
        time.sleep(0.01)

@tasks.task("clings")
async def clings() -> None:
    print("holding", flush=True)
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            print("clings", flush=True)

@tasks.task("clings_once")
async def clings_once() -> None:
    print("holding", flush=True)
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        print("clings", flush=True)
    await asyncio.sleep(600)

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

@tasks.task("fills")
async def fills() -> None:
    calls = [asyncio.ensure_future(asyncio.to_thread(time.sleep, 600)) for _ in range(64)]
    print("holding", flush=True)
    await asyncio.gather(*calls)
"""
FIRST = """
import os, signal, sys
os.getpid = lambda: 1  # as in a container
import backfill.cli.app
sys.argv = ["backfill", "worker", "slow_jobs"]
backfill.cli.app.run()
"""
LATE = """
import sys
import backfill.cli.app, backfill.cli.signals
backfill.cli.signals.DEAF_SECONDS, backfill.cli.signals.LATE_SECONDS = 0.5, 1.0
sys.argv = ["backfill", "worker", "app_jobs:tasks", "--shutdown-timeout", "500ms"]
backfill.cli.app.run()
"""
SLOW = """
import signal, time
assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
print("importing", flush=True)
time.sleep(600)
"""
Begin = Callable[..., Program]


@pytest.fixture
def begin(dsn: str, tmp_path: Path) -> Iterator[Begin]:
    """Starts a worker with this test's tasks; all are gone at the end."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    programs = []

    def start(*words: str, hangs: str = "") -> Program:
        command = shell("worker", "app_jobs:tasks", *(words or ("--shutdown-timeout", "500ms")))
        programs.append(Program(command, environment={"DATABASE_URL": dsn, "HANGS": hangs}, folder=tmp_path))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize(
    ("task", "code"), [("thread", 6), ("clings", 6), ("clings_once", 0), ("obeys", 0), ("fills", 0)]
)
async def test_a_stop_ends_whatever_runs(dsn: str, begin: Begin, task: str, code: int) -> None:
    """By its deadline and what follows it, with a code that tells whether a handler still ran; its job went back."""
    async with BackfillClient(dsn) as client:
        await client.enqueue(task, max_attempts=1)
        worker = begin()
        worker.wait_for("holding")
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end(3 * 20) == code, worker.output
        assert time.monotonic() - began < 3 * 20
    assert ("handlers still run: job 1" in worker.output) == (code == 6)
    assert ("the process ends now" in worker.output) == (code == 6)
    assert "End the process" not in worker.output, "the shell does it itself"
    left = rows(dsn, "select attempts, locked_by from graphile_worker.jobs")
    assert left == ([] if task == "obeys" else [(0, None)])
    assert rows(dsn, "select id from graphile_worker.backfill_workers") == []


@pytest.mark.leaves_rows
@pytest.mark.parametrize("task", ["loop", "lock"])
async def test_a_stop_ends_although_a_handler_holds_the_loop(dsn: str, begin: Begin, task: str) -> None:
    """Or the interpreter's lock: a few seconds after the shutdown timeout; its job is that of a worker that died."""
    async with BackfillClient(dsn) as client:
        await client.enqueue(task)
        worker = begin()
        worker.wait_for("holding")
        began = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end(3 * 6) == 6, worker.output
        assert time.monotonic() - began < 3 * 6
    [[attempts, holder]] = rows(dsn, "select attempts, locked_by from graphile_worker.jobs")
    assert attempts == 1
    assert holder is not None


async def test_a_second_signal_gives_back_what_does_not_end(dsn: str, begin: Begin) -> None:
    """At once: nobody waits for the thread up to the shutdown timeout."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("thread", max_attempts=1)
        worker = begin("--shutdown-timeout", "10m")
        worker.wait_for("holding")
        worker.process.send_signal(signal.SIGTERM)
        between_signals()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end() == 6, worker.output
    assert rows(dsn, "select attempts, locked_by from graphile_worker.jobs") == [(0, None)]


@pytest.mark.parametrize("hangs", ["end", "clings"])
async def test_a_lifespan_that_hangs_at_its_end_does_not_hold_up_the_process(begin: Begin, hangs: str) -> None:
    """It has a few seconds at least, then it is cancelled, and in the end left."""
    worker = begin(hangs=hangs)
    worker.wait_for("starts")
    began = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("hanging")
    assert worker.end(3 * 25) == 0, worker.output
    assert time.monotonic() - began < 3 * 25
    assert "the end of the lifespan takes longer" in worker.output


async def test_a_second_signal_hurries_a_lifespans_end(begin: Begin) -> None:
    """Which would have the whole of the shutdown timeout."""
    worker = begin("--shutdown-timeout", "10m", hangs="end")
    worker.wait_for("starts")
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("hanging")
    between_signals()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 130, worker.output


async def test_a_second_signal_hurries_a_start_that_was_broken_off(dsn: str, begin: Begin) -> None:
    """Its lifespan was entered, and ends; the start waits for the workers' table, which somebody else has locked."""
    with psycopg.connect(dsn) as connection:
        connection.execute("lock table graphile_worker.backfill_workers")
        worker = begin("--shutdown-timeout", "10m", hangs="end")
        worker.wait_for("entered")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("hanging")
        between_signals()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end() == 130, worker.output
    assert "stopping at once: the worker has not started yet" in worker.output


async def test_the_process_has_a_last_deadline(dsn: str, tmp_path: Path) -> None:
    """Beyond all others: it is ended whatever goes on then, such as the end of a lifespan that has seconds left."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    environment = {"DATABASE_URL": dsn, "HANGS": "end"}
    program = Program([sys.executable, "-c", LATE], environment=environment, folder=tmp_path)
    try:
        program.wait_for("starts")
        program.process.send_signal(signal.SIGTERM)
        assert program.end() == 6, program.output
        assert "the end of the lifespan takes longer" not in program.output
    finally:
        program.kill()


async def test_a_signal_ends_a_start_that_hangs(dsn: str, begin: Begin) -> None:
    """The first one: a worker that has not started has nothing to drain."""
    worker = begin("--shutdown-timeout", "10m", hangs="start")
    worker.wait_for("hanging")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 0, worker.output
    assert rows(dsn, "select id from graphile_worker.backfill_workers") == []


def test_process_1_is_ended_by_a_signal_before_its_worker_starts(tmp_path: Path) -> None:
    """The system drops signals to process 1 that have no handler, so it must have one from its first moment on."""
    (tmp_path / "slow_jobs.py").write_text(SLOW)
    environment = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    program = Program([sys.executable, "-c", FIRST], environment=environment, folder=tmp_path)
    try:
        program.wait_for("importing")
        program.process.send_signal(signal.SIGTERM)
        assert program.end() == 128 + signal.SIGTERM, program.output
    finally:
        program.kill()
