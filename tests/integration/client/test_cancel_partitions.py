"""Cancelling a job while the partition of ends is just being made that its end belongs to."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest

from backfill import BackfillClient, CancelStatus, JobCancelledError

from plugins.waiting import Eventually
from reading import value

pytestmark = pytest.mark.leaves_rows
MAKE: LiteralString = """
    select graphile_worker.backfill_make_ends(array[today, today + 1])
    from (select (now() at time zone 'utc')::date as today) as days"""
BLOCKED: LiteralString = """
    select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"""


async def test_a_job_is_cancelled_while_a_partition_is_made(dsn: str, eventually: Eventually) -> None:
    """The end finds the new partition, on the client's connection and on the caller's, and says why."""
    async with BackfillClient(dsn) as client, await psycopg.AsyncConnection.connect(dsn, autocommit=True) as own:
        first, second = [await client.enqueue("t", delay=timedelta(days=1)) for _ in range(2)]
        async with await psycopg.AsyncConnection.connect(dsn) as maker:
            await maker.execute(MAKE)
            cancelling = [
                asyncio.create_task(client.cancel(first, reason="one")),
                asyncio.create_task(client.cancel(second, reason="two", connection=own)),
            ]
            await eventually(lambda: value(dsn, BLOCKED), lambda count: count == 2)
            await maker.commit()
        assert [outcome.status for outcome in await asyncio.gather(*cancelling)] == [CancelStatus.REMOVED] * 2
        for job, reason in ((first, "one"), (second, "two")):
            with pytest.raises(JobCancelledError, match=reason):
                await client.result(job, timeout=30)
