"""Counters as series: empty spans stand between those that were counted, for the asynchronous and the other client."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from backfill import BackfillClient, Counts, InvalidJobError
from backfill.client.lent import ServicesClient
from backfill.storage.counters import MinuteCounts
from backfill.sync import Client

START = datetime(2026, 3, 28, 10, 0, tzinfo=UTC)


def counts_of(task: str, at: datetime, done: int) -> MinuteCounts:
    """Counts of the minute that begins then: waits under 2 ms, runs from 32 to 64 ms."""
    return MinuteCounts(
        minute=int(at.timestamp()) // 60, task=task, done=done, failed=0, retried=0, dead=0, snoozed=0, discarded=0,
        given_back=0, wait_seconds=0.0015 * done, run_seconds=0.048 * done, wait=[0, done], run=[0] * 6 + [done],
    )  # fmt: skip


@pytest.fixture
async def counted(dsn: str) -> str:
    """A database with counts of two tasks: one at 10:01 and 12:59, the other at 10:03, of two workers."""
    async with ServicesClient(dsn) as client:
        later = START + timedelta(hours=2, minutes=59)
        await client.write_counters(
            "w", [counts_of("mail", START + timedelta(minutes=1), 3), counts_of("mail", later, 4)]
        )
        await client.write_counters("v", [counts_of("bill", START + timedelta(minutes=3), 5)])
    return dsn


async def test_every_minute_of_a_range(counted: str) -> None:
    """Each task has each minute once; those in which the range begins and ends are counted whole."""
    async with BackfillClient(counted) as client:
        since, until = START + timedelta(minutes=1, seconds=30), START + timedelta(minutes=3, microseconds=1)
        found = await client.counters(since=since, until=until, by="minute", fill=True)
        assert [(counts.task, counts.started - START, counts.done) for counts in found] == [
            (task, timedelta(minutes=minute), {("mail", 1): 3, ("bill", 3): 5}.get((task, minute), 0))
            for minute in (1, 2, 3)
            for task in ("bill", "mail")
        ]
        mail = next(counts for counts in found if counts.done == 3)
        assert (mail.wait.p50, mail.run.p50) == (timedelta(milliseconds=1.5), timedelta(milliseconds=48))
        assert mail.run.p95 == mail.run.percentile(95) != mail.run.p99 == mail.run.percentile(99)
        until = START + timedelta(minutes=3)
        assert len(await client.counters(since=since, until=until, by="minute", fill=True)) == 2


async def test_hours_days_and_workers(counted: str) -> None:
    """A range that begins within an hour has all of that hour; each worker has a series of its own."""
    async with BackfillClient(counted) as client:
        since, until = START + timedelta(minutes=30), START + timedelta(hours=3)
        found = await client.counters(task="mail", since=since, until=until, by="hour", fill=True)
        assert [counts.done for counts in found] == [3, 0, 4]
        found = await client.counters(since=since, until=until, by="day", by_worker=True, fill=True)
        assert [(counts.task, counts.worker, counts.done) for counts in found] == [("bill", "v", 5), ("mail", "w", 7)]
        found = await client.counters(task="none", worker="w", since=since, until=until, by="hour", fill=True)
        assert [(counts.task, counts.worker, counts.done) for counts in found] == [("none", "w", 0)] * 3
        assert await client.counters(worker="none", since=since, until=until, by="hour", fill=True) == []
        with pytest.raises(InvalidJobError, match="by = None"):
            await client.counters(since=since, fill=True)


async def test_until_now(dsn: str) -> None:
    """Without an end the range goes on until now, or until the last count where the database's clock is ahead."""
    now = datetime.now(UTC)
    async with ServicesClient(dsn) as client:
        await client.write_counters("w", [counts_of("mail", now + timedelta(hours=2), 1)])
        found = await client.counters(task="none", since=now - timedelta(hours=2), by="hour", fill=True)
        assert len(found) in {3, 4}
        found = await client.counters(since=now - timedelta(hours=2), by="hour", fill=True)
    assert [counts.done for counts in found] == [0, 0, 0, 0, 1]


async def test_the_other_client(counted: str) -> None:
    """It gives the same series."""
    until = START + timedelta(hours=3)
    async with BackfillClient(counted) as client:
        theirs = await client.counters(since=START, until=until, by="hour", fill=True)

    def read() -> list[Counts]:
        with Client(counted) as other:
            return other.counters(since=START, until=until, by="hour", fill=True)

    assert await asyncio.to_thread(read) == theirs
    assert [counts.done for counts in theirs] == [5, 3, 0, 0, 0, 4]
