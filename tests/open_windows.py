"""An imitation of a worker's window: a session in an open transaction that holds jobs by the locks of their rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

JOBS = "graphile_worker._private_jobs"
PICK: LiteralString = f"""
    select id from {JOBS} where id = any (%s) and locked_at is null for update skip locked"""
CLAIM: LiteralString = f"""
    update {JOBS} set attempts = attempts + 1, locked_by = %s, locked_at = clock_timestamp() where id = any (%s)"""
WAITERS: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0"""
"""How many sessions wait for another one."""


class OpenWindow:
    """A window that is open.

    Args:
        connection: its session, in a transaction.
        jobs: the ids of the jobs that it holds.
        worker: the worker's id.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], jobs: list[int], worker: str) -> None:
        self.connection = connection
        self.jobs = jobs
        self.worker = worker

    async def complete(self) -> None:
        """Delete the jobs: their handlers have returned."""
        await self.connection.execute(f"delete from {JOBS} where id = any (%s)", [self.jobs])
        await self.connection.commit()

    async def enter_rows(self) -> None:
        """Write the claims into the rows: the handlers still run."""
        await self.connection.execute(CLAIM, [self.worker, self.jobs])
        await self.connection.commit()

    async def let_go(self) -> None:
        """Let the jobs wait as before: none has started."""
        await self.connection.commit()

    async def break_off(self) -> None:
        """Lose the connection."""
        await self.connection.close()


@asynccontextmanager
async def open_window(
    dsn: str, *jobs: int, worker: str = "backfill_w", name: str = "backfill express backfill_w 0"
) -> AsyncIterator[OpenWindow]:
    """A window that holds some jobs; it must have got all of them."""
    async with await psycopg.AsyncConnection.connect(make_conninfo(dsn, application_name=name)) as connection:
        picked = await (await connection.execute(PICK, [list(jobs)])).fetchall()
        assert sorted(picked) == sorted((job,) for job in jobs)
        yield OpenWindow(connection, list(jobs), worker)
        with suppress(psycopg.OperationalError):  # the server has ended it
            await connection.rollback()
