"""What programs that come from the Rust crate read of jobs, of the context and of a cleanup, by the names here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backfill import (
    BackfillClient,
    JobSpec,
    Priority,
    Queue,
    RetryPolicy,
    StartupCleanup,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from reading import rows, value

HELD = """
    update graphile_worker._private_jobs set locked_by = 'worker-1', locked_at = now() - interval '1 hour', attempts = 1
    where id = %s"""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def test_a_job_has_what_the_crates_getters_give(dsn: str, client: BackfillClient) -> None:
    """Each getter is an attribute, with what the row has."""
    due = datetime(2000, 1, 2, tzinfo=UTC)
    spec = JobSpec(
        run_at=due, priority=Priority.BULK_LOWEST, queue=Queue.serial("q"), max_attempts=5, job_key="k", flags=["gpu"]
    )
    added = await client.enqueue("t", {"n": 1}, spec=spec)
    await rows(dsn, HELD, added.id)
    job = await client.get_job(added)
    assert job is not None
    (task_id, queue_id) = (await rows(dsn, "select task_id, job_queue_id from graphile_worker._private_jobs"))[0]
    assert (job.id, job.task_id, job.job_queue_id) == (added.id, task_id, queue_id)
    assert (job.task_identifier, job.payload, job.key, job.revision) == ("t", {"n": 1}, "k", 0)
    assert (job.priority, job.attempts, job.max_attempts) == (10, 1, 5)
    assert (job.run_at, job.last_error) == (due, None)
    assert "gpu" in job.flags
    assert job.locked_by == "worker-1"
    assert job.locked_at is not None
    assert job.created_at is not None
    assert job.updated_at is not None
    assert due < job.locked_at < job.created_at <= job.updated_at


async def test_a_context_has_what_the_crates_has(dsn: str, client: BackfillClient) -> None:
    """Payload, job, worker, schema, the connections and what all handlers share."""
    tasks: TaskRegistry[str] = TaskRegistry(lifespan=_shared)
    seen = list[Any]()

    @tasks.task("t")
    async def handler(payload: dict[str, int], ctx: WorkerContext[str]) -> None:
        await ctx.client.open()
        async with ctx.client.pool.connection() as connection:
            found = await (await connection.execute("select 7")).fetchone()
        seen.extend(
            [payload, ctx.job.payload, ctx.job.task_identifier, ctx.worker_id, ctx.client.schema, ctx.deps, found]
        )

    await client.enqueue("t", {"n": 1})
    assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 1
    worker_id = seen.pop(3)
    assert worker_id.startswith("backfill_")
    assert seen == [{"n": 1}, {"n": 1}, "t", client.schema, "shared", (7,)]


@asynccontextmanager
async def _shared(_client: BackfillClient) -> AsyncIterator[str]:
    yield "shared"


async def test_a_startup_cleanup_with_timeouts(dsn: str, client: BackfillClient) -> None:
    """The two ages are arguments, and the three counts come back by name."""
    added = await client.enqueue("t", queue=Queue.serial("q"))
    await rows(dsn, HELD, added.id)
    await rows(
        dsn,
        """update graphile_worker._private_job_queues
           set locked_by = 'worker-1', locked_at = now() - interval '1 hour'""",
    )
    await client.fail_jobs([await client.enqueue("t")])
    hours = timedelta(hours=2)
    assert await client.startup_cleanup(queue_timeout=hours, job_timeout=hours) == StartupCleanup(0, 0, 1)
    minutes = timedelta(minutes=30)
    done = await client.startup_cleanup(queue_timeout=minutes, job_timeout=minutes)
    assert (done.queue_locks, done.job_locks, done.failed_jobs) == (1, 1, 0)


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [(RetryPolicy.fast(), 3), (RetryPolicy.aggressive(), 12), (RetryPolicy.conservative(), 5), (None, 8)],
)
async def test_the_presets_of_a_spec(
    dsn: str, client: BackfillClient, policy: RetryPolicy | None, attempts: int
) -> None:
    """A policy gives the job its attempts, as the builders of the crate's spec do."""
    spec = JobSpec() if policy is None else JobSpec(retry=policy)
    await client.enqueue("t", spec=spec)
    assert await value(dsn, "select max_attempts from graphile_worker._private_jobs") == attempts
