"""A worker from its configuration to its end, and what it is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, assert_type

from backfill import BackfillClient, EndFilter, EndHow, JobEnd, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

tasks = TaskRegistry()


def token() -> str:
    return "postgresql:///"


async def async_token() -> str:
    return "postgresql:///"


@tasks.task("sum", keep=timedelta(days=1))
async def total(parts: list[int]) -> int:
    return sum(parts)


async def results(client: BackfillClient) -> None:
    outcome = await client.enqueue(total.job([1]))
    assert_type(await client.result(outcome), int)
    assert_type(await client.result(outcome, timeout=timedelta(seconds=1)), int)
    assert_type(await client.result(outcome.id, timeout=1.5), Any)
    assert_type(await client.result(await client.enqueue("sum", [1])), Any)
    assert_type(await client.end(outcome), JobEnd | None)
    assert_type((await client.ends(EndFilter(how=EndHow.FAILED))).ends, list[JobEnd])
    await client.result("1")  # error: overload


async def run(stop: asyncio.Event) -> None:
    runner = WorkerRunner(WorkerConfig("postgresql:///", poll_interval=timedelta(seconds=1)), tasks)
    assert_type(await runner.process_available_jobs(), int)
    await runner.run_until_cancelled(stop)
    async with runner as running:
        assert_type(running, WorkerRunner)
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run())


lanes = [
    QueueConfig.default_queue(100),
    QueueConfig.named_queue("mail", 1),
    QueueConfig.priority_queue("soon", 2, range(-20, 0)),
    QueueConfig("heavy", 4, tasks=["video.*"], queues="user:*", priority=range(-20, 0)),
]
WorkerConfig(token, queues=lanes, schema="graphile_worker")
WorkerConfig(async_token)

QueueConfig("heavy")  # error: concurrency
QueueConfig("heavy", 4, priority=-20)  # error: range
WorkerConfig(3)  # error: str
WorkerRunner(WorkerConfig("postgresql:///"))  # error: registry
WorkerRunner(WorkerConfig("postgresql:///"), [])  # error: TaskRegistry
WorkerConfig("postgresql:///", poll_interval=1)  # error: timedelta
