"""Handlers in child processes beside what else holds jobs back: limits of the fleet, pauses and serial queues."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path

import process_tasks
from backfill import BackfillClient, Queue, RetryPolicy, WorkerConfig, WorkerRunner

from plugins.periods import let_pass
from plugins.waiting import Eventually

KEEP = timedelta(hours=1)
SECOND = timedelta(seconds=1)
AT_ONCE = RetryPolicy(
    max_attempts=5, initial_delay=SECOND / 100, max_delay=SECOND / 100, backoff_multiplier=1.0, jitter_factor=0.0
)


def begun(path: Path) -> bool:
    """Whether a handler has said that it runs."""
    return path.exists() and path.read_text(encoding="utf-8") != ""


async def test_a_share_falls_free_with_its_child(dsn: str, eventually: Eventually, tmp_path: Path) -> None:
    """A limit of one lets the next job begin when the first is cancelled, or when its child is killed."""
    files = [tmp_path / str(number) for number in range(3)]
    tasks = process_tasks.registry(keep=KEEP, limit=1)
    config = WorkerConfig(dsn, concurrency=3, poll_interval=SECOND / 10, retry=AT_ONCE)
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks):
        jobs = [(await client.enqueue("hangs", str(path), max_attempts=1)).job for path in files]
        await eventually(lambda: begun(files[0]))
        await let_pass(0.5)
        assert not begun(files[1])
        await client.cancel(jobs[0].id)
        await eventually(lambda: begun(files[1]))
        assert not begun(files[2])
        os.kill(int(files[1].read_text()), signal.SIGKILL)
        await eventually(lambda: begun(files[2]))
        await client.cancel(jobs[2].id)
        await eventually(lambda: client.end(jobs[2].id), lambda end: end is not None)


async def test_a_pause_lets_a_child_go_on(dsn: str, eventually: Eventually, tmp_path: Path) -> None:
    """What runs is not touched, and nothing of the task begins until it is resumed."""
    first, second = tmp_path / "first", tmp_path / "second"
    config = WorkerConfig(dsn, concurrency=2, poll_interval=SECOND / 10)
    async with BackfillClient(dsn) as client, WorkerRunner(config, process_tasks.registry(keep=KEEP)) as runner:
        one = await client.enqueue("hangs", str(first))
        await eventually(lambda: begun(first))
        await client.pause(task="hangs")
        await eventually(lambda: runner.health().paused == ("hangs",))
        two = await client.enqueue("hangs", str(second))
        await let_pass(0.5)
        assert not begun(second)
        os.kill(int(first.read_text()), 0)
        await client.resume(task="hangs")
        await eventually(lambda: begun(second))
        for job in (one, two):
            await client.cancel(job.job.id)
            await eventually(lambda number=job.job.id: client.end(number), lambda end: end is not None)


async def test_a_serial_queue_goes_on_after_a_death(dsn: str, eventually: Eventually) -> None:
    """The job whose child died keeps no queue locked."""
    config = WorkerConfig(dsn, concurrency=2, poll_interval=SECOND / 10, retry=AT_ONCE)
    queue = Queue.serial("one")
    async with BackfillClient(dsn) as client, WorkerRunner(config, process_tasks.registry(keep=KEEP)):
        await client.enqueue("dies", "segv", queue=queue, max_attempts=1)
        after = await client.enqueue("dies", "lives", queue=queue)
        assert await client.result(after, timeout=30 * SECOND) == "lives"
        assert len((await client.list_dlq_jobs()).jobs) == 1
