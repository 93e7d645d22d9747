"""Keys that stay reserved for a while after their job was added: `unique_for`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import (
    BackfillClient,
    CancelStatus,
    EnqueueOutcome,
    EnqueueStatus,
    InvalidJobError,
    JobFilter,
    JobKeyMode,
    JobSpec,
    NewJob,
    Queue,
)
from backfill.client.lent import ServicesClient
from backfill.sync import Client as SyncClient
from backfill.worker.upkeep.left_attempts import LeftAttempts

from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

DAY = timedelta(days=1)
OVER = "update graphile_worker.backfill_reservations set reserved_until = now() - interval '1 second'"
HELD = "select job_key, job_id from graphile_worker.backfill_reservations order by 1"


BLOCKED: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0"""
REMOVALS: dict[str, Callable[[BackfillClient, EnqueueOutcome[Any]], Awaitable[object]]] = {
    "key": lambda client, job: client.remove_job("k"),
    "id": lambda client, job: client.remove_job(id=job),
    "cancel": lambda client, job: client.cancel(job),
}


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


async def test_completion_keeps_the_key_reserved(client: BackfillClient, dsn: str) -> None:
    """What ends a job as done, by its id or by a worker, does not touch the reservation."""
    first = await client.enqueue("t", job_key="k", unique_for=DAY)
    await client.complete_jobs([first])
    assert await rows(dsn, HELD) == [("k", first.id)]


@pytest.mark.parametrize("way", REMOVALS)
@pytest.mark.parametrize("duty", ["owner", "worker", "producer"])
async def test_whoever_removes_a_waiting_job_frees_its_key(dsn: str, role: NewRole, duty: str, way: str) -> None:
    """By its key, by its id, or by cancelling it; other keys stay reserved."""
    async with BackfillClient(dsn if duty == "owner" else role(duty)) as client:
        first = await client.enqueue("t", job_key="k", unique_for=DAY)
        other = await client.enqueue("t", job_key="other", unique_for=DAY)
        await REMOVALS[way](client, first)
        assert await rows(dsn, HELD) == [("other", other.id)]
        second = await client.enqueue("t", job_key="k", unique_for=DAY)
        assert (second.status, second.id != first.id) == (EnqueueStatus.ADDED, True)


async def test_a_filter_frees_the_keys_of_the_jobs_that_it_cancels(client: BackfillClient, dsn: str) -> None:
    """Those that do not match keep theirs."""
    for key in ("a1", "b1", "a2"):
        await client.enqueue("t", job_key=key, unique_for=DAY)
    assert (await client.cancel_jobs(JobFilter(key_prefix="a"))).removed == 2
    assert [key for key, _ in await rows(dsn, HELD)] == ["b1"]


@pytest.mark.parametrize("duty", ["owner", "producer"])
async def test_a_running_job_keeps_its_key_reserved_unless_its_owner_removes_it(
    dsn: str, role: NewRole, duty: str
) -> None:
    """To cancel it frees nothing, and a producer cannot remove it; removed by its key, it will not be tried again."""
    async with BackfillClient(dsn if duty == "owner" else role(duty)) as client:
        first = await client.enqueue("t", job_key="k", unique_for=DAY)
        await rows(dsn, "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'backfill_a'")
        await client.remove_job(id=first)
        assert await rows(dsn, HELD) == [("k", first.id)]
        removed = await client.remove_job("k")
        assert (removed is None, await rows(dsn, HELD)) == (
            (True, [("k", first.id)]) if duty == "producer" else (False, [])
        )
    async with BackfillClient(dsn) as owner:
        kept = await owner.enqueue("t", job_key="c", unique_for=DAY)
        await rows(dsn, "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'backfill_a'")
        assert (await owner.cancel(kept)).status is CancelStatus.REQUESTED
        assert (await owner.enqueue("t", job_key="c", unique_for=DAY)).id == kept.id
    await rows(dsn, "delete from graphile_worker._private_jobs")


@pytest.mark.parametrize("duty", ["owner", "producer"])
async def test_another_job_of_the_key_frees_nothing_that_is_not_its_own(dsn: str, role: NewRole, duty: str) -> None:
    """Where the job that reserved the key has ended, a later one without a reservation may be removed by its id."""
    async with BackfillClient(dsn) as owner, BackfillClient(dsn if duty == "owner" else role(duty)) as client:
        first = await client.enqueue("t", job_key="k", unique_for=DAY)
        await owner.complete_jobs([first])
        await client.remove_job(id=await client.enqueue("t", job_key="k"))
        await client.cancel(await client.enqueue("t", job_key="k"))
        assert await rows(dsn, HELD) == [("k", first.id)]
        assert await client.remove_job("k") is None
        assert await rows(dsn, HELD) == []


async def test_sql_frees_a_key(client: BackfillClient, dsn: str) -> None:
    """Graphile Worker's own remove_job knows no reservations; a function of ours frees the key after it."""
    await client.enqueue("t", job_key="k", unique_for=DAY)
    assert await value(dsn, "select graphile_worker.backfill_free_reservations(array['k'])") == 0  # its job waits
    await rows(dsn, "select graphile_worker.remove_job('k')")
    assert await value(dsn, "select graphile_worker.backfill_free_reservations(array['k', 'none'])") == 1


async def test_a_waiting_job_that_was_left_reserves_nothing(client: BackfillClient, dsn: str) -> None:
    """No job was added, so the next call is not refused."""
    first = await client.enqueue("t", job_key="k")
    for _ in range(2):
        left = await client.enqueue("t", job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE, unique_for=DAY)
        assert (left.status, left.id, left.reserved_until) == (EnqueueStatus.KEPT, first.id, None)
    assert await rows(dsn, HELD) == []


async def test_the_time_counts_from_when_the_job_was_added(
    client: BackfillClient, dsn: str, eventually: Eventually
) -> None:
    """A call that waited for another transaction still has the whole time."""
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await client.enqueue("t", job_key="k", connection=other)
        waits = asyncio.create_task(client.enqueue("t", job_key="k", unique_for=DAY))
        await eventually(lambda: value(dsn, BLOCKED))
        until = await value(dsn, "select clock_timestamp()")
        await other.commit()
    done = await waits
    assert done.reserved_until is not None
    assert done.reserved_until >= until + DAY


async def test_jobs_of_which_workers_are_not_told(client: BackfillClient, dsn: str) -> None:
    """`notify=False` adds the job, with its queue and flags, without a notification."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listener:
        await listener.execute('listen "jobs:insert"')
        done = await client.enqueue(
            "t", 7, job_key="k", unique_for=DAY, notify=False, queue=Queue.serial("q"), flags=["f"], priority=3
        )
        assert [told async for told in listener.notifies(timeout=0)] == []
        job = done.job
        assert (job.payload, job.queue_name, job.flags, job.priority, job.max_attempts) == (7, "q", ("f",), 3, 8)
        await client.enqueue("t", job_key="l", unique_for=DAY)
        assert len([told async for told in listener.notifies(timeout=20, stop_after=1)]) == 1


async def test_the_job_of_another_task_that_has_the_key(client: BackfillClient) -> None:
    """The outcome shows the job that is there, as it is."""
    first = await client.enqueue("one", {"n": 1}, job_key="k", unique_for=DAY, queue=Queue.serial("q"))
    kept = await client.enqueue("two", {"n": 2}, job_key="k", unique_for=DAY)
    assert (kept.id, kept.job.task_identifier, kept.job.queue_name) == (first.id, "one", "q")
    assert kept.job.payload == {"n": 1}


async def test_the_synchronous_client_reserves_too(dsn: str) -> None:
    """Its calls are the same."""

    def produce() -> list[EnqueueStatus]:
        with SyncClient(dsn) as client:
            done = [client.enqueue("t", job_key="k", unique_for=DAY) for _ in range(2)]
            client.remove_job("k")
            bulk = client.enqueue_bulk([NewJob("t", 1, JobSpec(job_key="k", unique_for=DAY)) for _ in range(3)])
            assert (bulk.written, bulk.kept) == (1, 2)
            return [one.status for one in done]

    assert await asyncio.to_thread(produce) == [EnqueueStatus.ADDED, EnqueueStatus.KEPT]


async def test_a_workers_round_sweeps_what_is_over(dsn: str, client: BackfillClient) -> None:
    """The service that deletes attempts of jobs that are gone does so, page by page; what holds, stays."""
    await rows(
        dsn,
        "insert into graphile_worker.backfill_reservations"
        " select 'k' || n, n, now() + (n - 2500) * interval '1 hour' from generate_series(1, 2510) as n",
    )
    async with ServicesClient(dsn) as services:
        await LeftAttempts(services, worker=lambda: "backfill_a")._round()
    assert [key for key, _ in await rows(dsn, HELD)] == sorted(f"k{n}" for n in range(2501, 2511))
