"""What a worker is told while its windows are open: another concurrency, a limit; and a pooler with two sessions."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, NewJob, TaskRegistry, WorkerContext

from plugins.express import LEFT, LONG, all_in_windows, in_windows, short
from plugins.pooler import MakePooler
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.usefixtures("proven")


class Counted:
    """An express task `t` that counts what it has run, and how many of its handlers ran at once."""

    def __init__(self) -> None:
        self.ended = Counter[Any]()
        self.running = self.most = 0
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @short(self.tasks, "t")
        async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0)
            self.running -= 1
            self.ended[payload] += 1


async def test_the_concurrency_goes_to_one_and_back_beside_a_backlog(dsn: str, eventually: Eventually) -> None:
    """A lane of one slot is no lane for windows, so it leaves them and comes back; nothing is lost or run twice."""
    counted = Counted()
    async with BackfillClient(dsn) as client, in_windows(dsn, counted.tasks) as runner:
        assert runner._parts is not None
        [lane] = runner._parts.one.lanes
        for turn in range(3):
            await client.enqueue_bulk(NewJob("t", turn * 100 + number) for number in range(100))
            await client.set_concurrency("default", 1)
            await eventually(lambda: lane.concurrency, (1).__eq__)
            await client.enqueue("t", -1 - turn)
            await client.set_concurrency("default", 10)
            await eventually(lambda: lane.concurrency, (10).__eq__)
            await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        await eventually(lambda: all_in_windows(runner))
    assert counted.ended == Counter([*range(300), -1, -2, -3])


async def test_an_express_task_that_is_limited_by_an_operator_keeps_the_limit(dsn: str, eventually: Eventually) -> None:
    """Its jobs are not taken by windows any more, which nobody could count."""
    counted = Counted()
    async with BackfillClient(dsn) as client, in_windows(dsn, counted.tasks) as runner:
        assert runner._parts is not None
        limits = runner._parts.one.station.limits
        await client.enqueue_bulk(NewJob("t", number) for number in range(100))
        control = await client.set_limit("t", 2)
        await eventually(lambda: bool(limits))
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        counted.most = 0
        await client.enqueue_bulk(NewJob("t", number) for number in range(100, 150))
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        assert 0 < counted.most <= 2
        await client.undo(control)
        await eventually(lambda: not limits)
        await client.enqueue_bulk(NewJob("t", number) for number in range(150, 200))
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert counted.ended == Counter(range(200))


async def test_jobs_wait_for_no_slot_in_windows_while_long_ones_have_them_all(dsn: str, eventually: Eventually) -> None:
    """A worker with many short jobs takes some ahead. It must not keep them from others when no slot falls free."""
    release, ran = asyncio.Event(), Counter[str]()
    one, other = TaskRegistry[None](), TaskRegistry[None]()

    def register(tasks: TaskRegistry[None], name: str) -> None:
        @short(tasks, "t")
        async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
            ran[name] += 1

    @one.task("long")
    async def long(payload: Any) -> None:
        ran["long"] += 1
        await release.wait()

    register(one, "one")
    register(other, "other")
    async with BackfillClient(dsn) as client, in_windows(dsn, one, concurrency=4, express_window=LONG / 40) as runner:
        assert runner._parts is not None
        [lane] = runner._parts.one.lanes
        await client.enqueue_bulk(NewJob("t", number) for number in range(200))
        await eventually(lambda: ran["one"] == 200)
        assert lane.ahead
        await client.enqueue_bulk(NewJob("long", number) for number in range(4))
        await eventually(lambda: ran["long"], (4).__eq__)
        await client.enqueue_bulk(NewJob("t", number) for number in range(20))
        await eventually(lambda: lane.ahead, (0).__eq__, timeout=3)
        async with in_windows(dsn, other, proves=False):
            await eventually(lambda: ran["other"], (20).__eq__)
        release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert ran["one"] == 200


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_a_pooler_with_hardly_any_sessions(
    dsn: str, make_pooler: MakePooler, eventually: Eventually, mode: str
) -> None:
    """Two windows may have both of its sessions for a moment; the settlements, beats and calls of handlers wait."""
    counted = Counted()
    pooled = make_pooler(dsn, mode=mode, size=2 if mode == "transaction" else 8)
    async with (
        BackfillClient(dsn) as client,
        in_windows(pooled, counted.tasks, express=True, listen_dsn=dsn, concurrency=100) as runner,
    ):
        for turn in range(3):
            await client.enqueue_bulk(NewJob("t", turn * 300 + number) for number in range(300))
            await eventually(lambda: len(counted.ended), (turn * 300).__lt__)
            await rows(dsn, _END_POOLED)
            await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        await eventually(lambda: all_in_windows(runner))
    assert set(counted.ended) == set(range(900))


_END_POOLED: LiteralString = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where datname = current_database() and application_name like 'backfill%'
"""
