"""Processes that handlers fork: whatever becomes of them, the worker goes on, and the attempt counts once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient

from programs import Program, shell

TASKS = """
import asyncio, concurrent.futures, functools, multiprocessing, os, signal, subprocess, sys, time
from backfill import TaskRegistry

tasks = TaskRegistry()
fork = multiprocessing.get_context("fork")

def square(n):
    return n * n

def terminated(number):
    child = fork.Process(target=time.sleep, args=(600,))
    child.start()
    os.kill(child.pid, number)
    child.join(30)
    print(f"child of {os.getpid()} exit code {child.exitcode}", flush=True)

@tasks.task("terminate")
def terminate(number: int) -> None:
    terminated(number)

@tasks.task("terminate_on_loop")
async def terminate_on_loop(number: int) -> None:
    terminated(number)

@tasks.task("pool")
def pool(_: int) -> None:
    with fork.Pool(2) as p:
        print(f"squares {p.map(square, range(4))}", flush=True)

@tasks.task("preexec")
def preexec(_: int) -> None:
    child = subprocess.Popen(["sleep", "600"], preexec_fn=lambda: None)
    child.terminate()
    print(f"ended with {child.wait(30)}", flush=True)

WAYS = {
    "return": lambda: None,
    "exit": lambda: sys.exit(7),
    "text": lambda: sys.exit("words"),
    "raise": lambda: 1 / 0,
    "interrupt": lambda: signal.raise_signal(signal.SIGINT),
}

def ways(way, pid):
    if pid == 0:
        WAYS[way]()
        return True
    _, status = os.waitpid(pid, 0)
    print(f"{way} ended with {os.waitstatus_to_exitcode(status)}", flush=True)
    return False

@tasks.task("thread")
def thread(way: str) -> None:
    ways(way, os.fork())

@tasks.task("loop")
async def loop(way: str) -> None:
    ways(way, os.fork())

@tasks.task("executor")
async def executor(way: str) -> None:
    await asyncio.to_thread(lambda: ways(way, os.fork()))

@tasks.task("awaits")
async def awaits(way: str) -> None:
    if ways("return", os.fork()):
        await asyncio.sleep(0)
        print("a child goes on", flush=True)

@tasks.task("awaits_later")
async def awaits_later(way: str) -> None:
    await asyncio.sleep(0.01)
    if ways("return", os.fork()):
        for _ in range(1000):
            await asyncio.sleep(0)
        print("a child goes on", flush=True)

@tasks.task("grandchild")
async def grandchild(way: str) -> None:
    await asyncio.gather(*(awaits_later.handler(way) for _ in range(3)))

@tasks.task("ticks")
async def ticks(_: int) -> None:
    owner = os.getpid()
    for _ in range(1000000):
        await asyncio.sleep(0)
        if os.getpid() != owner:
            print("a child goes on", flush=True)
        if stop:
            return

stop = []

@tasks.task("stop_ticks")
async def stop_ticks(_: int) -> None:
    stop.append(1)

@tasks.task("after")
async def after(word: str) -> None:
    print(f"after {word}", flush=True)
"""
LIFESPAN = """
import asyncio, multiprocessing
from contextlib import asynccontextmanager
from backfill import TaskRegistry, WorkerContext

@asynccontextmanager
async def lifespan(client):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        yield pool

tasks = TaskRegistry(lifespan=lifespan)

def square(n):
    return n * n

@tasks.task("square")
def squares(n: int, ctx: WorkerContext) -> None:
    print(f"square {ctx.deps.apply(square, [n])}", flush=True)

@tasks.task("after")
async def after(word: str) -> None:
    print(f"after {word}", flush=True)
"""
LIBRARY = """
import asyncio, signal, sys
from app_jobs import tasks
from backfill import WorkerConfig, WorkerRunner

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await WorkerRunner(WorkerConfig(sys.argv[1]), tasks).run_until_cancelled(stop)

if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(params=["shell", "asyncio", "uvloop"])
def worker(request: pytest.FixtureRequest, dsn: str, tmp_path: Path) -> Iterator[Program]:
    """A worker of the shell, and ones of programs that handle SIGTERM in either loop."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    (tmp_path / "program.py").write_text(LIBRARY)
    command = [sys.executable, "program.py", dsn, request.param]
    if request.param == "shell":
        command = shell("worker", "app_jobs:tasks", "--dsn", dsn)
    program = Program(command, folder=tmp_path)
    yield program
    program.kill()


async def test_signals_of_a_child_are_its_own(dsn: str, worker: Program) -> None:
    """A signal that ends a forked child, right after the fork, neither stops its worker nor costs an attempt."""
    async with BackfillClient(dsn) as client:
        for task in ("terminate", "terminate_on_loop"):
            for number in (signal.SIGTERM, signal.SIGHUP):
                await client.enqueue(task, int(number), max_attempts=1)
                worker.wait_for(f"exit code -{int(number)}\n")
        await client.enqueue("pool", 1, max_attempts=1)
        worker.wait_for("squares [0, 1, 4, 9]")
        await client.enqueue("preexec", 1, max_attempts=1)
        worker.wait_for("ended with -15")
        await _goes_on(client, dsn, worker)


@pytest.mark.parametrize("task", ["thread", "loop", "executor"])
async def test_a_child_that_ends_is_no_second_worker(dsn: str, worker: Program, task: str) -> None:
    """A child that leaves the handler ends at once, with the code that a program would.

    The attempt goes on in the parent.
    """
    async with BackfillClient(dsn) as client:
        for way, code in (("return", 0), ("exit", 7), ("text", 1), ("raise", 1), ("interrupt", 1)):
            await client.enqueue(task, way, max_attempts=1)
            worker.wait_for(f"{way} ended with {code}\n")
        await _goes_on(client, dsn, worker)
    assert "ZeroDivisionError" in worker.output
    assert "words" in worker.output


@pytest.mark.parametrize("task", ["awaits", "awaits_later", "grandchild"])
async def test_a_child_that_awaits_ends(dsn: str, worker: Program, task: str) -> None:
    """It runs nothing more of the worker's loop: neither its own handler nor another's."""
    async with BackfillClient(dsn) as client:
        for _ in range(3):
            await client.enqueue("ticks", 1, max_attempts=1, priority=-1)
        await client.enqueue(task, "", max_attempts=1)
        for _ in range(3 if task == "grandchild" else 1):
            worker.wait_for("return ended with 1\n")
        await client.enqueue("stop_ticks", 1)
        await _goes_on(client, dsn, worker)
    assert "a child goes on" not in worker.output


async def test_a_pool_of_the_lifespan(dsn: str, tmp_path: Path) -> None:
    """Processes that it forks at the start end when it ends them, and the stop stays an orderly one."""
    (tmp_path / "app_jobs.py").write_text(LIFESPAN)
    worker = Program(shell("worker", "app_jobs:tasks", "--dsn", dsn), folder=tmp_path)
    try:
        async with BackfillClient(dsn) as client:
            await client.enqueue("square", 3, max_attempts=1)
            worker.wait_for("square 9")
            await _goes_on(client, dsn, worker)
    finally:
        worker.kill()


async def _goes_on(client: BackfillClient, dsn: str, worker: Program) -> None:
    """The worker runs another job, has nothing left, and ends as asked, alone in its session."""
    await client.enqueue("after", "all")
    worker.wait_for("after all")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 0, worker.output
    assert rows(dsn, "select * from graphile_worker.jobs") == [], worker.output
    assert rows(dsn, "select * from graphile_worker.backfill_dlq") == [], worker.output
    assert rows(dsn, "select * from graphile_worker.backfill_workers") == []
    with pytest.raises(ProcessLookupError):
        os.killpg(worker.process.pid, 0)
