"""Fleets of worker processes on one database: every job once, serial queues one at a time and in order."""

from __future__ import annotations

import random
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, JobSpec, NewJob, Queue
from fleet.processes import Fleet, fleet_of, jobs_left, nothing_locked

from reading import rows

pytestmark = pytest.mark.timeout(900)  # much work, for a machine that is busy with other things too
_FREE: LiteralString = "select graphile_worker.force_unlock_workers(%s)"


async def _runs(dsn: str) -> int:
    [[count]] = await rows(dsn, "select count(*) from runs")
    return int(count)


@pytest.mark.parametrize("jobs", [20_000, pytest.param(200_000, marks=pytest.mark.long)])
async def test_every_job_runs_exactly_once(dsn: str, eventually: Any, jobs: int) -> None:
    """Enqueued in bulk, run by 4 processes: each recorded once by its handler, none left."""
    async with BackfillClient(dsn) as client, fleet_of(4, dsn) as fleet:
        outcome = await client.enqueue_bulk("record", range(jobs))
        assert outcome.written == jobs
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=60, moving=True)
        assert await fleet.stop() == [0] * 4
    assert await rows(
        dsn, "select count(*), count(distinct job_id), count(distinct number), max(attempt) from runs"
    ) == [(jobs, jobs, jobs, 1)]
    [[workers]] = await rows(dsn, "select count(distinct worker) from runs")
    assert workers == 4
    assert await nothing_locked(dsn) == []


async def _kill_one_after_another(fleet: Fleet, dsn: str, eventually: Any, kills: int, jobs: int) -> None:
    """Each kill when some more jobs have been done; the locks of the killed are released by hand."""
    chance = random.Random(kills)
    for _ in range(kills):
        seen = await _runs(dsn)
        more = seen + jobs // (kills * 4)
        await eventually(lambda more=more: _runs(dsn), lambda now, more=more: now >= min(more, jobs), moving=True)
        victim = chance.choice(fleet.workers)
        await fleet.kill(victim)
        await fleet.start()
        await eventually(
            lambda victim=victim: rows(
                dsn, "select count(*) from pg_stat_activity where application_name like %s", f"%{victim}%"
            ),
            lambda found: found == [(0,)],
        )
        await rows(dsn, _FREE, [victim])


@pytest.mark.leaves_rows
@pytest.mark.parametrize(("jobs", "kills"), [(8_000, 6), pytest.param(200_000, 40, marks=pytest.mark.long)])
async def test_killed_processes_lose_nothing(dsn: str, eventually: Any, jobs: int, kills: int) -> None:
    """One process after another is killed.

    Each job has an ended attempt, a second only where the first's worker died.
    """
    async with BackfillClient(dsn) as client, fleet_of(4, dsn) as fleet:
        await client.enqueue_bulk(
            NewJob(
                "record",
                number,
                JobSpec(queue=Queue.serial(f"q{number % 50}") if number % 4 == 0 else Queue.parallel()),
            )
            for number in range(jobs)
        )
        await _kill_one_after_another(fleet, dsn, eventually, kills, jobs)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=60, moving=True)
        killed = fleet.killed
        assert await fleet.stop() == [0] * 4
    [[ended]] = await rows(dsn, "select count(distinct number) from runs")
    assert ended == jobs
    assert len(killed) == kills
    again = await rows(
        dsn,
        """select job_id, worker from (
             select job_id, worker, row_number() over (partition by job_id order by ended desc) as nth from runs
           ) as runs
           where nth > 1""",
    )
    assert {worker for _, worker in again} <= set(killed)
    assert await nothing_locked(dsn) == []


@pytest.mark.parametrize(("queues", "each"), [(1_000, 20)])
async def test_serial_queues_run_one_at_a_time_and_in_order(dsn: str, eventually: Any, queues: int, each: int) -> None:
    """By 4 processes: no two jobs of a queue overlap, each queue's jobs run in exact order, no queue is left locked."""
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(
            NewJob("record_span", number, JobSpec(queue=Queue.serial(f"queue{number % queues}")))
            for number in range(queues * each)
        )
        async with fleet_of(4, dsn, concurrency=16) as fleet:
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=60, moving=True)
            assert await fleet.stop() == [0] * 4
    assert await rows(dsn, "select count(*), count(ended) from spans") == [(queues * each, queues * each)]
    overlaps = await rows(
        dsn,
        """select queue, number from (
             select queue, number, began, lag(ended) over (partition by queue order by began) as before from spans
           ) as spans
           where before > began""",
    )
    assert overlaps == []
    out_of_order = await rows(
        dsn,
        """select queue, number from (
             select queue, number, lag(number) over (partition by queue order by began) as before from spans
           ) as spans
           where before > number""",
    )
    assert out_of_order == []
    assert await nothing_locked(dsn) == []
