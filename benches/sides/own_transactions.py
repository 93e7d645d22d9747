"""Jobs that write one row each: in `ctx.transaction()`, and in a transaction of the handler's own beside the queue's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg_pool

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

Pool = psycopg_pool.AsyncConnectionPool[Any]
CONCURRENCY = 8
INSERT = "insert into written values (%s)"


async def seconds_of(dsn: str, task: str, jobs: int) -> float:
    """How long one worker takes to run so many jobs of a task, `own` or `apart`, which are all there."""

    @asynccontextmanager
    async def lifespan(_: BackfillClient) -> AsyncIterator[Pool]:
        async with psycopg_pool.AsyncConnectionPool(dsn, min_size=CONCURRENCY, max_size=CONCURRENCY) as pool:
            yield pool

    tasks: TaskRegistry[Pool] = TaskRegistry(lifespan=lifespan)

    @tasks.task("own")
    async def own(number: int, ctx: WorkerContext[Pool]) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute(INSERT, [number])

    @tasks.task("apart")
    async def apart(number: int, ctx: WorkerContext[Pool]) -> None:
        async with ctx.deps.connection() as connection:
            await connection.execute(INSERT, [number])

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(task, range(jobs))
    began = time.perf_counter()
    config = WorkerConfig(dsn, concurrency=CONCURRENCY, pool_size=CONCURRENCY + 1)
    assert await WorkerRunner(config, tasks).process_available_jobs() == jobs
    return time.perf_counter() - began
