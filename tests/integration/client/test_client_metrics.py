"""Metrics of clients: what they count of jobs and dead letters that they add, read and delete, and of cleanups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import psycopg
import pytest

from backfill import BackfillClient, DlqFilter, JobKeyMode, Queue
from backfill.errors import BulkEnqueueError, SchemaMissingError
from backfill.metrics.books import Metrics
from backfill.sync import Client as SyncClient

Counted = Callable[[str], dict[tuple[str, ...], float]]


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Books of this test's own in the place of the process's, which somebody reads."""
    own = Metrics()
    own.want()
    monkeypatch.setattr("backfill.metrics.books._metrics", own)
    return own


@pytest.fixture
def counted(books: Metrics) -> Counted:
    """Gives the series of an instrument; of a histogram, how many values it has."""

    def read(name: str) -> dict[tuple[str, ...], float]:
        values = books.snapshot().values.items()
        return {labels: sum(value.buckets) or value.number for (one, labels), value in values if one == name}

    return read


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """A client."""
    async with BackfillClient(dsn) as one:
        yield one


async def test_what_is_enqueued(client: BackfillClient, dsn: str, counted: Counted) -> None:
    """Single, keyed, bulk and synchronous calls, on a connection of the caller's too, count what they have written."""
    unsafe = JobKeyMode.UNSAFE_DEDUPE
    await client.enqueue("a", {}, queue=Queue.serial("q"), priority=7)
    for _ in range(2):
        await client.enqueue("b", {}, job_key="k", job_key_mode=unsafe)
    await client.enqueue("b", {}, job_key="k")
    async with await psycopg.AsyncConnection.connect(dsn) as own:
        await client.enqueue("a", {}, connection=own)
        await client.enqueue_bulk("c", [{}, {}], connection=own)
    with SyncClient(dsn) as sync:
        sync.enqueue("a", {})
        sync.enqueue_bulk("c", [{}] * 3)
    await client.enqueue_bulk("c", ({} for _ in range(5)), commit_every=2)
    assert counted("backfill_jobs_enqueued") == {
        ("serial", "a", "bulk_lowest"): 1, ("parallel", "b", "bulk_default"): 2, ("parallel", "a", "bulk_default"): 2,
        ("parallel", "c", "bulk_default"): 10,
    }  # fmt: skip
    assert counted("backfill_db_operations") == {("enqueue", "success"): 9}
    assert counted("backfill_db_operation_duration_seconds") == {("enqueue",): 9}


async def test_a_running_job_with_the_key(client: BackfillClient, dsn: str, counted: Counted) -> None:
    """It is counted as already in progress, and not as enqueued."""
    await client.enqueue("b", {}, job_key="k")
    with psycopg.connect(dsn) as own:
        own.execute("update graphile_worker._private_jobs set locked_by = 'x', locked_at = now()")
    await client.enqueue("b", {}, job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE)
    with psycopg.connect(dsn) as own:
        own.execute("delete from graphile_worker._private_jobs")
    assert counted("backfill_jobs_already_in_progress") == {("parallel", "b"): 1}
    assert counted("backfill_jobs_enqueued") == {("parallel", "b", "bulk_default"): 1}
    assert counted("backfill_db_operations")["enqueue", "already_in_progress"] == 1


async def test_failed_calls(client: BackfillClient, dsn: str, counted: Counted) -> None:
    """A call that the database refuses is an error; of a bulk call the committed jobs are counted, and no others."""
    with psycopg.connect(dsn, autocommit=True) as own:
        own.execute("alter table graphile_worker._private_jobs add constraint few check (priority < 100)")
    with pytest.raises(psycopg.errors.CheckViolation):
        await client.enqueue("a", {}, priority=100)
    with pytest.raises(BulkEnqueueError) as stopped:
        await client.enqueue_bulk("a", ({} if number < 5 else object() for number in range(9)), commit_every=2)
    assert stopped.value.written == 4
    assert counted("backfill_db_operations") == {("enqueue", "error"): 2}
    assert counted("backfill_jobs_enqueued") == {("parallel", "a", "bulk_default"): 4}


async def test_dead_letters(client: BackfillClient, dsn: str, counted: Counted) -> None:
    """Those that are swept up, added by hand, read, requeued and deleted, each under its task."""
    for task, queue in (("a", Queue.serial("q")), ("b", Queue.parallel())):
        await client.enqueue(task, {}, queue=queue)
    job = (await client.enqueue("c", {})).job
    await client.add_to_dlq(job, "by hand")
    with psycopg.connect(dsn) as own:
        own.execute("update graphile_worker._private_jobs set attempts = max_attempts where id <> %s", [job.id])
    assert await client.process_failed_jobs() == 2
    assert counted("backfill_dlq_jobs_added") == {
        ("parallel", "c", "unknown"): 1, ("serial", "a", "unknown"): 1, ("parallel", "b", "unknown"): 1,
    }  # fmt: skip
    assert counted("backfill_cleanup_failed_jobs_deleted") == {(): 2}
    assert counted("backfill_db_operations")["dlq_add", "success"] == 1
    stats = await client.dlq_stats()
    assert counted("backfill_dlq_size") == {("",): stats.total_jobs, ("a",): 1, ("b",): 1, ("c",): 1}
    page = await client.list_dlq_jobs()
    ids = {entry.task_identifier: entry.id for entry in page.jobs}
    await client.get_dlq_job(ids["a"])
    assert counted("backfill_dlq_age_seconds") == {("a",): 2, ("b",): 1, ("c",): 1}
    await client.requeue_dlq_job(ids["a"])
    await client.requeue_dlq_job(ids["a"])
    await client.requeue_dlq_jobs(DlqFilter(task_identifier="b"))
    assert counted("backfill_dlq_jobs_requeued") == {("a", "serial"): 1, ("b", "parallel"): 1}
    assert await client.delete_dlq_job(ids["a"])
    assert not await client.delete_dlq_job(ids["a"])
    assert await client.delete_dlq_jobs(DlqFilter()) == 2
    assert counted("backfill_dlq_jobs_deleted") == {("a",): 1, ("b",): 1, ("c",): 1}


async def test_a_dead_letter_by_its_key(client: BackfillClient, counted: Counted) -> None:
    """What is deleted by its key is counted under its task."""
    await client.add_to_dlq((await client.enqueue("a", {}, job_key="k")).job, "by hand")
    assert await client.delete_dlq_by_job_key("k") == 1
    assert await client.delete_dlq_by_job_key("k") == 0
    assert counted("backfill_dlq_jobs_deleted") == {("a",): 1}


async def test_cleanups(client: BackfillClient, dsn: str, counted: Counted) -> None:
    """Released locks, when a cleanup succeeded last, and cleanups that failed."""
    await client.enqueue("a", {})
    with psycopg.connect(dsn) as own:
        own.execute(
            "update graphile_worker._private_jobs set locked_by = 'worker-x', locked_at = now() - interval '1 day'"
        )
    assert await client.release_stale_job_locks(timedelta(hours=1)) == 1
    assert await client.release_stale_job_locks(timedelta(hours=1)) == 0
    assert counted("backfill_cleanup_job_locks_released") == {(): 1}
    assert counted("backfill_cleanup_job_locks_last_released") == {(): 1}
    assert counted("backfill_cleanup_queue_locks_last_released") == {}
    assert counted("backfill_cleanup_last_success_timestamp")[()] > 1.7e9
    with psycopg.connect(dsn) as own:
        own.execute("alter table graphile_worker._private_job_queues rename to gone")
    with pytest.raises(SchemaMissingError):
        await client.release_stale_queue_locks(timedelta(hours=1))
    with psycopg.connect(dsn) as own:
        own.execute("alter table graphile_worker.gone rename to _private_job_queues")
    assert counted("backfill_cleanup_failures") == {("queue_locks", "not_found"): 1}
