"""The order in which a static backlog starts, with windows and without."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import BackfillClient, JobSpec, NewJob, Queue, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from plugins.express import WARM
from reading import rows

pytestmark = pytest.mark.usefixtures("proven")
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
SLOTS = 8


def _job(task: str, priority: int, minute: int, kind: str) -> NewJob[Any]:
    queue = Queue.serial(kind) if kind in {"first", "second"} else Queue.parallel()
    return NewJob(task, {}, JobSpec(priority=priority, run_at=BEGINNING + timedelta(minutes=minute), queue=queue))


jobs = st.builds(
    _job,
    st.sampled_from(["express", "express", "express", "ordinary"]),
    st.sampled_from([-20, 0, 0, 10]),
    st.integers(0, 4),
    st.sampled_from(["parallel", "parallel", "parallel", "first", "second"]),
)


@pytest.mark.parametrize("express", [True, False])
@given(backlog=st.lists(jobs, min_size=1, max_size=60))
@settings(max_examples=15)
async def test_express_jobs_start_in_the_contracts_order(dsn: str, express: bool, backlog: list[NewJob[Any]]) -> None:
    """Express jobs in windows among themselves, the ordinary parallel ones, and those of each serial queue.

    An ordinary job that comes before all jobs of a window starts before those of the next one: at most as many express
    jobs that come after it begin before it as a window holds.
    """
    ran = list[tuple[str, int, datetime, int, str | None]]()
    tasks: TaskRegistry[None] = TaskRegistry()

    async def note(payload: Any, ctx: WorkerContext[None]) -> None:
        if payload != WARM:
            job = ctx.job
            ran.append((job.task_identifier, job.priority, job.run_at, job.id, job.queue_name))

    tasks.task("express", express=express)(note)
    tasks.task("ordinary")(note)
    async with BackfillClient(dsn) as client:
        await client.enqueue("express", WARM, priority=-30_000)
        outcome = await client.enqueue_bulk(backlog, return_ids=True)
    assert outcome.ids is not None
    config = WorkerConfig(dsn, concurrency=SLOTS, ahead_bytes=0)
    assert await WorkerRunner(config, tasks).process_available_jobs() == len(backlog) + 1
    await rows(dsn, "truncate graphile_worker._private_jobs")
    assert sorted(run[3] for run in ran) == sorted(outcome.ids)
    for queue in {run[4] for run in ran}:
        for task in ("express", "ordinary") if queue is None else (None,):
            some = [run[1:3] for run in ran if run[4] == queue and task in {None, run[0]}]
            assert some == sorted(some), (queue, task)
    parallel = [run for run in ran if run[4] is None]
    for place, run in enumerate(parallel):
        overtakers = [other for other in parallel[:place] if other[1:3] > run[1:3]]
        assert len(overtakers) <= SLOTS, run
