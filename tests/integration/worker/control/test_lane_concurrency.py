"""Operators change the concurrency of a lane while its workers run: how soon it counts, and what its jobs do."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, NewJob, QueueConfig, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from fleet.processes import TOLD, fleet_of, jobs_left, nothing_locked

from plugins.periods import block_for
from plugins.waiting import Eventually
from reading import rows, value

ROOM = 3.0
"""What is promised is kept in this many times the time, on a machine that others use too."""
RUNNING: LiteralString = """
select count(told.job_id)::integer
from graphile_worker.backfill_workers as workers
left join told on told.worker = workers.id and told.ended is null
group by workers.id"""
BEYOND: LiteralString = """
select count(*)
from told as one
where one.began > %s::timestamptz + interval '3 seconds'
  and one.began < %s::timestamptz
  and (
    select count(*) from told as other
    where other.worker = one.worker and other.began < one.began and other.ended > one.began
  ) >= 2"""
SHOWN: LiteralString = "select lanes->0->>'concurrency' from graphile_worker.backfill_workers"
NOW: LiteralString = "select clock_timestamp()::text"


async def test_four_processes_follow_a_raise_and_a_lowering(dsn: str, eventually: Eventually) -> None:
    """From 2 to 10 and back within a second; no job that runs is cancelled, and none is begun twice."""

    def each(number: int) -> Any:
        return lambda found: found == [(number,)] * 4

    async with fleet_of(4, dsn, concurrency=2, program=TOLD) as fleet, BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob("work", 150) for _ in range(600))
        await eventually(lambda: rows(dsn, RUNNING), each(2))
        await client.set_concurrency("default", 10, reason="a backlog", by="ann")
        await eventually(lambda: rows(dsn, RUNNING), each(10), timeout=ROOM)
        await eventually(lambda: rows(dsn, SHOWN), lambda found: found == [("10",)] * 4)
        control = await client.set_concurrency("default", 2)
        lowered = await value(dsn, NOW)
        await eventually(lambda: rows(dsn, RUNNING), each(2), timeout=ROOM)
        await eventually(lambda: value(dsn, "select clock_timestamp() > %s::timestamptz + interval '5 s'", lowered))
        until = await value(dsn, NOW)
        await client.set_concurrency("default", 50)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0, moving=True)
        assert await client.undo(control) is None  # another was said in its place
        assert await fleet.stop() == [0] * 4
    assert await value(dsn, "select count(*) from told where ended is null or attempt > 1") == 0
    assert await value(dsn, "select count(*) from told") == 600
    assert await value(dsn, BEYOND, lowered, until) == 0
    assert await nothing_locked(dsn) == []


async def test_a_worker_that_starts_later_follows_too_and_undoing_goes_back(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log says who set it and why; lanes that it does not have do not concern it."""
    caplog.set_level(logging.DEBUG, "backfill")
    running, release = set[int](), asyncio.Event()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(number: int) -> None:
        running.add(number)
        await release.wait()

    lanes = [QueueConfig("mine", 2, tasks="t"), QueueConfig.default_queue(3)]
    async with BackfillClient(dsn) as client:
        control = await client.set_concurrency("mine", 4, reason="more memory", by="ann")
        await client.set_concurrency("another", 7)
        await client.enqueue_bulk(NewJob("t", n) for n in range(12))
        async with WorkerRunner(WorkerConfig(dsn, queues=lanes), tasks) as runner:
            await eventually(lambda: len(running) == 4)
            assert runner._parts is not None
            lane = runner._parts.one.lanes[0]
            assert await client.undo(control) is not None
            await eventually(lambda: lane.concurrency == 2, timeout=ROOM)
            assert (lane.free, len(running)) == (-2, 4)
            await client.set_concurrency("mine", 5)
            await eventually(lambda: len(running) == 5, timeout=ROOM)
            release.set()
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
            await eventually(lambda: lane.free == 5)
    texts = [record.getMessage() for record in caplog.records]
    assert any("lanes mine(4), default(3)" in text for text in texts)
    assert any("lane mine runs 4 jobs at once from now on, before 2: ann set this" in text for text in texts)
    assert any("what ann had set is undone" in text for text in texts)
    [other] = [record for record in caplog.records if "'another'" in record.getMessage()][:1]
    assert other.levelno == logging.DEBUG


async def test_available_jobs_are_run_with_the_set_concurrency(dsn: str) -> None:
    """One slot in place of ten: each job ends before the next one begins."""
    running, most = 0, 0
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    async with BackfillClient(dsn) as client:
        await client.set_concurrency("default", 1)
        await client.enqueue_bulk(NewJob("t", n) for n in range(30))
    assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 30
    assert most == 1


async def test_the_new_session_of_a_worker_that_was_given_up_follows_too(dsn: str, eventually: Eventually) -> None:
    """Its lanes are made anew, and what stands counts before it claims."""
    running, release = list[str](), asyncio.Event()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(_: int, ctx: WorkerContext[None]) -> None:
        running.append(ctx.worker_id)
        try:
            await release.wait()
        finally:
            running.remove(ctx.worker_id)

    config = WorkerConfig(dsn, concurrency=2, dead_after=timedelta(seconds=4), heartbeat_interval=timedelta(seconds=1))
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks) as runner:
        await client.set_concurrency("default", 3)
        await client.enqueue_bulk(NewJob("t", n) for n in range(8))
        await eventually(lambda: len(running) == 3)
        first = runner.worker_id
        await rows(dsn, "update graphile_worker.backfill_workers set given_up_at = now()")
        await eventually(lambda: runner.worker_id not in (None, first))
        await eventually(lambda: running == [runner.worker_id] * 3)
        assert await rows(dsn, f"{SHOWN} where id = %s", runner.worker_id) == [("3",)]
        release.set()
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)


async def test_threads_that_a_lowered_lane_does_not_need_end(dsn: str, eventually: Eventually) -> None:
    """Those of synchronous handlers; idle ones at once, and the others when their calls have ended."""
    tasks: TaskRegistry[None] = TaskRegistry()
    began, release = list[int](), threading.Event()

    @tasks.task("t")
    def handler(number: int) -> None:
        began.append(number)
        release.wait(30)
        block_for(0.01)

    def threads() -> int:
        return sum(thread.name.startswith("backfill-") for thread in threading.enumerate())

    before = threads()
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn, concurrency=12), tasks):
        await client.enqueue_bulk(NewJob("t", n) for n in range(12))
        await eventually(lambda: len(began) == 12)
        most = threads()
        assert most - before >= 12
        await client.set_concurrency("default", 2)
        release.set()
        await eventually(lambda: most - threads() == 10)
        await client.enqueue_bulk(NewJob("t", n) for n in range(12))
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
        assert most - threads() == 10
        await client.set_concurrency("default", 1)
        await eventually(lambda: most - threads() == 11)
