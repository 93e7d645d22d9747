"""A worker process whose handlers add 1 to a row in `ctx.transaction()`: each job must do so once, whatever happens.

Called as `adding.py DSN CONCURRENCY DEAD_AFTER`; it says on its output which worker it is, and ends by a graceful stop
when its input is closed or on SIGTERM. It starts however long the database is away.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import uvloop
from stopping import told_to_stop

from backfill import BackfillError, RetryPolicy, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

_dsn, _concurrency, _dead_after = sys.argv[1], int(sys.argv[2]), timedelta(seconds=float(sys.argv[3]))
SOON = RetryPolicy(1_000, timedelta(milliseconds=20), timedelta(milliseconds=100), 2.0, 0.5)
ADD: LiteralString = "update sums set sum = sum + 1"
NOTE: LiteralString = "insert into added values (%s)"

tasks: TaskRegistry[None] = TaskRegistry()


@tasks.task("add")
async def add(number: int, ctx: WorkerContext[None]) -> None:
    """On the event loop."""
    async with ctx.transaction() as tx:
        await tx.connection.execute(NOTE, [number])
        await tx.connection.execute(ADD)


@tasks.task("add_in_thread")
def add_in_thread(number: int, ctx: WorkerContext[None]) -> None:
    """In a thread."""
    with ctx.transaction() as tx:
        tx.connection.execute(NOTE, [number])
        tx.connection.execute(ADD)


async def main() -> None:
    """Work until told to stop."""
    stop = told_to_stop()
    config: dict[str, Any] = {
        "concurrency": _concurrency,
        "retry": SOON,
        "dead_after": _dead_after,
        "heartbeat_interval": _dead_after / 4,
        "shutdown_timeout": timedelta(seconds=10),
    }
    while not stop.is_set():
        runner = WorkerRunner(WorkerConfig(_dsn, **config), tasks)
        try:
            await runner.__aenter__()
        except (BackfillError, psycopg.Error, OSError):
            await asyncio.sleep(0.1)  # a start fails where the database is away; the server is restarted just now
        else:
            break
    else:
        return
    try:
        print(runner.worker_id, flush=True)
        await stop.wait()
    finally:
        await runner.__aexit__(None, None, None)


uvloop.run(main())
