"""Windows of a worker whose role has the printed grants and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from backfill import BackfillClient, NewJob, TaskRegistry, WorkerContext

from plugins.express import END_SESSIONS, LEFT, LONG, SESSIONS, in_windows, row, short
from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value


@pytest.mark.usefixtures("proven")
async def test_a_role_with_the_printed_grants_opens_windows(dsn: str, role: NewRole, eventually: Eventually) -> None:
    """Its jobs complete, fail, outlive their windows, and survive a lost one, each by the statement for that."""
    theirs, ends = role("worker"), Counter[Any]()
    held, release = asyncio.Event(), asyncio.Event()
    tasks: TaskRegistry[None] = TaskRegistry()

    @short(tasks, "t")
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        if payload == "fail" and ctx.attempt == 1:
            raise ValueError("again")
        if payload == "hold":
            held.set()
            await release.wait()
        ends[payload] += 1

    async with BackfillClient(dsn) as client, in_windows(theirs, tasks, express_window=LONG):
        await client.enqueue_bulk(NewJob("t", number) for number in range(200))
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        failing = await client.enqueue("t", "fail", max_attempts=2)
        assert failing.id is not None
        await eventually(lambda: row(dsn, failing.id or 0), (1, None).__eq__)
        await client.enqueue_bulk([NewJob("t", "hold"), NewJob("t", "done")])
        await held.wait()
        assert await rows(dsn, SESSIONS)
        await rows(dsn, END_SESSIONS)
        held.clear()
        await held.wait()
        release.set()
        await rows(dsn, "update graphile_worker._private_jobs set run_at = now()")
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert ends == Counter([*range(200), "fail", "hold", "done"])
