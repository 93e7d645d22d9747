"""Partitions of ends: made ahead, dropped when their day is over, and missed by nobody while they cannot be had."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from backfill import TaskRegistry, WorkerConfig, WorkerRunner
from backfill.client.lent import ServicesClient

from reading import rows, value

ENDS = "graphile_worker.backfill_ends"
HOUR = timedelta(hours=1)

tasks: TaskRegistry[None] = TaskRegistry()


@tasks.task("add", keep=HOUR)
async def add(parts: list[int]) -> int:
    """Kept for an hour."""
    return sum(parts)


@tasks.task("say", keep=timedelta(days=30))
async def say(what: Any) -> Any:
    """Kept for a month."""
    return what


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client."""
    async with ServicesClient(dsn) as one:
        yield one


async def _run(dsn: str) -> int:
    return await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()


async def test_partitions_are_made_ahead_and_dropped_when_over(dsn: str, client: ServicesClient) -> None:
    """For today's and tomorrow's ends; what was in the default one moves.

    An expired day goes whole, and nothing else.
    """
    await client.enqueue(add.job([1]))
    await client.enqueue("say", 1)
    await _run(dsn)  # which looks after them at its end
    partitions = (
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'graphile_worker.backfill_ends'::regclass"
    )
    made = {name for (name,) in await rows(dsn, partitions)} - {"graphile_worker.backfill_ends_default"}
    today = datetime.now(UTC)
    days = {(today + keep + timedelta(days=ahead)).date() for keep in (HOUR, timedelta(days=30)) for ahead in range(3)}
    assert made == {f"graphile_worker.backfill_ends_{day:%Y%m%d}" for day in days}
    assert await value(dsn, f"select count(*) from only {ENDS}_default") == 0
    assert await value(dsn, f"select count(*) from {ENDS}") == 2
    assert await client.tend_ends([HOUR, timedelta(days=30)]) == (0, 0)
    await rows(
        dsn,
        f"""insert into {ENDS} select job_id + 1000, task_identifier, how, attempts, max_attempts, priority, queue_name,
          job_key, created_at, run_at, started_at, ended_at, expires_at - interval '1 day' * %s,
          worker_id, error, result
        from {ENDS} where task_identifier = 'add' returning 1""",
        2,
    )
    old = await client.enqueue("say", 1, delay=HOUR)
    assert await client.end(old.id) is None
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            f"create table {ENDS}_old partition of {ENDS} for values from ('2001-01-01 UTC') to ('2001-01-02 UTC')"
        )
    made_late, dropped = await client.tend_ends([timedelta(days=400)])
    assert (made_late, dropped) == (3, 2)
    assert await value(dsn, f"select count(*) from {ENDS}") == 2


async def test_a_partition_that_cannot_be_had_now_is_made_later(dsn: str, client: ServicesClient) -> None:
    """Somebody holds the table: nothing waits for long, and ends are written to the default one meanwhile."""
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute(f"select count(*) from {ENDS}")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await client.tend_ends([HOUR])
        outcome = await client.enqueue("say", 3)
        await _run(dsn)
        assert await client.result(outcome) == 3
        await other.rollback()
    assert await client.tend_ends([timedelta(days=30)]) == (3, 0)
    assert await client.result(outcome) == 3
    assert await value(dsn, f"select count(*) from only {ENDS}_default") == 0
