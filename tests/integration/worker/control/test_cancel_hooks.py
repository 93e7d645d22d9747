"""What plugins hear of a cancelled job, and what interceptors are asked about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from backfill import (
    BackfillClient,
    BeforeJobRun,
    EndHow,
    Fail,
    HookRegistry,
    JobCancelled,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)

from hearing import Gate, Heard
from plugins.waiting import Eventually

HOUR = timedelta(hours=1)


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def test_observers_are_told_and_no_interceptor_is_asked_about_its_failure(
    dsn: str, client: BackfillClient
) -> None:
    """What the handler raises after it was cancelled is no failure that AfterJobRun could turn into something else."""
    heard, gate, begun = Heard(), Gate(after=lambda _: Fail("never")), asyncio.Event()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", keep=HOUR)
    async def t(_: str) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("no")

    async with WorkerRunner(WorkerConfig(dsn), tasks, plugins=[heard, gate]) as runner:
        job = await client.enqueue("t", "p")
        await begun.wait()
        await client.cancel(job, reason="why")
        with pytest.raises(Exception, match="why"):
            await client.result(job, timeout=30)
        worker = runner.worker_id
    assert heard.of("p") == ["JobFetch", "JobStart", "JobCancelled"]
    told = heard.only(JobCancelled)
    assert (told.job.id, told.worker_id, told.reason) == (job.id, worker, "why")
    assert told.duration > timedelta(0)
    assert gate.asked == []


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_job_that_is_cancelled_while_an_interceptor_is_asked_does_not_begin(
    dsn: str, client: BackfillClient, eventually: Eventually, is_async: bool
) -> None:
    """Also where the interceptor swallows the cancellation."""
    heard, asked, ran = Heard(), asyncio.Event(), []
    tasks: TaskRegistry[None] = TaskRegistry()

    class Slow:
        """Is asked, and waits until it is cancelled."""

        def register(self, hooks: HookRegistry) -> None:
            """Register for the time before a job."""
            hooks.on(BeforeJobRun, self.before)

        async def before(self, _: BeforeJobRun) -> None:
            """Swallow the cancellation."""
            asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return

    if is_async:

        @tasks.task("t", keep=HOUR)
        async def on_loop(_: str) -> None:
            ran.append(1)
    else:

        @tasks.task("t", keep=HOUR)
        def in_thread(_: str) -> None:
            ran.append(1)

    async with WorkerRunner(WorkerConfig(dsn), tasks, plugins=[heard, Slow()]):
        job = await client.enqueue("t", "p")
        await asked.wait()
        await client.cancel(job)
        end = await eventually(lambda: client.end(job))
    assert end.how is EndHow.CANCELLED
    assert ran == []
    assert heard.of("p") == ["JobFetch", "JobCancelled"]
