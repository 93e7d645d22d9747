"""What a test leaves behind fails it: a task on the loop, a connection to its database, a lock without its owner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from plugins.periods import between_looks
from reading import close_kept


@pytest.fixture(autouse=True)
def _no_rows_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test with a database: no connection of its own is open, and nothing is locked by nobody."""
    dsn = request.getfixturevalue("dsn") if "dsn" in request.fixturenames else None
    yield
    close_kept()
    if dsn is None:
        return
    with psycopg.connect(dsn, autocommit=True) as connection:
        others = _others(connection)
        if others:
            pytest.fail(f"connections left open: {others}")
        if request.node.get_closest_marker("leaves_rows") is None:
            locked = connection.execute(
                """select id, locked_by from graphile_worker._private_jobs
                   where locked_by like 'backfill\\_%%'
                     and locked_by not in (select id from graphile_worker.backfill_workers)"""
            ).fetchall()
            if locked:
                pytest.fail(f"jobs left locked by workers that ended: {locked[:5]}")


def _others(connection: psycopg.Connection) -> list[tuple[int, str, str]]:
    """The connections that do not go away within a few seconds."""
    deadline = time.monotonic() + 10
    while True:
        found = connection.execute(
            """select pid, application_name, query from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""
        ).fetchall()
        if not found or time.monotonic() > deadline:
            return found
        between_looks()


@pytest.fixture(autouse=True)
async def _no_tasks_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """After an async test: every task that it started has ended."""
    if not asyncio.iscoroutinefunction(getattr(request, "function", None)):
        yield
        return
    before = asyncio.all_tasks()
    yield
    left = [task for task in asyncio.all_tasks() - before if not task.done() and task is not asyncio.current_task()]
    if left:
        pytest.fail(f"tasks left running: {left}")
