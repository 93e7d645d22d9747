"""A worker process of the fleet tests: records in a table what it runs, and says on its output which worker it is.

Called as `program.py DSN CONCURRENCY DEAD_AFTER`; ends when its input is closed or on SIGTERM, by a graceful stop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg_pool
import uvloop
from stopping import told_to_stop

from backfill import BackfillClient, QueueConfig, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

Records = psycopg_pool.AsyncConnectionPool[Any]
_dsn, _concurrency, _dead_after = sys.argv[1], int(sys.argv[2]), timedelta(seconds=float(sys.argv[3]))


@asynccontextmanager
async def records(_: BackfillClient) -> AsyncIterator[Records]:
    """Connections to write the records by: one statement, committed at once."""
    async with psycopg_pool.AsyncConnectionPool(_dsn, min_size=4, max_size=4, kwargs={"autocommit": True}) as pool:
        yield pool


tasks: TaskRegistry[Records] = TaskRegistry(lifespan=records)


@tasks.task("record")
async def record(number: int, ctx: WorkerContext[Records]) -> None:
    """One row when the attempt has ended."""
    async with ctx.deps.connection() as connection:
        await connection.execute(
            "insert into runs (job_id, number, worker, attempt) values (%s, %s, %s, %s)",
            (ctx.job.id, number, ctx.worker_id, ctx.attempt),
        )


@tasks.task("record_span")
async def record_span(number: int, ctx: WorkerContext[Records]) -> None:
    """One row at the begin, and its end in it."""
    async with ctx.deps.connection() as connection:
        await connection.execute(
            "insert into spans (job_id, number, queue, began) values (%s, %s, %s, clock_timestamp())",
            (ctx.job.id, number, ctx.job.queue_name),
        )
        await connection.execute("update spans set ended = clock_timestamp() where job_id = %s", (ctx.job.id,))


@tasks.task("hold")
async def hold(_: dict[str, Any], ctx: WorkerContext[Records]) -> None:
    """Ends once it is released, and not before."""
    while True:
        async with ctx.deps.connection() as connection:
            if await (await connection.execute("select at from released")).fetchone():
                break
        await asyncio.sleep(0.05)
    async with ctx.deps.connection() as connection:
        await connection.execute(
            "insert into runs (job_id, number, worker, attempt) values (%s, -1, %s, %s)",
            (ctx.job.id, ctx.worker_id, ctx.attempt),
        )


@tasks.task("short_work")
async def short_work(_: Any) -> None:
    """Takes 20 ms and writes nothing."""
    await asyncio.sleep(0.02)


@tasks.task("limited_work")
async def limited_work(_: Any) -> None:
    """The same, for tests that limit it."""
    await asyncio.sleep(0.02)


@tasks.task("limited_span")
async def limited_span(payload: dict[str, Any], ctx: WorkerContext[Records]) -> None:
    """One row at the begin of an attempt, by the database's clock, and its end in it."""
    async with ctx.deps.connection() as connection:
        await connection.execute(
            "insert into attempts (job_id, attempt, worker, value, began) values (%s, %s, %s, %s, clock_timestamp())",
            (ctx.job.id, ctx.attempt, ctx.worker_id, payload.get("value")),
        )
        await asyncio.sleep(payload.get("seconds", 0.02))
        await connection.execute(
            "update attempts set ended = clock_timestamp() where job_id = %s and attempt = %s and worker = %s",
            (ctx.job.id, ctx.attempt, ctx.worker_id),
        )


@tasks.task("steps")
async def steps(total: int, ctx: WorkerContext[Records]) -> None:
    """So many steps of 15 ms, each with a row, from the checkpoint on."""
    for step in range(ctx.checkpointed or 0, total):
        async with ctx.deps.connection() as connection:
            await connection.execute(
                "insert into steps (step, attempt, worker) values (%s, %s, %s)", (step, ctx.attempt, ctx.worker_id)
            )
        await asyncio.sleep(0.015)
        ctx.checkpoint(step + 1)
        ctx.set_progress(step + 1, total)


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
