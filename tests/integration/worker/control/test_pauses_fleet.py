"""Pauses in a fleet of four processes, whose handlers write by the database's clock when they begin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, LiteralString, cast

import pytest

from backfill import BackfillClient, JobSpec, NewJob, Queue
from fleet.processes import Fleet, fleet_of, jobs_left, nothing_locked

from plugins.waiting import Eventually
from reading import rows, value

PROMISED = timedelta(seconds=1)
ROOM = 3
"""What is promised is kept in this many times the time, on a machine that others use too."""
# The task "record" writes one row when it begins, and has nothing else to do.
NOW: LiteralString = "select clock_timestamp()"
BEGUN: LiteralString = "select count(*) from runs"
LATE: LiteralString = "select count(*) from runs where ended > %s"
FIRST: LiteralString = "select min(ended) from runs where ended > %s"
OTHERS: LiteralString = "select count(*) from spans"
LOCKED: LiteralString = """
select count(*)
from graphile_worker._private_jobs as jobs
join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id
where tasks.identifier = 'record' and jobs.locked_at is not null
"""
JOBS = 3_000


@pytest.fixture
async def fleet(dsn: str) -> AsyncIterator[Fleet]:
    """Four worker processes, which know each other to be dead soon."""
    async with fleet_of(4, dsn, dead_after=4.0) as one:
        yield one


async def _add(client: BackfillClient, task: str, jobs: int, queues: int = 0) -> None:
    """Add jobs, all by one call; in so many serial queues, or parallel."""
    specs = [JobSpec(queue=Queue.serial(f"q{number}")) for number in range(queues)] or [JobSpec()]
    await client.enqueue_bulk([NewJob(task, number, specs[number % len(specs)]) for number in range(jobs)])


async def _now(dsn: str) -> datetime:
    return cast("datetime", await value(dsn, NOW))


@pytest.mark.parametrize("queues", [0, 50])
@pytest.mark.parametrize("everything", [False, True])
async def test_nothing_of_a_paused_task_starts_after_a_second(
    dsn: str, fleet: Fleet, eventually: Eventually, queues: int, everything: bool
) -> None:
    """In no process: not what was claimed ahead, nor what was added during the pause, nor what a killed worker had.

    Other tasks run on. What waited runs after the pause, and starts within a second.
    """
    what: dict[str, Any] = {"everything": True} if everything else {"task": "record"}
    async with BackfillClient(dsn) as client:
        await _add(client, "record", JOBS, queues)
        await eventually(lambda: value(dsn, BEGUN), lambda count: count > JOBS / 20)
        await client.pause(**what, reason="the provider is down", by="ann")
        returned = await _now(dsn)
        await _add(client, "record", 100, queues)
        await fleet.kill(fleet.workers[0])
        await fleet.start()
        if not everything:
            await _add(client, "record_span", 200)
            await eventually(lambda: value(dsn, OTHERS), lambda count: count == 200)
        await eventually(lambda: value(dsn, LOCKED), lambda count: count == 0)
        assert await value(dsn, LATE, returned + ROOM * PROMISED) == 0
        before = await value(dsn, BEGUN)
        await rows(dsn, "delete from graphile_worker._private_jobs where id % 10 <> 0")
        resumed = await _now(dsn)
        await client.resume(**what)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=60, moving=True)
        assert await value(dsn, FIRST, resumed) < resumed + ROOM * PROMISED
        assert await value(dsn, BEGUN) > before
    assert await fleet.stop() == [0] * 4
    assert await nothing_locked(dsn) == []
