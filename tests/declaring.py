"""Rows of live workers that declare recurring items, without a worker behind them."""

from __future__ import annotations

from datetime import timedelta

import psycopg

from backfill.cron import parse_crontab
from backfill.storage.schedules import crontab_of
from backfill.storage.workers import WorkerRow, add_worker, remove_worker

SCHEMA = "graphile_worker"


async def declare(dsn: str, worker: str, crontab: str, *, schedules: bool = True) -> None:
    """Write the row of a worker that lives for an hour and whose code declares a crontab.

    Args:
        dsn: the database.
        worker: the worker's id.
        crontab: the text.
        schedules: whether it runs a scheduler.
    """
    row = WorkerRow(
        id=worker,
        host="host",
        pid=1,
        protocol=1,
        lanes=[],
        tasks=[],
        version="0",
        dead_after=timedelta(hours=1),
        crontab=crontab_of(parse_crontab(crontab)),
        schedules=schedules,
    )
    async with await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, cursor_factory=psycopg.AsyncRawCursor
    ) as connection:
        await add_worker(connection, row, schema=SCHEMA)


async def withdraw(dsn: str, worker: str) -> None:
    """End such a worker: its row goes."""
    async with await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, cursor_factory=psycopg.AsyncRawCursor
    ) as connection:
        await remove_worker(connection, worker, schema=SCHEMA)
