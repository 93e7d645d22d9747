"""A worker whose handlers never end, in a process that a test kills; it tells its id for each job that it began."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from backfill import TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

tasks: TaskRegistry[None] = TaskRegistry()


@tasks.task("both")
async def both(_: Any, ctx: WorkerContext[None]) -> None:
    """Begin, and never end."""
    sys.stdout.write(f"{ctx.worker_id}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def main(dsn: str) -> None:
    """Work until the process is killed."""
    async with WorkerRunner(WorkerConfig(dsn), tasks):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
