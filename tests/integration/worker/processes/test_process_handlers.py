"""Handlers in child processes, run by a real worker: what they get, what they say, and how they end."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, LiteralString

import pytest

import process_tasks
from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.middleware import CallNext

from plugins.waiting import Eventually
from reading import rows, value

KEEP = timedelta(hours=1)
JOBS: LiteralString = "select count(*) from graphile_worker.jobs"


async def ran(dsn: str, tasks: TaskRegistry[Any], task: str, payload: Any, **settings: Any) -> Any:
    """The kept result of one job."""
    async with BackfillClient(dsn) as client:
        job = await client.enqueue(task, payload)
        await WorkerRunner(WorkerConfig(dsn, concurrency=2, **settings), tasks).process_available_jobs()
        return await client.result(job, timeout=timedelta(seconds=10))


async def test_a_handler_runs_in_another_process_with_its_context(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """It has the job, the attempt and the worker's id, and its log records come here with the job's fields."""
    caplog.set_level(logging.INFO)
    said = await ran(dsn, process_tasks.registry(keep=KEEP), "pid", None)
    assert said["pid"] != os.getpid()
    assert said["attempt"] == 1
    assert said["worker"].startswith("backfill_")
    records = {record.getMessage(): record for record in caplog.records}
    hello = records[f"hello from {said['job']}"]
    assert (hello.name, vars(hello)["job_id"], vars(hello)["task"]) == ("backfill.task.pid", said["job"], "pid")
    other = records["of another logger"]
    assert (other.name, vars(other)["order"], vars(other)["job_id"]) == ("shop.work", 5, said["job"])
    assert other.process == said["pid"]


async def test_a_handler_that_sets_up_logs_takes_none_of_later_jobs(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """The records of the next job in the same child come here again."""
    caplog.set_level(logging.INFO)
    config = WorkerConfig(dsn, concurrency=1)
    async with BackfillClient(dsn) as client:
        await client.enqueue("sets_up_logs", None, priority=1)
        job = await client.enqueue("pid", priority=2)
        await WorkerRunner(config, process_tasks.registry(keep=KEEP)).process_available_jobs()
    assert f"hello from {job.job.id}" in [record.getMessage() for record in caplog.records]


async def test_a_task_called_directly_runs_here() -> None:
    """`await task(payload)` does not need a worker, nor a child."""
    task = process_tasks.registry().get("returns")
    assert task is not None
    assert await task("number") == 42


async def test_progress_and_checkpoints_cross(dsn: str, tmp_path: Path) -> None:
    """The second attempt finds the checkpoint of the first, in another process or the same."""
    where, tasks = tmp_path / "begun", process_tasks.registry(keep=KEEP)
    async with BackfillClient(dsn) as client:
        job = await client.enqueue("steps", str(where))
        config = WorkerConfig(dsn, max_jobs_per_process=1)
        await WorkerRunner(config, tasks).process_available_jobs()
        assert where.read_text() == "0\n5\n"
        assert await client.result(job) == 5


async def test_children_are_replaced_after_so_many_jobs(dsn: str) -> None:
    """With one process and two jobs each, five jobs take three of them; without a number, one serves them all."""
    tasks = process_tasks.registry(keep=KEEP)
    for most, expected in ((2, 3), (None, 1)):
        config = WorkerConfig(dsn, concurrency=3, process_slots=1, max_jobs_per_process=most)
        async with BackfillClient(dsn) as client:
            jobs = [await client.enqueue("pid") for _ in range(5)]
            await WorkerRunner(config, tasks).process_available_jobs()
            pids = {(await client.result(job))["pid"] for job in jobs}
        assert len(pids) == expected


async def test_a_forked_copy_of_a_handler_ends_when_it_returns(dsn: str) -> None:
    """The job has one result, and its child goes on."""
    assert await ran(dsn, process_tasks.registry(keep=KEEP), "forks", None) == "parent"


async def test_the_lifespan_is_entered_once_in_each_child(dsn: str) -> None:
    """Where its registry says so; it is left when the child ends."""
    tasks: TaskRegistry[process_tasks.Deps] = TaskRegistry(lifespan=process_tasks.lifespan, in_processes=True)
    tasks.task("with_deps", run_in="process", keep=KEEP)(process_tasks.with_deps)
    async with BackfillClient(dsn) as client:
        jobs = [await client.enqueue("with_deps") for _ in range(3)]
        await WorkerRunner(WorkerConfig(dsn, concurrency=1), tasks).process_available_jobs()
        results = [await client.result(job) for job in jobs]
    (pid,) = {result["pid"] for result in results}
    assert pid != os.getpid()
    assert results == [{"pid": pid, "deps": pid, "entered": 1}] * 3


async def test_a_lifespan_that_fails_in_a_child_fails_the_attempt(dsn: str) -> None:
    """The error of the attempt is that of the lifespan; the worker works on."""
    tasks: TaskRegistry[process_tasks.Deps] = TaskRegistry(lifespan=process_tasks.broken_lifespan, in_processes=True)
    tasks.task("with_deps", run_in="process")(process_tasks.with_deps)
    async with BackfillClient(dsn) as client:
        await client.enqueue("with_deps", max_attempts=1)
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        (letter,) = (await client.list_dlq_jobs()).jobs
    assert (letter.last_error or "").startswith("RuntimeError: no deps here")


async def test_deps_of_a_lifespan_that_children_do_not_enter(dsn: str) -> None:
    """They say what to do when they are used."""
    tasks: TaskRegistry[Any] = TaskRegistry(lifespan=process_tasks.lifespan)
    tasks.task("deps", run_in="process")(process_tasks.any_deps)
    async with BackfillClient(dsn) as client:
        await client.enqueue("deps", max_attempts=1)
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        (letter,) = (await client.list_dlq_jobs()).jobs
    assert "in_processes=True" in (letter.last_error or "")


async def test_middleware_runs_where_its_kind_belongs(dsn: str) -> None:
    """Synchronous functions run beside the handler, in its child; async ones around that, in the worker."""
    tasks: TaskRegistry[Any] = TaskRegistry()
    tasks.task("pid", run_in="process", keep=KEEP)(process_tasks.pid)
    tasks.middleware(process_tasks.around)

    @tasks.middleware
    async def outer(call_next: CallNext, ctx: Any) -> Any:
        return {**await call_next(), "outer": os.getpid(), "outer_job": ctx.job.id}

    said = await ran(dsn, tasks, "pid", None)
    assert said["around"] == said["pid"] != os.getpid()
    assert said["outer"] == os.getpid()
    assert said["around_job"] == said["outer_job"] == said["job"]


async def test_the_client_of_a_child_enqueues(dsn: str) -> None:
    """It is one of the child's own, and belongs to the loop on which the lifespan runs."""
    tasks: TaskRegistry[Any] = TaskRegistry(lifespan=process_tasks.enqueuing, in_processes=True)
    tasks.task("enqueues", run_in="process", keep=KEEP)(process_tasks.enqueues)
    number = await ran(dsn, tasks, "enqueues", None)
    assert await rows(dsn, "select task_identifier from graphile_worker.jobs where id = %s", number) == [("takes",)]


async def test_children_follow_the_lanes_concurrency(dsn: str, eventually: Eventually) -> None:
    """Where operators change it while the worker runs."""
    tasks = process_tasks.registry(keep=KEEP)
    config = WorkerConfig(dsn, concurrency=1, poll_interval=timedelta(milliseconds=100))
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks) as runner:
        parts = runner._parts
        assert parts is not None
        pool = parts.pool._pool
        assert pool is not None
        assert pool._size == 1
        await client.set_concurrency("default", 3)
        await eventually(lambda: pool._size == 3)


async def test_processors_are_used_together(dsn: str, eventually: Eventually) -> None:
    """Work that keeps a processor busy comes near the rate of two bare processes, in the same run.

    Other tests run beside this one; the gates, which run alone, want 0.85.
    """
    tasks, times, ratios = process_tasks.registry(), 60, list[float]()

    async def done() -> None:
        await eventually(lambda: value(dsn, JOBS), lambda count: count == 0, timeout=60)

    config = WorkerConfig(dsn, concurrency=2)
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks):
        await client.enqueue_bulk("burns", [50] * 4)  # so that both children are there
        await done()
        while len(ratios) < 5 and max(ratios, default=0) < 0.85:  # others use the processors too
            theirs = await asyncio.to_thread(bare, process_tasks.burns, 20, times)
            began = perf_counter()
            await client.enqueue_bulk("burns", [20] * times)
            await done()
            ratios.append(theirs / (perf_counter() - began))
    assert max(ratios) >= 0.7, ratios


def bare(function: Callable[[int], int], argument: int, times: int) -> float:
    """How many seconds two bare processes need for so many calls."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(function, [1] * 4, chunksize=1)
        began = perf_counter()
        pool.map(function, [argument] * times, chunksize=1)
        return perf_counter() - began
