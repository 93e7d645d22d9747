"""Dead letters with a key and a list as their payload: however often they are requeued, no item is doubled."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from backfill import BackfillClient, BatchFailed, RetryPolicy, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from reading import rows

LATER = timedelta(hours=1)
JOBS = "select payload from graphile_worker._private_jobs"


async def _bury(client: BackfillClient, payload: object) -> int:
    """Let a job with a key fail for good; gives the id of its dead letter."""
    added = await client.enqueue("t", payload, job_key="k")
    await client.fail_jobs([added], "no use")
    assert await client.process_failed_jobs() == 1
    [entry] = (await client.list_dlq_jobs()).jobs
    return entry.id


@pytest.mark.parametrize("payload", [["a", "b"], [], [{"a": [1]}]])
async def test_a_second_requeue_adds_nothing(dsn: str, payload: list[object]) -> None:
    """Neither alone nor among others, nor with another list, while the job of the first one waits."""
    async with BackfillClient(dsn) as client:
        entry = await _bury(client, payload)
        job = await client.requeue_dlq_job(entry, delay=LATER)
        again = await client.requeue_dlq_job(entry, payload=["other"])
        assert (again.id, again.revision) == (job.id, 0)
        assert await client.requeue_dlq_jobs([entry]) == {}
        [dead_letter] = (await client.list_dlq_jobs()).jobs
    assert dead_letter.requeued_count == 1
    assert await rows(dsn, JOBS) == [(payload,)]


async def test_requeues_at_the_same_time_add_one_list(dsn: str) -> None:
    """All of them give the job that one has added."""
    async with BackfillClient(dsn) as client:
        entry = await _bury(client, ["a", "b"])
        one, many = client.requeue_dlq_job, client.requeue_dlq_jobs
        jobs = await asyncio.gather(*(one(entry, delay=LATER) for _ in range(4)))
        await asyncio.gather(*(many([entry], delay=LATER) for _ in range(4)))
    assert len({job.id for job in jobs}) == 1
    assert await rows(dsn, JOBS) == [(["a", "b"],)]


async def test_items_that_are_done_do_not_come_back(dsn: str) -> None:
    """A requeued batch that waits for its retry, after a part of its items was done, is not filled up again."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", batch=True, retry=RetryPolicy(9, LATER, LATER, 1.0, 0.0))
    async def run(items: list[str]) -> None:
        raise BatchFailed([1], OSError("busy"))

    async with BackfillClient(dsn) as client:
        entry = await _bury(client, ["done", "busy"])
        await client.requeue_dlq_job(entry)
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        await client.requeue_dlq_job(entry)
    assert await rows(dsn, JOBS) == [(["busy"],)]


async def test_a_list_is_requeued_again_when_its_job_is_gone(dsn: str) -> None:
    """A requeue whose job was removed does not keep the next one from adding a job; one with no list replaces it."""
    async with BackfillClient(dsn) as client:
        entry = await _bury(client, ["a"])
        await client.requeue_dlq_job(entry, delay=LATER)
        await client.remove_job("k")
        await client.requeue_dlq_job(entry, delay=LATER)
        assert await rows(dsn, JOBS) == [(["a"],)]
        await client.requeue_dlq_job(entry, payload={"all": True}, delay=LATER)
    assert await rows(dsn, JOBS) == [({"all": True},)]


async def test_a_requeue_joins_a_list_of_the_same_key_once(dsn: str) -> None:
    """A job of the key that waits already takes the items, as it takes those of producers."""
    async with BackfillClient(dsn) as client:
        entry = await _bury(client, ["a"])
        await client.enqueue("t", ["b"], job_key="k", delay=LATER)
        for _ in range(2):
            await client.requeue_dlq_job(entry, delay=LATER)
    assert await rows(dsn, JOBS) == [(["b", "a"],)]


async def test_a_replaced_requeue_goes_back_into_its_entry(dsn: str) -> None:
    """The entry of its key holds what is left then, and not the items that are done; no other entry has them too."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", batch=True)
    async def run(items: list[str], ctx: WorkerContext[None]) -> None:
        await ctx.client.enqueue("t", ["new"], job_key="k", delay=LATER)
        raise BatchFailed([1], OSError("busy"))

    async with BackfillClient(dsn) as client:
        entry = await _bury(client, ["done", "busy"])
        await client.requeue_dlq_job(entry)
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        [left] = (await client.list_dlq_jobs()).jobs
    assert (left.id, left.job_key, left.payload, left.requeued_job_id) == (entry, "k", ["busy"], None)
    assert left.failure_reason == "replaced or removed while it ran"
    assert await rows(dsn, JOBS) == [(["new"],)]
