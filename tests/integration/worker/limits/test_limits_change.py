"""Limits that operators set, raise, lower and undo while a worker runs, and what meets a limit in one worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from backfill import (
    BackfillClient,
    JobSpec,
    Limit,
    NewJob,
    Queue,
    QueueConfig,
    Rate,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from fleet.processes import jobs_left, nothing_locked

from plugins.periods import let_pass
from plugins.waiting import Eventually
from reading import value


class Runs:
    """Handlers that run until the test lets them end, and how many run now."""

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.now = 0
        self.most = 0
        self.ended = list[Any]()
        self.release = asyncio.Event()
        self.tasks.task("t", aliases=["other name"])(self.t)
        self.tasks.task("free")(self.free)

    async def t(self, payload: Any) -> None:
        """A job of the limited task."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.release.wait()
            await asyncio.sleep(0)
        finally:
            self.now -= 1
            self.ended.append(payload)

    async def free(self, payload: Any) -> None:
        """A job without a limit."""
        self.ended.append(payload)


@pytest.fixture
def runs() -> Runs:
    """The handlers."""
    return Runs()


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


def worker(dsn: str, runs: Runs, *lanes: QueueConfig) -> WorkerRunner[None]:
    """A worker with 16 slots, or with these lanes."""
    return WorkerRunner(WorkerConfig(dsn, queues=list(lanes) or [QueueConfig.default_queue(16)]), runs.tasks)


async def test_a_limit_is_set_raised_lowered_and_undone_while_a_worker_runs(
    dsn: str, client: BackfillClient, runs: Runs, eventually: Eventually
) -> None:
    """Each takes effect within a second where notifications work; what runs then runs on."""
    await client.set_limit("t", limit=Limit(2))
    async with worker(dsn, runs):
        await client.enqueue_bulk("t", range(12))
        await eventually(lambda: runs.now, lambda now: now == 2)
        await client.set_limit("t", limit=Limit(5))
        await eventually(lambda: runs.now, lambda now: now == 5, timeout=3)
        await client.set_limit("t", limit=Limit(1))
        await let_pass(0.3)
        assert runs.now == 5
        runs.most = 0
        runs.release.set()
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
        assert len(runs.ended) == 12
        runs.release.clear()
        runs.most = 0
        control = await client.set_limit("t", limit=Limit(1))
        await client.enqueue_bulk("t", range(8))
        await eventually(lambda: runs.now, lambda now: now == 1)
        await let_pass(0.3)
        assert runs.most == 1
        await client.undo(control)
        await eventually(lambda: runs.now, lambda now: now == 8, timeout=3)
        runs.release.set()
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert await nothing_locked(dsn) == []


async def test_a_limit_that_is_set_holds_for_what_waits(
    dsn: str, client: BackfillClient, runs: Runs, eventually: Eventually
) -> None:
    """Sixteen run without a limit; once it is set and some of them have ended, no further one starts."""
    async with worker(dsn, runs) as runner:
        await client.enqueue_bulk("t", range(40))
        await eventually(lambda: runs.now, lambda now: now == 16)
        await client.set_limit("t", limit=Limit(3))
        await eventually(lambda: runner._parts.one.station.limits)  # the worker has heard of it
        await let_pass(0.3)
        runs.most = 0
        runs.release.set()
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert runs.most <= 3
    assert len(runs.ended) == 40
    assert await nothing_locked(dsn) == []


async def test_aliases_count_for_the_limit_of_their_task(
    dsn: str, client: BackfillClient, runs: Runs, eventually: Eventually
) -> None:
    """Three run at once, whatever the name under which they stand."""
    await client.set_limit("t", limit=Limit(3))
    async with worker(dsn, runs):
        await client.enqueue_bulk(NewJob("t" if number % 2 else "other name", number) for number in range(10))
        await eventually(lambda: runs.now, lambda now: now == 3)
        await let_pass(0.3)
        runs.release.set()
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert runs.most == 3
    assert len(runs.ended) == 10


async def test_two_lanes_share_the_limit_of_a_task(
    dsn: str, client: BackfillClient, runs: Runs, eventually: Eventually
) -> None:
    """Jobs of high priority have a lane of their own; together no more than four run."""
    await client.set_limit("t", limit=Limit(4))
    lanes = QueueConfig("urgent", 4, priority=range(-20, 0)), QueueConfig.default_queue(8)
    async with worker(dsn, runs, *lanes):
        await client.enqueue_bulk(NewJob("t", number, JobSpec(priority=-5 * (number % 2))) for number in range(20))
        await eventually(lambda: runs.now, lambda now: now == 4)
        await let_pass(0.3)
        runs.release.set()
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert runs.most == 4
    assert len(runs.ended) == 20
    assert await nothing_locked(dsn) == []


async def test_a_limit_and_serial_queues_hold_together(
    dsn: str, client: BackfillClient, runs: Runs, eventually: Eventually
) -> None:
    """Twenty jobs in three queues, two at once, in the order of each queue."""
    await client.set_limit("t", limit=Limit(2))
    runs.release.set()
    async with worker(dsn, runs):
        await client.enqueue_bulk(
            NewJob("t", [number % 3, number], JobSpec(queue=Queue.serial(f"q{number % 3}"))) for number in range(20)
        )
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert runs.most <= 2
    for queue in range(3):
        assert [pair[1] for pair in runs.ended if pair[0] == queue] == list(range(queue, 20, 3))
    assert await nothing_locked(dsn) == []


async def test_a_delayed_limited_job_starts_when_it_is_due(
    dsn: str, client: BackfillClient, runs: Runs, eventually: Eventually
) -> None:
    """A worker whose tasks are all limited knows when the next job is due, and does not wait for its next poll."""
    await client.set_limit("t", limit=Limit(2))
    await client.set_limit("free", limit=Limit(2))
    config = WorkerConfig(dsn, poll_interval=timedelta(minutes=5))
    async with WorkerRunner(config, runs.tasks):
        await client.enqueue("free", 1, delay=timedelta(seconds=1.5))
        await eventually(lambda: runs.ended, lambda ended: ended == [1], timeout=10)


async def test_available_jobs_end_where_the_rest_may_not_run(dsn: str, client: BackfillClient, runs: Runs) -> None:
    """All limited jobs are run; of those with a slow rate only what may start now, and others do not wait for them."""
    await client.set_limit("t", limit=Limit(2))
    runs.release.set()
    await client.enqueue_bulk("t", range(30))
    assert await worker(dsn, runs).process_available_jobs() == 30
    assert runs.most <= 2
    await client.set_limit("t", rate=Rate(1, per=timedelta(hours=1)))
    await client.enqueue_bulk([*[NewJob("t", number) for number in range(5)], *[NewJob("free", 0)] * 5])
    assert await worker(dsn, runs).process_available_jobs() == 6
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 4
    assert await nothing_locked(dsn) == []


async def test_a_stop_gives_back_what_waits_for_a_share_or_for_its_time(
    dsn: str, client: BackfillClient, runs: Runs, eventually: Eventually
) -> None:
    """Short attempts have others claimed ahead of their shares; all that has not started goes back as it was."""
    await client.set_limit("t", limit=Limit(2))
    runs.release.set()
    async with worker(dsn, runs):
        await client.enqueue_bulk("t", range(4000))
        await eventually(lambda: len(runs.ended), lambda ended: ended > 300)
    left = await jobs_left(dsn)
    assert left == 4000 - len(runs.ended)
    assert await value(dsn, "select max(attempts) from graphile_worker._private_jobs") in (0, None)
    assert runs.most <= 2
    assert await nothing_locked(dsn) == []


async def test_a_job_that_waits_for_a_share_can_be_cancelled(
    dsn: str, client: BackfillClient, runs: Runs, eventually: Eventually
) -> None:
    """One runs; the others are cancelled while they wait, in the queue or in the worker."""
    await client.set_limit("t", limit=Limit(1))
    async with worker(dsn, runs):
        first = await client.enqueue("t", 0)
        await eventually(lambda: runs.now, lambda now: now == 1)
        others = [await client.enqueue("t", number) for number in range(1, 4)]
        for other in others:
            await client.cancel(other)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 1)
        await client.cancel(first)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
        await client.enqueue("t", 9)
        await eventually(lambda: runs.now, lambda now: now == 1)
        runs.release.set()
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert runs.most == 1
