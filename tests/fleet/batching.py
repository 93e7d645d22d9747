"""A worker process whose handlers do batches of items, some of which fail, and record what they saw and did.

Called as `batching.py DSN CONCURRENCY DEAD_AFTER`; it says on its output which worker it is, and ends by a graceful
stop when its input is closed or on SIGTERM.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg_pool
import uvloop
from stopping import told_to_stop

from backfill import (
    BackfillClient,
    BatchFailed,
    NetworkError,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

Records = psycopg_pool.AsyncConnectionPool[Any]
_dsn, _concurrency, _dead_after = sys.argv[1], int(sys.argv[2]), timedelta(seconds=float(sys.argv[3]))
SOON = RetryPolicy(1_000, timedelta(milliseconds=20), timedelta(milliseconds=100), 2.0, 0.5)


@asynccontextmanager
async def records(_: BackfillClient) -> AsyncIterator[Records]:
    """Connections to write the records by: one statement, committed at once."""
    async with psycopg_pool.AsyncConnectionPool(_dsn, min_size=4, max_size=4, kwargs={"autocommit": True}) as pool:
        yield pool


tasks: TaskRegistry[Records] = TaskRegistry(lifespan=records)


@tasks.task("batch", batch=True, keep=timedelta(hours=1), retry=SOON)
async def batch(items: list[int], ctx: WorkerContext[Records]) -> None:
    """Do each item in 20 ms, or let it fail, three times in ten; a row says what was there, and what is left."""
    this = ctx.job.id, ctx.attempt
    async with ctx.deps.connection() as connection:
        await connection.execute("insert into seen (job_id, attempt, items) values (%s, %s, %s)", [*this, items])
        failed = []
        for place, item in enumerate(items):
            await asyncio.sleep(0.02)
            if random.random() < 0.3:
                failed.append(place)
            else:
                await connection.execute("insert into done (job_id, attempt, item) values (%s, %s, %s)", [*this, item])
        left = [items[place] for place in failed]
        await connection.execute("update seen set remaining = %s where (job_id, attempt) = (%s, %s)", [left, *this])
    if failed:
        raise BatchFailed(random.sample(failed, len(failed)), NetworkError("no answer"))


async def main() -> None:
    """Work until told to stop."""
    stop = told_to_stop()
    config = WorkerConfig(
        _dsn,
        concurrency=_concurrency,
        dead_after=_dead_after,
        heartbeat_interval=_dead_after / 4,
        shutdown_timeout=timedelta(seconds=10),
    )
    async with WorkerRunner(config, tasks) as runner:
        print(runner.worker_id, flush=True)
        await stop.wait()


uvloop.run(main())
