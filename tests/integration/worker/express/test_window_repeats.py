"""Jobs that lose their windows: the next time they run the ordinary way, in which their attempts count."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, TaskRegistry, WorkerContext

from plugins.express import END_SESSIONS, LEFT, LONG, all_in_windows, in_windows, row, short
from plugins.periods import work_for
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.usefixtures("proven")
END_IDLE: LiteralString = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where datname = current_database() and state = 'idle in transaction'
"""


async def test_a_job_that_ends_its_own_window_is_counted_the_next_time(dsn: str, eventually: Eventually) -> None:
    """As one does that ends all idle transactions: else it would lose each window that takes it, without end."""
    found = list[tuple[int, str | None] | None]()
    tasks: TaskRegistry[None] = TaskRegistry()

    @short(tasks, "t")
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        found.append(await row(dsn, ctx.job.id))
        await rows(dsn, END_IDLE)
        await work_for(0.2)

    async with BackfillClient(dsn) as client, in_windows(dsn, tasks, express_window=LONG) as runner:
        worker = runner.worker_id
        await client.enqueue("t", 1)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__, timeout=10)
        await eventually(lambda: all_in_windows(runner))
    assert found == [(0, None), (1, worker)]


async def test_a_job_whose_earlier_handler_does_not_end_is_not_taken_by_one_window_after_the_other(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Its handler swallows its cancellation. The job is claimed once, and waits for that handler as others do."""
    began, release = list[Any](), asyncio.Event()
    tasks: TaskRegistry[None] = TaskRegistry()

    @short(tasks, "t")
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        began.append(payload)
        while payload == "stay" and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    def told() -> int:
        return sum("waits until its earlier handler" in record.getMessage() for record in caplog.records)

    caplog.set_level(logging.INFO, "backfill")
    async with BackfillClient(dsn) as client, in_windows(dsn, tasks, express_window=LONG) as runner:
        runner_id = runner.worker_id
        job = await client.enqueue("t", "stay")
        assert job.id is not None
        await eventually(lambda: began)
        await rows(dsn, END_SESSIONS)
        await eventually(told)
        assert await row(dsn, job.id) == (1, runner_id)
        for number in range(3):
            await client.enqueue("t", number)
            await eventually(lambda: value(dsn, LEFT), (1).__eq__)
        assert told() == 1
        release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert Counter(began) == Counter(["stay", "stay", *range(3)])
