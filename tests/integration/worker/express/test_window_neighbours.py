"""Beside jobs in windows: those that are not for windows run the ordinary way, and operators are heard."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from backfill import BackfillClient, JobSpec, Limit, NewJob, Queue, RetryPolicy, TaskRegistry, WorkerContext

from plugins.express import LEFT, LONG, SESSIONS, all_in_windows, in_windows, row, short
from plugins.pooler import MakePooler
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.usefixtures("proven")


class Seen:
    """An express task `t`, an ordinary task `other` and a limited task `limited`, which note what their rows say.

    Attributes:
        rows: by payload, the attempts and the worker in the row while the handler runs.
    """

    def __init__(self, dsn: str) -> None:
        self.rows = dict[Any, tuple[int, str | None] | None]()
        self.count = Counter[Any]()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        async def note(payload: Any, ctx: WorkerContext[None]) -> None:
            self.count[payload] += 1
            self.rows[payload] = await row(dsn, ctx.job.id)

        short(self.tasks, "t")(note)
        self.tasks.task("other")(note)
        self.tasks.task("limited", limit=Limit(2))(note)


async def test_jobs_that_are_not_for_windows_run_beside_them(dsn: str, eventually: Eventually) -> None:
    """With a key, in a queue, with orders of their own or after an attempt, and those of other tasks.

    Labels do not keep a job from a window.
    """
    seen = Seen(dsn)
    hour = timedelta(hours=1)
    ordinary = [
        NewJob("t", "key", JobSpec(job_key="key")),
        NewJob("t", "queue", JobSpec(queue=Queue.serial("q"))),
        NewJob("t", "retry", JobSpec(retry=RetryPolicy(initial_delay=hour, max_delay=hour))),
        NewJob("t", "timeout", JobSpec(timeout=hour)),
        NewJob("other", "other"),
        NewJob("limited", "limited"),
    ]
    express = [NewJob("t", "plain"), NewJob("t", "flags", JobSpec(flags=["mine"]))]
    async with BackfillClient(dsn) as client, in_windows(dsn, seen.tasks, express_window=LONG) as runner:
        worker = runner.worker_id
        for job in [*ordinary, *express]:
            await eventually(lambda: all_in_windows(runner))  # they rest where they find ordinary jobs only
            await client.enqueue_bulk([job])
            await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        assert {name for name, found in seen.rows.items() if found == (1, worker)} == {job.payload for job in ordinary}
        assert {name for name, found in seen.rows.items() if found == (0, None)} == {job.payload for job in express}
        await client.enqueue_bulk([*ordinary, *express] * 5)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    del seen.count["key"]
    assert set(seen.count.values()) == {6}


async def test_a_paused_task_starts_no_more(dsn: str, eventually: Eventually) -> None:
    """Its jobs wait, those of others run, and a resume lets them run, in windows again."""
    seen = Seen(dsn)
    async with BackfillClient(dsn) as client, in_windows(dsn, seen.tasks, express_window=LONG) as runner:
        await client.pause(task="t")
        await eventually(lambda: runner._parts and runner._parts.one.executor.paused.names)
        await client.enqueue_bulk([NewJob("t", number) for number in range(50)] + [NewJob("other", "other")])
        await eventually(lambda: value(dsn, LEFT), (50).__eq__)
        assert set(seen.count) == {"other"}
        await client.resume(task="t")
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert seen.count == Counter([*range(50), "other"])
    assert {seen.rows[number] for number in range(50)} == {(0, None)}


async def test_a_backlog_is_paused_in_the_middle(dsn: str, eventually: Eventually) -> None:
    """Nothing is lost or run twice when jobs that windows hold must wait."""
    seen = Seen(dsn)
    async with BackfillClient(dsn) as client, in_windows(dsn, seen.tasks):
        await client.enqueue_bulk(NewJob("t", number) for number in range(300))
        await eventually(lambda: len(seen.count) >= 30)
        await client.pause(task="t")
        await client.resume(task="t")
        await client.pause(task="t")
        await client.resume(task="t")
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert seen.count == Counter(range(300))


async def test_a_limited_task_beside_windows(dsn: str, eventually: Eventually) -> None:
    """It takes its jobs by looks of its own, and never runs more of them at once than it may."""
    running, most, ran = 0, 0, Counter[Any]()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("limited", limit=Limit(2))
    async def limited(payload: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        ran[payload] += 1

    @short(tasks, "t")
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        ran[payload] += 1

    async with BackfillClient(dsn) as client, in_windows(dsn, tasks, concurrency=20):
        await client.enqueue_bulk(NewJob("limited" if n % 2 else "t", n) for n in range(400))
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert ran == Counter(range(400))
    assert most <= 2


async def test_serial_jobs_beside_windows_keep_their_order(dsn: str, eventually: Eventually) -> None:
    """Serial jobs of an express task run one after the other in their queue, while windows take the others."""
    order = dict[str | None, list[int]]()
    tasks: TaskRegistry[None] = TaskRegistry()

    @short(tasks, "t")
    async def handler(payload: int, ctx: WorkerContext[None]) -> None:
        order.setdefault(ctx.job.queue_name, []).append(payload)

    async with BackfillClient(dsn) as client, in_windows(dsn, tasks, concurrency=20):
        await client.enqueue_bulk(
            NewJob("t", n, JobSpec(queue=Queue.serial(f"q{n % 5}") if n % 2 else Queue.parallel())) for n in range(400)
        )
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert sorted(number for some in order.values() for number in some) == list(range(400))
    for queue, numbers in order.items():
        assert queue is None or numbers == sorted(numbers)


@pytest.mark.parametrize("express", [None, True])
async def test_through_a_pooler_windows_are_opened_only_if_asked_for(
    dsn: str, make_pooler: MakePooler, eventually: Eventually, express: bool | None
) -> None:
    """By default the jobs run the ordinary way there; with `express=True` windows hold them, each in one session."""
    seen = Seen(dsn)
    pooled = make_pooler(dsn, size=10)
    listening = {"listen_dsn": dsn, "express_window": LONG, "express": express}
    async with (
        BackfillClient(dsn) as client,
        in_windows(pooled, seen.tasks, proves=express is True, **listening) as runner,
    ):
        worker = runner.worker_id
        for number in range(40):
            await client.enqueue("t", number)
            await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        await client.enqueue_bulk(NewJob("t", number) for number in range(40, 240))
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        assert all_in_windows(runner) is (express is True)
        assert not await rows(dsn, SESSIONS) or express
    assert seen.count == Counter(range(240))
    expected = (0, None) if express else (1, worker)
    assert Counter(seen.rows.values())[expected] >= (40 if express else 240)
