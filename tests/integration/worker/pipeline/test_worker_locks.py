"""What a worker holds and what the database says of it, where the two differ."""

from __future__ import annotations

import asyncio
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, Queue, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from fleet.processes import jobs_left, nothing_locked

from plugins.periods import between_looks
from plugins.waiting import Eventually
from reading import rows

LATER: LiteralString = """
    with jobs as (
      update graphile_worker._private_jobs set locked_at = now() where locked_by is not null returning id
    )
    update graphile_worker._private_job_queues set locked_at = now() where locked_by is not null returning id"""
UNLOCK: LiteralString = "select graphile_worker.force_unlock_workers(array[%s])"


class Holding:
    """Tasks whose handlers wait until they are released."""

    def __init__(self) -> None:
        self.began: list[Any] = []
        self.cancelled: list[Any] = []
        self.ended: list[Any] = []
        self.release = asyncio.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @self.tasks.task("hold")
        async def hold(payload: Any) -> None:
            self.began.append(payload)
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.append(payload)
                raise
            self.ended.append(payload)

        @self.tasks.task("thread")
        def thread(payload: Any, ctx: WorkerContext[None]) -> None:
            self.began.append(payload)
            while not (ctx.should_stop or self.release.is_set()):
                between_looks()
            self.ended.append(payload)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks are looked at all the time."""
    monkeypatch.setattr("backfill.worker.pipeline.locks.LOOK_SECONDS", 0.1)


async def test_a_lock_whose_new_time_was_lost_is_known_again(dsn: str, eventually: Eventually) -> None:
    """A renewal was written and its answer lost: the attempt ends as if nothing had been, and its job runs once."""
    holding = Holding()
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), holding.tasks) as runner:
        await client.enqueue("hold", "parallel")
        await client.enqueue("hold", "serial", queue=Queue.serial("q"))
        await eventually(lambda: len(holding.began) == 2)
        await rows(dsn, LATER)
        assert runner._parts is not None
        held = runner._parts.one.executor.held
        times = [(one.locked_at, one.queue_locked_at) for one in held.values()]
        await eventually(
            lambda: [(one.locked_at, one.queue_locked_at) for one in held.values()], lambda now: now != times
        )
        holding.release.set()
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert sorted(holding.began) == sorted(holding.ended) == ["parallel", "serial"]
    assert await nothing_locked(dsn) == []


async def test_after_a_lost_answer_the_locks_are_known_again_before_anything_is_settled(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that renewed is gone with its answer, and the handler ends in that moment."""
    monkeypatch.setattr("backfill.worker.pipeline.locks.LOOK_SECONDS", 600)
    holding = Holding()
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), holding.tasks) as runner:
        await client.enqueue("hold", "parallel")
        await client.enqueue("hold", "serial", queue=Queue.serial("q"))
        await eventually(lambda: len(holding.began) == 2)
        await rows(dsn, LATER)
        await rows(
            dsn,
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s",
            f"backfill {runner.worker_id}",
        )
        holding.release.set()
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
    assert sorted(holding.began) == sorted(holding.ended) == ["parallel", "serial"]


async def test_a_job_that_somebody_unlocked_is_let_go(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """By force, while its handler runs: the handler is cancelled, or asked to stop, and the log says so once."""
    holding = Holding()
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), holding.tasks) as runner:
        for task in ("hold", "thread"):
            await client.enqueue(task, task)
        await eventually(lambda: len(holding.began) == 2)
        await rows(dsn, "update graphile_worker._private_jobs set run_at = now() + interval '1 hour'")
        await rows(dsn, UNLOCK, runner.worker_id)
        await eventually(lambda: holding.cancelled == ["hold"] and holding.ended == ["thread"])
        assert runner._parts is not None
        held = runner._parts.one.executor.held
        await eventually(lambda: not held)
    assert await rows(dsn, "select attempts, locked_by from graphile_worker._private_jobs") == [(1, None)] * 2
    told = [record.getMessage() for record in caplog.records if "its handler is cancelled" in record.getMessage()]
    assert len(told) == 2


async def test_a_look_at_what_is_held_gives_nothing_back(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is locked by the worker without being held stays until the next look at all of its locks."""
    monkeypatch.setattr("backfill.worker.pipeline.locks.WHOLE_EVERY", 2**40)
    holding = Holding()
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), holding.tasks) as runner:
        await client.enqueue("hold", "held")
        await eventually(lambda: len(holding.began) == 1)
        assert runner._parts is not None
        locks = runner._parts.one.station.locks
        await eventually(lambda: locks._looks > 1)
        stray = await client.enqueue("nobody's", "stray")
        await rows(
            dsn,
            "update graphile_worker._private_jobs set locked_by = %s, locked_at = now(), attempts = 1 where id = %s",
            runner.worker_id,
            stray.id,
        )
        looks = locks._looks
        await eventually(lambda: locks._looks > looks + 2)
        assert [job.locked_by for job in [await client.get_job(stray.id)] if job] == [runner.worker_id]
        locks.look_soon()
        await eventually(lambda: client.get_job(stray.id), lambda job: job is not None and job.locked_by is None)
        holding.release.set()
    assert holding.cancelled == []
