"""Express jobs that kill their process, and processes that are stopped in the middle of a window."""

from __future__ import annotations

import os
import signal
from typing import LiteralString

import pytest

from backfill import BackfillClient, NewJob
from fleet.processes import SHORT, Fleet, fleet_of, jobs_left

from plugins.express import WARM
from plugins.periods import let_pass
from plugins.waiting import Eventually
from reading import rows, value

IN_WINDOWS: LiteralString = """
select count(distinct split_part(application_name, ' ', 3)) from pg_stat_activity
where datname = current_database() and application_name like 'backfill express %'
"""
DEATHS: LiteralString = "select count(*) from told where job_id = %s"
OF_WORKER: LiteralString = "select count(*), count(ended) from told where worker = %s"


async def _prove(dsn: str, number: int, eventually: Eventually) -> None:
    """Have so many processes open windows: each needs one job that it has run."""
    async with BackfillClient(dsn) as client:

        async def proven() -> int:
            await client.enqueue_bulk(NewJob("short", WARM) for _ in range(50))
            await eventually(lambda: jobs_left(dsn), (0).__eq__)
            return int(await value(dsn, IN_WINDOWS))

        await eventually(proven, number.__eq__, timeout=60)


@pytest.mark.leaves_rows
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("number", "most"), [(1, 2), (4, 1)])
async def test_a_job_that_kills_its_process_is_dead_in_the_end(
    dsn: str, eventually: Eventually, number: int, most: int
) -> None:
    """After as many deaths as it has attempts, and one more at most for each process that was proven at its start.

    Each process is started again when it has died, and meets the job the ordinary way, in which its death counts.
    """
    async with BackfillClient(dsn) as client, fleet_of(number, dsn, dead_after=2, program=SHORT) as fleet:
        await _prove(dsn, number, eventually)
        job = await client.enqueue("short", "die", max_attempts=most)

        async def is_dead() -> bool:
            left = await jobs_left(dsn)
            for worker in fleet.died_already():
                assert await fleet.died(worker) == -signal.SIGKILL
                await fleet.start()
            return left == 0

        await eventually(is_dead, timeout=300)
        deaths = await value(dsn, DEATHS, job.id)
        assert most < deaths <= most + number  # the first one was met in a window
        [letter] = await rows(dsn, "select original_job_id, attempts from graphile_worker.backfill_dlq")
        assert letter == (job.id, most)
        assert await fleet.stop() == [0] * number


async def _stopped_with_a_window_open(dsn: str, fleet: Fleet, client: BackfillClient, eventually: Eventually) -> str:
    """Stop the only worker while two handlers wait in its window and eight jobs of it have not begun."""
    [worker] = fleet.workers
    await client.enqueue_bulk(NewJob("short", "wait") for _ in range(10))
    await eventually(lambda: rows(dsn, OF_WORKER, worker), [(2, 0)].__eq__)
    fleet.signal(worker, signal.SIGSTOP)
    return worker


@pytest.mark.timeout(120)
async def test_a_process_that_was_stopped_starts_nothing_of_its_old_window(dsn: str, eventually: Eventually) -> None:
    """The server ends its session after dead_after, others run the jobs, and it goes on with jobs that are new."""
    async with (
        BackfillClient(dsn) as client,
        fleet_of(1, dsn, concurrency=2, dead_after=2, program=SHORT) as fleet,
    ):
        await _prove(dsn, 1, eventually)
        stopped = await _stopped_with_a_window_open(dsn, fleet, client, eventually)
        await rows(dsn, "insert into released values (1)")
        second = await fleet.start()
        await eventually(lambda: jobs_left(dsn), (0).__eq__, timeout=30)
        assert await rows(dsn, OF_WORKER, second) == [(10, 10)]
        fleet.signal(stopped, signal.SIGCONT)
        await fleet.kill(second)
        last = await client.enqueue_bulk([NewJob("short", "note") for _ in range(10)], return_ids=True)
        await eventually(lambda: jobs_left(dsn), (0).__eq__, timeout=30)
        assert last.ids is not None
        assert (
            await value(dsn, "select count(*) from told where worker <> %s and job_id < %s", second, min(last.ids)) == 2
        )
        assert await value(dsn, "select count(ended) from told where job_id >= %s", min(last.ids)) == 10
        assert await fleet.stop() == [0]


@pytest.mark.timeout(120)
async def test_a_short_stop_harms_nothing(dsn: str, eventually: Eventually) -> None:
    """The server keeps the window; what had not begun is let go when the process runs again, and runs then."""
    async with (
        BackfillClient(dsn) as client,
        fleet_of(1, dsn, concurrency=2, dead_after=20, program=SHORT) as fleet,
    ):
        await _prove(dsn, 1, eventually)
        stopped = await _stopped_with_a_window_open(dsn, fleet, client, eventually)
        await let_pass(1.5)
        await rows(dsn, "insert into released values (1)")
        fleet.signal(stopped, signal.SIGCONT)
        await eventually(lambda: jobs_left(dsn), (0).__eq__, timeout=30)
        assert await rows(dsn, OF_WORKER, stopped) == [(10, 10)]
        assert await fleet.stop() == [0]


@pytest.mark.timeout(120)
async def test_a_child_that_keeps_the_socket_of_a_killed_worker_does_not_keep_its_jobs(
    dsn: str, eventually: Eventually
) -> None:
    """The server does not hear of the death. It ends the idle transaction after `dead_after`, and the job runs."""
    async with BackfillClient(dsn) as client, fleet_of(1, dsn, dead_after=2, program=SHORT) as fleet:
        await _prove(dsn, 1, eventually)
        [worker] = fleet.workers
        job = await client.enqueue("short", "fork")
        [(child,)] = await eventually(lambda: rows(dsn, "select step from steps"))
        try:
            assert await fleet.died(worker) == -signal.SIGKILL
            await rows(dsn, "update graphile_worker._private_jobs set payload = '\"note\"'")  # waits for the window
            second = await fleet.start()
            await eventually(lambda: jobs_left(dsn), (0).__eq__, timeout=60)
        finally:
            os.kill(child, signal.SIGKILL)
        told = "select attempt from told where job_id = %s and worker = %s and ended is not null"
        assert await rows(dsn, told, job.id, second) == [(1,)]
        assert await fleet.stop() == [0]
