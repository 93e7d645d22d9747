"""What a waiting for a result comes to where no end is kept, where it is late, and where a job is ended by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from backfill import BackfillClient, EndNotKeptError, ResultTimeoutError, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.client.ends.watch import EndWatch

tasks = TaskRegistry()


@tasks.task("plain")
async def plain(number: int) -> int:
    """Keeps nothing."""
    return number


@tasks.task("kept", keep=timedelta(hours=1))
async def kept(number: int) -> int:
    """Keeps its results."""
    return number


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def test_a_task_that_keeps_nothing_is_told_of_at_once(client: BackfillClient) -> None:
    """Before anything is waited for, and with what to write."""
    outcome = await client.enqueue(plain.job(1), delay=timedelta(hours=1))
    with pytest.raises(EndNotKeptError, match=r"@tasks.task\('plain', keep="):
        await asyncio.wait_for(client.result(outcome), 5)


@pytest.mark.parametrize("how", ["failed", "removed"])
async def test_a_job_that_is_ended_by_hand_ends_the_waiting(client: BackfillClient, how: str) -> None:
    """One that was failed stays as a row, and does not run: whoever awaits it is told."""
    outcome = await client.enqueue(kept.job(1), delay=timedelta(hours=1), job_key="k")
    waiting = asyncio.create_task(client.result(outcome))
    await asyncio.sleep(0)
    await (client.fail_jobs([outcome.id], "no more") if how == "failed" else client.remove_job("k"))
    with pytest.raises(EndNotKeptError, match="failed by hand"):
        await asyncio.wait_for(waiting, 30)


async def test_a_timeout_looks_once_more(dsn: str, client: BackfillClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that nobody was told of is found all the same; one that is not there is not."""

    async def deaf(self: EndWatch, job_id: int) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(EndWatch, "wait", deaf)
    outcome = await client.enqueue(kept.job(5))
    with pytest.raises(ResultTimeoutError):
        await client.result(outcome, timeout=0.05)
    await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    assert await client.result(outcome, timeout=0.05) == 5
