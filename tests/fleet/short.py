"""A worker process of the tests of express: its task is proven after one attempt, and does what its jobs say.

Called as `short.py DSN CONCURRENCY DEAD_AFTER`; ends when its input is closed or on SIGTERM, by a graceful stop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import psycopg_pool
import uvloop
from stopping import told_to_stop

from backfill import BackfillClient, RetryPolicy, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.worker.express import proofs

proofs.NEEDED, proofs.MOST_SLOW = 1, 1.0  # type: ignore[misc]
Records = psycopg_pool.AsyncConnectionPool[Any]
_dsn, _concurrency, _dead_after = sys.argv[1], int(sys.argv[2]), timedelta(seconds=float(sys.argv[3]))
_BEGIN = "insert into told (job_id, worker, attempt) values (%s, %s, %s)"
_END = "update told set ended = clock_timestamp() where job_id = %s and worker = %s and attempt = %s"


@asynccontextmanager
async def records(_: BackfillClient) -> AsyncIterator[Records]:
    """Connections to write the records by: one statement, committed at once."""
    size = _concurrency + 1
    async with psycopg_pool.AsyncConnectionPool(
        _dsn, min_size=size, max_size=size, kwargs={"autocommit": True}
    ) as pool:
        yield pool


tasks: TaskRegistry[Records] = TaskRegistry(lifespan=records)


def outlive(key: tuple[int, str, int]) -> None:
    """In a child: kill the worker's process, whose sockets stay open here, tell this process's id, and end never."""
    os.kill(os.getppid(), signal.SIGKILL)
    for output in range(3):
        os.close(output)  # the test waits until nobody has these any more
    with psycopg.connect(_dsn) as connection:
        connection.execute("insert into steps (step, attempt, worker) values (%s, %s, %s)", (os.getpid(), 1, key[1]))
    while True:
        signal.pause()


@tasks.task("short", express=True, retry=RetryPolicy(initial_delay=timedelta(0), max_delay=timedelta(0)))
async def short(what: str, ctx: WorkerContext[Records]) -> None:
    """One row when the attempt begins, and its end in it; between them it dies, forks, waits or does nothing."""
    if what == "warm up":
        return
    key = (ctx.job.id, ctx.worker_id, ctx.attempt)
    async with ctx.deps.connection() as connection:
        await connection.execute(_BEGIN, key)
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "fork" and os.fork() == 0:
        outlive(key)
    while what == "wait":
        async with ctx.deps.connection() as connection:
            if await (await connection.execute("select at from released")).fetchone():
                break
        await asyncio.sleep(0.05)
    async with ctx.deps.connection() as connection:
        await connection.execute(_END, key)


async def main() -> None:
    """Work until told to stop."""
    stop = told_to_stop()
    config = WorkerConfig(
        _dsn,
        concurrency=_concurrency,
        dead_after=_dead_after,
        heartbeat_interval=min(_dead_after / 4, timedelta(seconds=5)),
        express_window=timedelta(seconds=1),
    )
    async with WorkerRunner(config, tasks) as runner:
        print(runner.worker_id, flush=True)
        await stop.wait()


uvloop.run(main())
