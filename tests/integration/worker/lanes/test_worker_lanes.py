"""Lanes are obeyed: each has its own concurrency, a job goes to the first that matches, and none spills over."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from backfill import BackfillClient, Queue, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

from reading import rows


class Gate:
    """Handlers that wait until told, and count who is inside."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside: Counter[str] = Counter()
        self.changed = asyncio.Event()

    async def through(self, kind: str) -> None:
        """Enter, wait for the gate, leave."""
        self.inside[kind] += 1
        self.changed.set()
        await self.open.wait()
        self.inside[kind] -= 1

    async def reaches(self, expected: dict[str, int]) -> None:
        """Wait until exactly these are inside."""
        async with asyncio.timeout(20):
            while +self.inside != Counter(expected):
                self.changed.clear()
                await self.changed.wait()


def registry(gate: Gate) -> TaskRegistry[None]:
    """Two tasks that go through the gate."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("video.encode")
    async def encode(kind: str) -> None:
        await gate.through(kind)

    @tasks.task("mail")
    async def mail(kind: str) -> None:
        await gate.through(kind)

    return tasks


async def test_each_lane_has_its_own_concurrency(dsn: str, eventually: Any) -> None:
    """Task, queue and priority filters each fill their own slots.

    The default lane takes the rest, wherever it stands.
    """
    gate = Gate()
    lanes = [
        QueueConfig.default_queue(3),
        QueueConfig("video", 2, tasks="video.*"),
        QueueConfig.named_queue("user:*", 1),
        QueueConfig.priority_queue("urgent", 4, range(-20, -9)),
    ]
    async with BackfillClient(dsn) as client:
        for _ in range(6):
            await client.enqueue("video.encode", "video")
            await client.enqueue("mail", "urgent", priority=-20)
            await client.enqueue("mail", "rest")
        for user in range(4):
            await client.enqueue("mail", "user", queue=Queue.serial_for("user", user))
            await client.enqueue("mail", "other", queue=Queue.serial(f"q{user}"), priority=-10)
        async with WorkerRunner(WorkerConfig(dsn, queues=lanes), registry(gate)) as runner:
            assert runner.worker_id is not None
            await gate.reaches({"video": 2, "user": 1, "urgent": 4, "rest": 3})
            gate.open.set()
            await eventually(lambda: _left(dsn), lambda left: left == 0)


async def test_a_job_of_a_full_lane_waits_for_it(dsn: str) -> None:
    """Jobs that match a full lane are not taken by a later one, though it has free slots."""
    gate = Gate()
    lanes = [QueueConfig("video", 1, tasks=["video.*"]), QueueConfig("second", 5, tasks=["video.*", "mail"])]
    async with BackfillClient(dsn) as client:
        for _ in range(5):
            await client.enqueue("video.encode", "video", priority=-1)
        await client.enqueue("mail", "mail")
        async with WorkerRunner(WorkerConfig(dsn, queues=lanes), registry(gate)):
            await gate.reaches({"video": 1, "mail": 1})
            gate.open.set()


async def test_tasks_that_match_no_lane_are_named(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """At the start, as a warning: their jobs would wait for ever."""
    lanes = [QueueConfig("video", 1, tasks="video.*")]
    async with WorkerRunner(WorkerConfig(dsn, queues=lanes), registry(Gate())):
        pass
    assert "task 'mail' matches no lane" in caplog.text
    assert "video.encode' matches no lane" not in caplog.text


async def _left(dsn: str) -> int:
    return int((await rows(dsn, "select count(*) from graphile_worker._private_jobs"))[0][0])
