"""One of our workers in a process of its own, for `members.py`: `python -m sides.member_worker DSN TASK express|ordinary`."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
from typing import Any, Final

import uvloop

from backfill import QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

SLOTS: Final = 100
TURN: Final = 0.02
"""Seconds between two lines that it prints."""


async def work(dsn: str, task: str, *, express: bool) -> None:
    """Run jobs that do nothing until the standard input ends."""
    registry: TaskRegistry[None] = TaskRegistry()
    count = told = 0

    # Not said where it is not wanted, so that versions that do not know it can be measured too.
    @registry.task(task, **({"express": True} if express else {}))
    async def run(payload: dict[str, Any]) -> None:
        nonlocal count
        count += 1

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps("ready"), flush=True)
    await reader.readline()
    ending = asyncio.create_task(reader.read())
    async with WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(SLOTS)]), registry):
        while not ending.done():
            await asyncio.wait([ending], timeout=TURN)
            if count > told:
                told = count
                print(json.dumps([time.perf_counter(), told]), flush=True)
    await ending


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    gc.freeze()  # as the shell's worker does
    uvloop.run(work(sys.argv[1], sys.argv[2], express=sys.argv[3] == "express"))
