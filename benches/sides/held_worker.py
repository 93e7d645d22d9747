"""A worker in a process of its own, for `held.py`: it prints when each job was sent and how long that one waited.

It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from backfill import QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

TASK = "held"
WORK = 0.001


async def work(dsn: str, slots: int) -> None:
    """Run jobs of a millisecond until nobody wants more."""
    tasks: TaskRegistry[None] = TaskRegistry()
    waits: list[tuple[float, float]] = []

    @tasks.task(TASK)
    async def run(payload: dict[str, Any]) -> None:
        sent: float = payload["sent"]
        waits.append((sent, time.time() - sent))
        await asyncio.sleep(WORK)

    reader, stop = asyncio.StreamReader(), asyncio.Event()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ending = asyncio.create_task(_until_end(reader, stop))
    running = asyncio.create_task(
        WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(slots)]), tasks).run_until_cancelled(stop)
    )
    while not running.done():
        await asyncio.wait([running], timeout=1.0)
        print(json.dumps(waits), flush=True)
        waits.clear()
    await running
    await ending


async def _until_end(reader: asyncio.StreamReader, stop: asyncio.Event) -> None:
    await reader.read()
    stop.set()


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1], int(sys.argv[2])))
