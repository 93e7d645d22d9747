"""An idle worker, and one that runs many jobs in a process of its own: what they ask of the server and of the machine."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import psycopg
import uvloop

from backfill import QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.storage.wire import Command, Wire

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

TASK: Final = "noop"
_SETTLED: Final = 3.0


@dataclass(slots=True)
class Idle:
    """What an idle worker does.

    Attributes:
        seconds: how long it was looked at.
        statements: what it sent meanwhile, whether by a cursor or in a pipeline.
        cpu: seconds of a core that its process took.
    """

    seconds: float = 0.0
    statements: int = 0
    cpu: float = 0.0


@contextmanager
def _counted(idle: Idle) -> Iterator[None]:
    execute, send = psycopg.AsyncCursor.execute, Wire.send

    async def executing(self: Any, *args: Any, **keywords: Any) -> Any:
        idle.statements += 1
        return await execute(self, *args, **keywords)

    async def sending(self: Wire, commands: Sequence[Command], *, timeout: float) -> list[PGresult]:
        idle.statements += len(commands)
        return await send(self, commands, timeout=timeout)

    with patch.object(psycopg.AsyncCursor, "execute", executing), patch.object(Wire, "send", sending):
        yield


def idle_worker(dsn: str, seconds: float) -> Idle:
    """What a worker does for so long that has nothing to do, once it has come to rest."""
    logging.disable(logging.WARNING)

    async def run() -> Idle:
        idle = Idle()
        with _counted(idle):
            async with WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(100)]), _registry()):
                await asyncio.sleep(_SETTLED)
                assert idle.statements, "nothing was counted"
                idle.statements, cpu, began = 0, time.process_time(), time.perf_counter()
                await asyncio.sleep(seconds)
                idle.cpu = time.process_time() - cpu
                idle.seconds = time.perf_counter() - began
                return Idle(idle.seconds, idle.statements, idle.cpu)

    return uvloop.run(run())


def memory(dsn: str, jobs: int) -> tuple[float, float]:
    """Megabytes that a worker's process holds after a third of so many jobs, and after the last."""
    # As a module: beside a script, this folder's queue.py would hide the standard library's.
    done = subprocess.run(
        [sys.executable, "-m", "sides.idle", dsn, str(jobs)],
        capture_output=True, text=True, timeout=1200, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    third, end = json.loads(done.stdout.strip().splitlines()[-1])
    return third, end


def _registry() -> TaskRegistry[None]:
    registry: TaskRegistry[None] = TaskRegistry()

    @registry.task(TASK)
    async def handler(payload: dict[str, Any]) -> None:
        """Nothing."""

    return registry


def _resident() -> float:
    """Megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


async def _watch(dsn: str, jobs: int) -> list[float]:
    """Run that many jobs."""
    logging.disable(logging.WARNING)
    found: list[float] = []
    ran, done = 0, asyncio.Event()
    registry: TaskRegistry[None] = TaskRegistry()

    @registry.task(TASK)
    async def handler(payload: dict[str, Any]) -> None:
        nonlocal ran
        del payload
        ran += 1
        if ran == jobs // 3:
            found.append(_resident())
        elif ran == jobs:
            found.append(_resident())
            done.set()

    async with WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(100)]), registry):
        await done.wait()
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uvloop.run(_watch(sys.argv[1], int(sys.argv[2])))) + "\n")
