"""Many limited tasks without jobs: they sleep, and each job that comes to one of them starts at once all the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from backfill import BackfillClient, JobSpec, Limit, NewJob, Queue, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.worker.limits.roster import FEW, Roster

from plugins.waiting import Eventually

TASKS = 3 * FEW


def registry(ran: list[tuple[str, Any]]) -> TaskRegistry[None]:
    """Many limited tasks, some of them by a field, and one without a limit."""
    tasks: TaskRegistry[None] = TaskRegistry()

    def handler(name: str) -> Callable[[Any], Any]:
        async def note(payload: Any) -> None:
            ran.append((name, payload))

        return note

    tasks.task("free")(handler("free"))
    for number in range(TASKS):
        limit = Limit(2, by="tenant") if number % 3 == 0 else Limit(2)
        tasks.task(f"limited{number}", limit=limit)(handler(f"limited{number}"))
    return tasks


def roster_of(runner: WorkerRunner[None]) -> Roster:
    """The roster of a runner's worker."""
    return runner._parts.one.station.limits.roster


async def test_sleeping_tasks_wake_for_their_jobs(dsn: str, eventually: Eventually) -> None:
    """Parallel, serial, delayed and those that count for a value, of any priority; each source then sleeps again."""
    ran: list[tuple[str, Any]] = []
    config = WorkerConfig(dsn, concurrency=10, poll_interval=timedelta(minutes=5))
    async with BackfillClient(dsn) as client, WorkerRunner(config, registry(ran)) as runner:
        roster = roster_of(runner)
        sources = TASKS + len(range(0, TASKS, 3))  # those that count by a field have two each
        await eventually(lambda: len(roster._asleep), lambda now: now == sources)
        await client.enqueue("free", 0)
        await eventually(lambda: len(ran), lambda now: now == 1)
        assert not roster.active
        expected = {"free"}
        for number in range(TASKS):
            payload = {"tenant": f"of {number}"} if number % 2 else {}
            queue = Queue.serial("one") if number % 4 == 1 else Queue.parallel()
            delay = timedelta(milliseconds=300) if number % 5 == 0 else None
            await client.enqueue(f"limited{number}", payload, queue=queue, delay=delay, priority=number % 7 - 3)
            expected.add(f"limited{number}")
            await eventually(lambda: len(ran), lambda now, wanted=number + 2: now == wanted)
        assert {name for name, _ in ran} == expected
        await client.enqueue("free", 1)
        await eventually(lambda: len(roster._asleep), lambda now: now == sources, timeout=30)


async def test_a_worker_that_ends_when_nothing_is_left_finds_all(dsn: str) -> None:
    """Its first look is one for all limited tasks, and it runs what that finds."""
    ran: list[tuple[str, Any]] = []
    async with BackfillClient(dsn, migrate=True) as client:
        await client.enqueue_bulk(
            NewJob(f"limited{number % TASKS}", {"tenant": number}, JobSpec(priority=number % 3))
            for number in range(120)
        )
    assert await WorkerRunner(WorkerConfig(dsn, concurrency=4), registry(ran)).process_available_jobs() == 120


async def test_a_changed_limit_wakes_its_task(dsn: str, eventually: Eventually) -> None:
    """An operator's limit of a sleeping task holds for the next job, and the others sleep on."""
    ran: list[tuple[str, Any]] = []
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), registry(ran)) as runner:
        roster = roster_of(runner)
        await eventually(lambda: len(roster._asleep), lambda now: now >= TASKS)
        await client.set_limit("limited1", limit=Limit(1))
        await client.enqueue_bulk("limited1", [{}] * 5)
        await eventually(lambda: len(ran), lambda now: now == 5)
        assert len(roster._asleep) >= TASKS - 1
