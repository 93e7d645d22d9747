"""A worker at steady work, its figures over so many seconds, and what is done to its database meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerRunner

TASK = "faults"
WORK = 0.02
END_ONE = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and application_name ~ '^backfill backfill_' order by random() limit 1"""


@dataclass
class Work:
    """What has ended.

    Attributes:
        dsn: the database's.
        ended: how many jobs.
    """

    dsn: str
    ended: int = 0

    async def rate(self, seconds: float) -> float:
        """Jobs a second over so many seconds."""
        before, began = self.ended, time.monotonic()
        await asyncio.sleep(seconds)
        return (self.ended - before) / (time.monotonic() - began)


@asynccontextmanager
async def workers(dsn: str, *, count: int = 2, slots: int = 10) -> AsyncIterator[Work]:
    """Workers that wait for jobs of 20 ms; what is left at the end is deleted."""
    work = Work(dsn)
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task(TASK)
    async def run(payload: float) -> None:
        del payload
        await asyncio.sleep(WORK)
        work.ended += 1

    config = WorkerConfig(dsn, concurrency=slots, shutdown_timeout=timedelta(seconds=2))
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(WorkerRunner(config, tasks))
        yield work
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute("delete from graphile_worker._private_jobs where locked_at is null")


async def backlog(dsn: str, seconds: float, *, count: int = 2, slots: int = 10) -> None:
    """Jobs for so many seconds."""
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(TASK, (0.0 for _ in range(int(seconds * count * slots / WORK))))


async def ending_backends(dsn: str, until: asyncio.Future[float]) -> int:
    """End a connection of the workers' twice a second; how many it were."""
    ended = 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while not until.done():
            ended += (await connection.execute(END_ONE)).rowcount
            await asyncio.wait([until], timeout=0.5)
    return ended


@asynccontextmanager
async def idle_connections(dsn: str, most: int) -> AsyncIterator[int]:
    """Connections that somebody else holds and does nothing with: so many, or as many as leave sixty; how many they are."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(await psycopg.AsyncConnection.connect(dsn, autocommit=True))
        row = await (
            await first.execute(
                "select current_setting('max_connections')::int - count(*) from pg_stat_activity where datid is not null"
            )
        ).fetchone()
        count = min(most, int(row[0]) - 60) if row else 0
        for _ in range(count):
            await stack.enter_async_context(await psycopg.AsyncConnection.connect(dsn))
        yield count
