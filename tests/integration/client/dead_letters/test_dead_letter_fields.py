"""Every field of a dead letter, of a page of them and of their statistics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from backfill import BackfillClient, DlqFilter, DlqJob, DlqJobList, DlqStats, JobSpec, Queue


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def _bury(client: BackfillClient, task: str, spec: JobSpec) -> int:
    """Let a job fail for good; gives its id."""
    added = await client.enqueue(task, {"n": 1}, spec=spec)
    await client.fail_jobs([added], "no use")
    assert await client.process_failed_jobs() == 1
    assert added.id is not None
    return added.id


async def test_an_entry_has_all_of_its_job(client: BackfillClient) -> None:
    """The columns of the crate's table, and what happened to the job here."""
    due = datetime(2000, 1, 2, tzinfo=UTC)
    job_id = await _bury(
        client, "t", JobSpec(run_at=due, priority=7, queue=Queue.serial("q"), max_attempts=3, job_key="k")
    )
    page = await client.list_dlq_jobs(DlqFilter(task_identifier="t", queue_name="q"), limit=1)
    assert isinstance(page, DlqJobList)
    assert page.total == 1
    entry = page.jobs[0]
    assert isinstance(entry, DlqJob)
    assert (entry.original_job_id, entry.task_identifier, entry.payload) == (job_id, "t", {"n": 1})
    assert (entry.queue_name, entry.priority, entry.job_key, entry.max_attempts) == ("q", 7, "k", 3)
    assert (entry.failure_count, entry.last_error) == (1, "no use")
    assert entry.failure_reason
    assert entry.original_run_at == due
    assert entry.original_created_at is not None
    assert entry.failed_at >= entry.original_created_at
    assert (entry.requeued_count, entry.last_requeued_at, entry.notes) == (0, None, None)
    await client.requeue_dlq_job(entry.id, notes="again")
    again = await client.get_dlq_job(entry.id)
    assert again is not None
    assert (again.requeued_count, again.notes) == (1, "again")
    assert again.last_requeued_at is not None
    assert again.last_requeued_at >= entry.failed_at


async def test_pages_and_times(client: BackfillClient) -> None:
    """A page's cursor begins the next one, and a filter takes times that include their ends."""
    for n in range(3):
        await _bury(client, f"t{n}", JobSpec())
    first = await client.list_dlq_jobs(limit=2)
    assert (len(first.jobs), first.total) == (2, 3)
    second = await client.list_dlq_jobs(limit=2, cursor=first.cursor)
    assert [entry.task_identifier for entry in [*first.jobs, *second.jobs]] == ["t2", "t1", "t0"]
    middle = first.jobs[1].failed_at
    found = await client.list_dlq_jobs(DlqFilter(failed_after=middle, failed_before=middle))
    assert [entry.task_identifier for entry in found.jobs] == ["t1"]


async def test_statistics_have_all_their_figures(client: BackfillClient) -> None:
    """How many entries, tasks and queues there are, how often they were requeued, and the oldest and newest failure."""
    for task, queue in (("a", "q1"), ("a", "q2"), ("b", "q1")):
        await _bury(client, task, JobSpec(queue=Queue.serial(queue)))
    entries = (await client.list_dlq_jobs()).jobs
    await client.requeue_dlq_job(entries[0].id)
    stats = await client.dlq_stats()
    assert isinstance(stats, DlqStats)
    assert (stats.total_jobs, stats.unique_tasks, stats.unique_queues, stats.total_requeued) == (3, 2, 2, 1)
    assert stats.avg_failure_count == 1.0
    assert (stats.oldest_failure, stats.newest_failure) == (entries[-1].failed_at, entries[0].failed_at)
    assert dict(stats.task_breakdown) == {"a": 2, "b": 1}
