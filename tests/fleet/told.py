"""A worker process for the tests of control: its handlers record when each attempt began and ended.

Called as `told.py DSN CONCURRENCY DEAD_AFTER`; it says on its output which worker it is, and ends by a graceful stop
when its input is closed or on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg_pool
import uvloop
from stopping import told_to_stop

from backfill import BackfillClient, Breaker, QueueConfig, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

Records = psycopg_pool.AsyncConnectionPool[Any]
_dsn, _concurrency, _dead_after = sys.argv[1], int(sys.argv[2]), timedelta(seconds=float(sys.argv[3]))


@asynccontextmanager
async def records(_: BackfillClient) -> AsyncIterator[Records]:
    """Connections to write the records by: one statement, committed at once."""
    async with psycopg_pool.AsyncConnectionPool(_dsn, min_size=4, max_size=4, kwargs={"autocommit": True}) as pool:
        yield pool


tasks: TaskRegistry[Records] = TaskRegistry(lifespan=records)


@tasks.task("work")
async def work(milliseconds: int, ctx: WorkerContext[Records]) -> None:
    """A row when the attempt begins, and its end in it."""
    async with ctx.deps.connection() as connection:
        await connection.execute(
            "insert into told (job_id, worker, attempt) values (%s, %s, %s)", (ctx.job.id, ctx.worker_id, ctx.attempt)
        )
    await asyncio.sleep(milliseconds / 1000)
    async with ctx.deps.connection() as connection:
        await connection.execute(
            "update told set ended = clock_timestamp() where job_id = %s and worker = %s and attempt = %s",
            (ctx.job.id, ctx.worker_id, ctx.attempt),
        )


@tasks.task(
    "frail",
    aliases=["old_frail"],
    max_attempts=1,
    breaker=Breaker(3, pause=timedelta(seconds=float(os.environ.get("BREAKER_PAUSE", "1")))),
)
async def frail(milliseconds: int, ctx: WorkerContext[Records]) -> None:
    """As `work`; it fails while a row of the table `sick` says so, and it ends as given back while it says `hangs`."""
    await work(milliseconds, ctx)
    async with ctx.deps.connection() as connection:
        found = await (await connection.execute("select how from sick")).fetchone()
    if found == ("hangs",):
        await asyncio.Event().wait()
    if found is not None:
        raise ConnectionError("the other side is away")


async def main() -> None:
    """Work until told to stop."""
    stop = told_to_stop()
    config = WorkerConfig(
        _dsn,
        queues=[QueueConfig.default_queue(_concurrency)],
        dead_after=_dead_after,
        heartbeat_interval=min(_dead_after / 4, timedelta(seconds=5)),
    )
    async with WorkerRunner(config, tasks) as runner:
        print(runner.worker_id, flush=True)
        await stop.wait()


uvloop.run(main())
