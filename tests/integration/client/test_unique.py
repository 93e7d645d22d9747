"""Keys that stay reserved for a while after their job was added: `unique_for`, and keys that `key_of` finds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest

from backfill import BackfillClient, EnqueueStatus, InvalidJobError, JobSpec, NewJob, TaskRegistry
from backfill.client.lent import ServicesClient

from plugins.roles import NewRole
from reading import rows

DAY = timedelta(days=1)
OVER = "update graphile_worker.backfill_reservations set reserved_until = now() - interval '1 second'"
HELD = "select job_key, job_id from graphile_worker.backfill_reservations order by 1"
JOBS = "select key, count(*) from graphile_worker._private_jobs group by key order by key"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """A client of the queue's owner."""
    async with BackfillClient(dsn) as made:
        yield made


async def test_second_job_of_a_reserved_key_is_not_added(client: BackfillClient) -> None:
    """The second call writes nothing, even when the first job is done, and names that job."""
    first = await client.enqueue("t", {"n": 1}, job_key="k", unique_for=DAY)
    again = await client.enqueue("t", {"n": 2}, job_key="k", unique_for=DAY)
    assert (first.status, again.status, again.id) == (EnqueueStatus.ADDED, EnqueueStatus.KEPT, first.id)
    assert again.reserved_until == first.reserved_until
    assert again.in_queue
    assert not again.is_enqueued
    await client.complete_jobs([first])
    late = await client.enqueue("t", {"n": 3}, job_key="k", unique_for=DAY)
    assert (late.status, late.id, late.in_queue, late.job.key) == (EnqueueStatus.KEPT, first.id, False, "k")


async def test_key_is_free_after_its_time_and_after_removal(client: BackfillClient, dsn: str) -> None:
    """A key can be taken again when its time is over, or when its job was removed."""
    first = await client.enqueue("t", job_key="k", unique_for=DAY)
    await rows(dsn, OVER)
    second = await client.enqueue("t", job_key="k", unique_for=DAY)
    assert (second.status, second.id) == (EnqueueStatus.REPLACED, first.id)
    await client.remove_job("k")
    third = await client.enqueue("t", job_key="k", unique_for=DAY)
    assert third.status is EnqueueStatus.ADDED
    await client.complete_jobs([third])
    await client.remove_job("k")
    assert await rows(dsn, HELD) == []


async def test_failure_keeps_the_key_reserved(client: BackfillClient) -> None:
    """A job that failed for good keeps its key reserved."""
    first = await client.enqueue("t", job_key="k", unique_for=DAY)
    await client.fail_jobs([first], "no")
    assert (await client.enqueue("t", job_key="k", unique_for=DAY)).status is EnqueueStatus.KEPT


async def test_rollback_leaves_no_reservation(client: BackfillClient, dsn: str) -> None:
    """The reservation belongs to the caller's transaction."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await client.enqueue("t", job_key="k", unique_for=DAY, connection=connection)
        await connection.rollback()
    assert await rows(dsn, HELD) == []


@pytest.mark.parametrize("span", [timedelta(0), timedelta(days=3650, microseconds=1), 5])
async def test_bad_spans_are_refused(client: BackfillClient, span: timedelta) -> None:
    """The span has a range, and needs a key."""
    with pytest.raises(InvalidJobError, match="unique_for"):
        await client.enqueue("t", job_key="k", unique_for=span)
    with pytest.raises(InvalidJobError, match="job_key"):
        await client.enqueue("t", unique_for=DAY)


async def test_racing_producers_add_one_job_of_a_key(client: BackfillClient, dsn: str) -> None:
    """Of 32 connections that race for three keys, exactly one commits a job of each, in spite of rollbacks."""

    async def produce(number: int) -> list[str]:
        done: list[str] = []
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            for turn in range(6):
                key = f"k{(turn + number) % 3}"
                out = await client.enqueue("t", job_key=key, unique_for=DAY, connection=connection)
                if (number + turn) % 5 == 0:
                    await connection.rollback()
                    continue
                await connection.commit()
                if out.is_enqueued:
                    done.append(key)
        return done

    added = await asyncio.gather(*(produce(number) for number in range(32)))
    assert Counter(key for keys in added for key in keys) == {"k0": 1, "k1": 1, "k2": 1}
    assert await rows(dsn, JOBS) == [("k0", 1), ("k1", 1), ("k2", 1)]


async def test_bulk_counts_the_kept_jobs_and_gives_their_ids(client: BackfillClient) -> None:
    """A bulk call gives the ids of the jobs that hold the reservations."""
    first = await client.enqueue("t", job_key="b", unique_for=DAY)
    items = [
        NewJob("t", 1),
        NewJob("t", 2, JobSpec(job_key="b", unique_for=DAY)),
        NewJob("t", 3, JobSpec(job_key="a", unique_for=DAY)),
        NewJob("t", 4, JobSpec(job_key="a", unique_for=DAY)),
        NewJob("t", 5, JobSpec(job_key="plain")),
    ]
    done = await client.enqueue_bulk(items, return_ids=True)
    assert (done.written, done.kept) == (3, 2)
    assert done.ids is not None
    assert done.ids[1] == first.id
    assert done.ids[2] == done.ids[3]
    assert all(done.ids)


async def test_task_finds_the_key_in_the_payload(client: BackfillClient) -> None:
    """The function of the task gives the key where the call gives none."""
    tasks = TaskRegistry()

    @tasks.task("keyed", key_of=lambda payload: f"user:{payload['user']}", unique_for=DAY)
    async def keyed(payload: dict[str, int]) -> None:
        """Do nothing."""

    first = await client.enqueue(keyed, {"user": 1})
    assert (first.job.key, first.status) == ("user:1", EnqueueStatus.ADDED)
    assert (await client.enqueue(keyed, {"user": 1})).status is EnqueueStatus.KEPT
    assert (await client.enqueue(keyed, {"user": 1}, job_key="own")).job.key == "own"
    assert (await client.enqueue_bulk(keyed, [{"user": 1}, {"user": 2}])).kept == 1


async def test_key_that_is_no_text_is_refused() -> None:
    """The error names the field and the task."""
    tasks = TaskRegistry()

    @tasks.task("keyed", key_of=lambda payload: payload)
    async def keyed(payload: str) -> None:
        """Do nothing."""

    with pytest.raises(InvalidJobError, match=r"job_key.*'keyed' names as key_of"):
        keyed.job("")


async def test_workers_sweep_reservations_whose_time_is_over(client: BackfillClient, dsn: str) -> None:
    """Those that hold stay."""
    await client.enqueue("t", job_key="old", unique_for=DAY)
    await rows(dsn, OVER)
    new = await client.enqueue("t", job_key="new", unique_for=DAY)
    async with ServicesClient(dsn) as services:
        assert (await services.sweep_reservations(None)).deleted == 1
    assert await rows(dsn, HELD) == [("new", new.id)]


async def test_producers_may_reserve_keys(role: NewRole) -> None:
    """Their role has no right on the table."""
    async with BackfillClient(role("producer")) as producer:
        first = await producer.enqueue("t", job_key="k", unique_for=DAY)
        assert (await producer.enqueue("t", job_key="k", unique_for=DAY)).id == first.id
        done = await producer.enqueue_bulk([NewJob("t", 1, JobSpec(job_key="k", unique_for=DAY))])
        assert (done.written, done.kept) == (0, 1)
        await producer.remove_job("k")
        assert (await producer.enqueue("t", job_key="k", unique_for=DAY)).status is EnqueueStatus.ADDED
