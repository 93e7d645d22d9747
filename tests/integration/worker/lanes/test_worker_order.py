"""With one slot, a static backlog runs in the contract's order: priority, then time, serial ties by id."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, LiteralString

from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import BackfillClient, JobSpec, NewJob, Queue, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from reading import rows

BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)


def _job(priority: int, minute: int, queue: str | None) -> NewJob[Any]:
    chosen = Queue.parallel() if queue is None else Queue.serial(queue)
    return NewJob("note", {}, JobSpec(priority=priority, run_at=BEGINNING + timedelta(minutes=minute), queue=chosen))


jobs = st.builds(
    _job, st.sampled_from([-20, 0, 0, 10]), st.integers(0, 4), st.sampled_from([None, None, "first", "second", "third"])
)


@given(backlog=st.lists(jobs, min_size=1, max_size=25))
@settings(max_examples=25)
async def test_a_static_backlog_runs_in_the_contracts_order(dsn: str, backlog: list[NewJob[Any]]) -> None:
    """Serial and parallel picks merged; parallel jobs of one priority and time come in any order among themselves."""
    ran: list[tuple[int, datetime, int, str | None]] = []
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("note")
    async def note(payload: Any, ctx: WorkerContext[None]) -> None:
        ran.append((ctx.job.priority, ctx.job.run_at, ctx.job.id, ctx.job.queue_name))

    async with BackfillClient(dsn) as client:
        outcome = await client.enqueue_bulk(backlog, return_ids=True)
        await client.enqueue("note", {}, delay=timedelta(hours=1), priority=-30_000)
    assert outcome.ids is not None
    assert await WorkerRunner(WorkerConfig(dsn, concurrency=1), tasks).process_available_jobs() == len(backlog)
    await rows(dsn, "truncate graphile_worker._private_jobs")
    assert sorted(run[2] for run in ran) == sorted(outcome.ids)
    assert [run[:2] for run in ran] == sorted(run[:2] for run in ran)
    for _, tied in groupby(ran, key=lambda run: run[:2]):
        serial = [run[2] for run in tied if run[3] is not None]
        assert serial == sorted(serial)


BLOCKED: LiteralString = """
with busy as (
  insert into graphile_worker._private_job_queues (queue_name, locked_by, locked_at)
  values ('busy', 'somebody else', now())
  returning id
),
task as (
  insert into graphile_worker._private_tasks (identifier) values ('note') returning id
)
insert into graphile_worker._private_jobs (task_id, job_queue_id, priority)
select task.id, busy.id, -5 from busy, task, generate_series(1, 2100)
"""


async def test_free_queues_behind_blocked_jobs_run_in_order(dsn: str) -> None:
    """More blocked jobs ahead than a look reads.

    The queues behind them are found, and each one's next, without a poll.
    """
    ran: list[tuple[int, str | None]] = []
    tasks: TaskRegistry[None] = TaskRegistry()
    done = asyncio.Event()

    @tasks.task("note")
    async def note(number: int, ctx: WorkerContext[None]) -> None:
        ran.append((number, ctx.job.queue_name))
        if len(ran) == 600:
            done.set()

    async with BackfillClient(dsn) as client:
        await rows(dsn, BLOCKED)
        await client.enqueue_bulk(
            NewJob("note", number, JobSpec(queue=Queue.serial(f"q{number % 60}"))) for number in range(600)
        )
    config = WorkerConfig(dsn, concurrency=8, poll_interval=timedelta(minutes=10))
    async with WorkerRunner(config, tasks):
        await asyncio.wait_for(done.wait(), 30)
    for queue in {queue for _, queue in ran}:
        numbers = [number for number, of in ran if of == queue]
        assert numbers == sorted(numbers)
        assert len(numbers) == 10


async def test_a_large_backlog_of_one_time_keeps_serial_jobs_in_order(dsn: str) -> None:
    """Jobs of one transaction share their run_at: a queue's own are told apart by id, through claims of many."""
    ran: list[tuple[int, str | None]] = []
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("note")
    async def note(number: int, ctx: WorkerContext[None]) -> None:
        ran.append((number, ctx.job.queue_name))

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(
            NewJob("note", number, JobSpec(queue=Queue.serial(f"q{number % 7}") if number % 2 else Queue.parallel()))
            for number in range(1400)
        )
    assert await WorkerRunner(WorkerConfig(dsn, concurrency=20), tasks).process_available_jobs() == 1400
    for queue in {queue for _, queue in ran if queue is not None}:
        numbers = [number for number, of in ran if of == queue]
        assert numbers == sorted(numbers)
        assert len(numbers) == 100
