"""Handlers in child processes, run by a real worker: what they get, what they say, and how they end."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import Any

import pytest

import process_tasks
from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerRunner

KEEP = timedelta(hours=1)


async def ran(dsn: str, tasks: TaskRegistry[Any], task: str, payload: Any, **settings: Any) -> Any:
    """The kept result of one job."""
    async with BackfillClient(dsn) as client:
        job = await client.enqueue(task, payload)
        await WorkerRunner(WorkerConfig(dsn, concurrency=2, **settings), tasks).process_available_jobs()
        return await client.result(job, timeout=timedelta(seconds=10))


async def test_a_handler_runs_in_another_process_with_its_context(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
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
