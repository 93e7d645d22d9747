"""Who waits until all ends are written waits for the end of a window too."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerRunner
from express_tasks import LINES, prove_all

from plugins.waiting import Eventually
from reading import value


async def test_counters_have_what_has_ended_in_an_open_window(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt of it has ended, and its job is deleted once the window ends."""
    prove_all(monkeypatch)
    tasks, go, ended = TaskRegistry[None](), asyncio.Event(), asyncio.Event()

    @tasks.task("t", express=True)
    async def step(waits: bool) -> None:
        if waits:
            await go.wait()
        else:
            ended.set()

    config = WorkerConfig(dsn, express_window=timedelta(seconds=0.7))
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks) as runner:
        await eventually(lambda: value(dsn, LINES), bool)
        await client.enqueue_bulk(step, [True, False])
        await ended.wait()
        await runner.flush_counters()
        assert [(one.task, one.done) for one in await client.counters()] == [("t", 1)]
        go.set()
