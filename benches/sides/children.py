"""Calls in child processes, against what the same work costs without a pool."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from backfill.worker.processes.calls import Call
from backfill.worker.processes.pool import ChildPool

from places import TESTS

HANDLER = "child_deeds:Deeds"
NOTHING = Call(json.dumps(["nothing"]).encode())
BURNING = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from child_deeds import burn
print(flush=True)
input()
for _ in range(int(sys.argv[1])):
    burn(float(sys.argv[2]))
print(flush=True)
"""


def trip_microseconds(rounds: int) -> tuple[Callable[[], float], Callable[[], float], Callable[[], None]]:
    """Two sides that tell the microseconds of a round trip, and what ends their processes.

    The first is a call that does nothing in a child of a pool. The second is a call that does nothing in a process of
    the standard library's pool. Both are mostly Python, so that their ratio is much the same on any machine.

    Both sides and their processes share one processor. Else the figure would say where the system puts the processes:
    to wake a process on a processor that sleeps costs several round trips.

    Args:
        rounds: how many trips are measured each time.
    """
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(processors)})
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(_made_ready())
    executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    executor.submit(int).result()

    async def standard() -> None:
        await loop.run_in_executor(executor, int)

    async def pooled() -> None:
        await pool.run(NOTHING, _hear)

    def close() -> None:
        loop.run_until_complete(pool.close())
        loop.close()
        executor.shutdown()
        os.sched_setaffinity(0, processors)

    return (
        lambda: loop.run_until_complete(_timed(pooled, rounds)),
        lambda: loop.run_until_complete(_timed(standard, rounds)),
        close,
    )


def pooled_rate(count: int, seconds: float) -> float:
    """How many calls a second two children of a pool run, of which each computes for so many seconds."""

    async def main() -> float:
        pool = await _made_ready(2)
        call = json.dumps(["burn", seconds]).encode()
        began = time.perf_counter()
        await asyncio.gather(*(pool.run(Call(call), _hear) for _ in range(2 * count)))
        took = time.perf_counter() - began
        await pool.close()
        return 2 * count / took

    return asyncio.run(main())


def bare_rate(count: int, seconds: float) -> float:
    """The same of two processes that do nothing else."""
    two = [
        subprocess.Popen(
            [sys.executable, "-c", BURNING, str(count), str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for one in two:
        assert one.stdout is not None
        one.stdout.readline()
    began = time.perf_counter()
    for one in two:
        assert one.stdin is not None
        one.stdin.write(b"\n")
        one.stdin.flush()
    for one in two:
        one.communicate()
    return 2 * count / (time.perf_counter() - began)


async def _made_ready(size: int = 1) -> ChildPool:
    """A pool whose children are there."""
    pool = ChildPool(size, HANDLER)
    wait = json.dumps(["wait", 0.2]).encode()
    await asyncio.gather(*(pool.run(Call(wait), _hear) for _ in range(size)))
    return pool


async def _timed(trip: Callable[[], Coroutine[Any, Any, None] | Awaitable[None]], rounds: int) -> float:
    began = time.perf_counter()
    for _ in range(rounds):
        await trip()
    return (time.perf_counter() - began) / rounds * 1e6


def _hear(kind: str, data: bytes) -> None:
    """Hear nothing."""
