"""A worker of ours as a process of its own, until its input ends: python span_worker.py DSN CONCURRENCY.

Each job of the task `span` writes its begin and its end into the table `spans`, by the server's clock. It prints
"ready" once it could begin, and begins after the first line of its input.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg_pool

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

sys.path.insert(0, str(Path(__file__).parents[2]))
from plugins.periods import work_for

Pool = psycopg_pool.AsyncConnectionPool[Any]


async def main(dsn: str, concurrency: int) -> None:
    """Work until the input ends."""

    @asynccontextmanager
    async def pool(_: BackfillClient) -> AsyncIterator[Pool]:
        async with psycopg_pool.AsyncConnectionPool(
            dsn, min_size=concurrency, max_size=concurrency, kwargs={"autocommit": True}
        ) as made:
            yield made

    tasks: TaskRegistry[Pool] = TaskRegistry(lifespan=pool)

    @tasks.task("span")
    async def span(payload: dict[str, float], ctx: WorkerContext[Pool]) -> None:
        begin = "insert into spans (job_id, queue_id, worker, began) values (%s, %s, 'backfill', clock_timestamp())"
        end = "update spans set ended = clock_timestamp() where job_id = %s and worker = 'backfill' and ended is null"
        async with ctx.deps.connection() as connection:
            await connection.execute(begin, (ctx.job.id, ctx.job.job_queue_id))
            await work_for(payload["seconds"])
            await connection.execute(end, (ctx.job.id,))

    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    config = WorkerConfig(dsn, concurrency=concurrency, poll_interval=timedelta(milliseconds=20))
    async with WorkerRunner(config, tasks):
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
