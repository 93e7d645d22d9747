"""Standard streams that nobody reads: gone, closed or full, they neither stop `backfill worker` nor fail its jobs."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient

from plugins.waiting import Eventually
from programs import shell

TASKS = """
import os, sys, stat
from pathlib import Path
from backfill import TaskRegistry

tasks = TaskRegistry()

@tasks.task("fails")
async def fails(n: int) -> None:
    raise ValueError("x" * 200)

@tasks.task("prints")
async def prints(n: int) -> None:
    print("x" * 300, n, flush=True)
    print("y" * 300, n, file=sys.stderr)

@tasks.task("prints_in_a_thread")
def prints_in_a_thread(n: int) -> None:
    print("x" * 100_000, n, flush=True)

@tasks.task("numbers")
async def numbers(path: str) -> None:
    kinds = [stat.S_ISCHR(os.fstat(n).st_mode) and os.fstat(n).st_rdev == os.stat(os.devnull).st_rdev for n in range(3)]
    Path(path).write_text(str(kinds))
"""
PIPE_SIZE = 4096
Begin = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def begin(dsn: str, tmp_path: Path) -> Iterator[Begin]:
    """Starts a worker with the given streams; it is gone at the end."""
    (tmp_path / "app_jobs.py").write_text(TASKS)
    started = []

    def start(*before: str, **streams: Any) -> subprocess.Popen[bytes]:
        command = [*before, *shell("worker", "app_jobs:tasks", "--dsn", dsn, "--log-level", "debug")]
        started.append(subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **streams))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


async def works(dsn: str, worker: subprocess.Popen[bytes], eventually: Eventually) -> None:
    """All of its jobs end, in good time and as they would; it stops with 0."""
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk("fails", range(60), max_attempts=1)
        await client.enqueue_bulk("prints", range(60), max_attempts=1)
        await client.enqueue_bulk("prints_in_a_thread", range(60), max_attempts=1)
        await eventually(lambda: rows(dsn, "select count(*) from graphile_worker.jobs"), lambda found: found == [(0,)])
    dead = rows(dsn, "select task_identifier, count(*) from graphile_worker.backfill_dlq group by 1")
    assert dead == [("fails", 60)]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(3 * 5) == 0
    assert rows(dsn, "select * from graphile_worker.backfill_workers") == []


async def test_a_reader_that_is_gone(dsn: str, begin: Begin, eventually: Eventually) -> None:
    """What nobody can read any more is dropped: printing is no error."""
    read, write = os.pipe()
    worker = begin(stdout=write, stderr=write)
    os.close(write)
    await eventually(lambda: rows(dsn, "select * from graphile_worker.backfill_workers"), bool)
    os.close(read)
    await works(dsn, worker, eventually)


async def test_a_pipe_that_nobody_reads(dsn: str, begin: Begin, eventually: Eventually) -> None:
    """More is written than fits into it and into memory.

    Neither the loop nor a thread waits for room, nor does the end.
    """
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    worker = begin(stdout=write, stderr=write)
    os.close(write)
    await works(dsn, worker, eventually)
    os.close(read)


@pytest.mark.parametrize("closed", [">&- 2>&-", "<&- >&- 2>&-", "2>&-", "<&-"])
async def test_closed_streams(dsn: str, tmp_path: Path, begin: Begin, eventually: Eventually, closed: str) -> None:
    """Their numbers lead to the null device, and to none of the worker's connections."""
    worker = begin("sh", "-c", f'exec "$@" {closed}', "sh", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    async with BackfillClient(dsn) as client:
        await client.enqueue("numbers", str(tmp_path / "numbers"))
    await works(dsn, worker, eventually)
    wanted = [True, True, "2>&-" in closed]
    assert (tmp_path / "numbers").read_text() == str(wanted)


async def test_a_reader_that_comes_late(dsn: str, begin: Begin, eventually: Eventually) -> None:
    """What waited in memory is there, each line whole."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    worker = begin(stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk("prints", range(10), max_attempts=1)
        await eventually(lambda: rows(dsn, "select count(*) from graphile_worker.jobs"), lambda found: found == [(0,)])
    with os.fdopen(read, "rb") as stream:
        lines = [stream.readline().split()[1] for _ in range(10)]
        assert sorted(lines, key=int) == [b"%d" % n for n in range(10)]
        worker.send_signal(signal.SIGTERM)
        assert stream.read() == b""
    assert worker.wait(3 * 5) == 0
