"""A limit that begins to hold while jobs of its task run: these count for it, so that no more start than may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backfill import BackfillClient, Limit, NewJob, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner
from fleet.processes import jobs_left, nothing_locked

from plugins.periods import let_pass
from plugins.waiting import Eventually
from reading import value

TAKEN = """
select count(*)
from graphile_worker.backfill_shares as shares
join graphile_worker._private_jobs as jobs on jobs.id = shares.job_id and jobs.locked_by = shares.worker
"""


class Runs:
    """Handlers that run until the test lets them end, in the order in which they began."""

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.now = list[Any]()
        self.begun = 0
        self.permits = asyncio.Semaphore(0)
        self.tasks.task("t", aliases=["other name"])(self.t)

    async def t(self, payload: Any) -> None:
        """A job of the limited task."""
        self.begun += 1
        self.now.append(payload)
        try:
            await self.permits.acquire()
        finally:
            self.now.remove(payload)

    def release(self, count: int) -> None:
        """Let so many of them end."""
        for _ in range(count):
            self.permits.release()


@pytest.fixture
def runs() -> Runs:
    """The handlers."""
    return Runs()


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


def worker(dsn: str, runs: Runs) -> WorkerRunner[None]:
    """A worker with 8 slots."""
    return WorkerRunner(WorkerConfig(dsn, queues=[QueueConfig.default_queue(8)]), runs.tasks)


async def test_jobs_that_run_when_a_limit_is_set_count(
    dsn: str, client: BackfillClient, runs: Runs, eventually: Eventually
) -> None:
    """Ten run in two workers, some under an alias; none starts until fewer than three run, and then one for each."""
    async with worker(dsn, runs), worker(dsn, runs):
        await client.enqueue_bulk(NewJob("t" if number % 2 else "other name", number) for number in range(10))
        await eventually(lambda: len(runs.now), lambda now: now == 10)
        await client.set_limit("t", limit=Limit(3))
        await eventually(lambda: value(dsn, TAKEN), lambda taken: taken == 10)  # both workers know the limit
        await client.enqueue_bulk("t", range(10, 30))
        for left in (10, 7, 4, 3):
            runs.release(len(runs.now) - left)
            await eventually(lambda: len(runs.now), lambda now, left=left: now == left)
            await let_pass(0.7)
            assert (runs.begun, len(runs.now)) == (10, left)
        runs.release(1)
        await eventually(lambda: runs.begun, lambda begun: begun == 11)
        await let_pass(0.7)
        assert (runs.begun, len(runs.now)) == (11, 3)
        runs.release(30)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert await nothing_locked(dsn) == []


async def test_jobs_that_run_when_a_worker_declares_a_limit_count(
    dsn: str, client: BackfillClient, runs: Runs, eventually: Eventually
) -> None:
    """During a rolling deploy the worker with the new limit starts none while those of the one before run."""
    newer: TaskRegistry[None] = TaskRegistry()
    newer.task("t", aliases=["other name"], limit=2)(runs.t)
    async with worker(dsn, runs):
        await client.enqueue_bulk("t", range(4))
        await eventually(lambda: len(runs.now), lambda now: now == 4)
        async with WorkerRunner(WorkerConfig(dsn), newer):
            await client.enqueue_bulk("t", range(4, 12))
            await let_pass(1.0)
            assert runs.begun == 4
            runs.release(3)
            await eventually(lambda: runs.begun, lambda begun: begun == 5)
            await let_pass(0.7)
            assert (runs.begun, len(runs.now)) == (5, 2)
            runs.release(12)
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0)


async def test_jobs_that_run_count_by_the_field_that_holds_now(
    dsn: str, client: BackfillClient, runs: Runs, eventually: Eventually
) -> None:
    """Four of a tenant run under a limit of all; then each tenant may run one, and only the other tenant's starts."""
    await client.set_limit("t", limit=Limit(4))
    async with worker(dsn, runs):
        await client.enqueue_bulk("t", [{"tenant": "a"}] * 4, limit_by="tenant")
        await eventually(lambda: len(runs.now), lambda now: now == 4)
        await client.set_limit("t", limit=Limit(1, by="tenant"))
        await client.enqueue_bulk("t", [{"tenant": "a"}, {"tenant": "b"}, {"tenant": "b"}, {}], limit_by="tenant")
        await eventually(lambda: runs.begun, lambda begun: begun == 6)
        await let_pass(0.7)
        assert runs.begun == 6
        assert runs.now[4:] in ([{"tenant": "b"}, {}], [{}, {"tenant": "b"}])
        await client.set_limit("t", limit=Limit(6))
        await let_pass(0.7)
        assert runs.begun == 6
        runs.release(20)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert await nothing_locked(dsn) == []
