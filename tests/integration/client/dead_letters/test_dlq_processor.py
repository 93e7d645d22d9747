"""The dead-letter processor of a program without workers: its rounds, its pauses after failures, and how it stops."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient, BackfillError, DlqProcessor, InvalidJobError, WorkerConfig
from backfill.client.dead_letters import processor

from plugins.waiting import Eventually
from reading import value

JOBS = "select count(*) from graphile_worker._private_jobs"
ENTRIES = "select count(*) from graphile_worker.backfill_dlq"
KILL = """select count(pg_terminate_backend(pid)) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""
SECOND = timedelta(seconds=1)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between rounds, none of which is waited for."""
    taken = list[float]()

    async def rest(_self: DlqProcessor, seconds: float) -> None:
        taken.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(DlqProcessor, "_rest", rest)
    return taken


async def test_it_moves_at_once_and_each_interval(dsn: str, eventually: Eventually) -> None:
    """What other programs have failed before and meanwhile becomes a dead letter; `moved` counts them."""
    async with BackfillClient(dsn) as client:
        await client.fail_jobs([await client.enqueue("t", n) for n in range(3)], "no")
        async with client.start_dlq_processor(SECOND) as dlq:
            await eventually(lambda: dlq.moved, lambda moved: moved == 3)
            assert dlq.is_running
            await client.fail_jobs([await client.enqueue("t", 4)])
            await eventually(lambda: dlq.moved, lambda moved: moved == 4)
        assert not dlq.is_running
        assert (await value(dsn, JOBS), await value(dsn, ENTRIES)) == (0, 4)
        left = await client.enqueue("t", 5)
        await client.fail_jobs([left])
        assert await client.get_job(left) is not None


async def test_its_default_is_the_workers(dsn: str) -> None:
    """An interval that is not given is the one of workers."""
    async with BackfillClient(dsn) as client, client.start_dlq_processor() as dlq:
        assert dlq._interval == 60.0
    assert WorkerConfig().dlq_processor_interval == processor.DEFAULT_INTERVAL


async def test_pauses_grow_while_rounds_fail(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """2, 4, 8, 16 and then 32 times the interval; one success brings back the interval. An outage is logged once."""
    outcomes: list[int | Exception] = [0, *[psycopg.OperationalError("away")] * 7, 2, TimeoutError(), 0]
    done = asyncio.Event()

    async def move() -> int:
        if not outcomes:
            done.set()
            return 0
        if isinstance(outcome := outcomes.pop(0), Exception):
            raise outcome
        return outcome

    caplog.set_level(logging.INFO)
    async with DlqProcessor(move, timedelta(seconds=3)) as dlq:
        await done.wait()
    assert pauses[:11] == [3, 6, 12, 24, 48, 96, 96, 96, 3, 6, 3]
    assert dlq.moved == 2
    assert [record.levelname for record in caplog.records if "could not be moved" in record.message] == ["WARNING"]
    assert len([record for record in caplog.records if "again" in record.message]) == 1


async def test_it_outlives_its_connections(dsn: str, eventually: Eventually) -> None:
    """Rounds go on when the server has ended the client's connections."""
    async with BackfillClient(dsn) as client, client.start_dlq_processor(SECOND) as dlq:
        for n in (1, 2):
            async with BackfillClient(dsn) as other:
                await other.fail_jobs([await other.enqueue("t", n)])
            await eventually(lambda: dlq.moved, lambda moved, n=n: moved == n)
            await value(dsn, KILL)


async def test_a_stop_waits_for_the_round_under_way() -> None:
    """The block ends when the round has ended, and no other one begins."""
    begun, may_end = asyncio.Event(), asyncio.Event()
    rounds = 0

    async def move() -> int:
        nonlocal rounds
        rounds += 1
        begun.set()
        await may_end.wait()
        return 1

    async with DlqProcessor(move, SECOND) as dlq:
        await begun.wait()
        asyncio.get_running_loop().call_later(0.1, may_end.set)
    assert (dlq.moved, rounds) == (1, 1)


async def test_a_stop_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that does not end in time is cancelled."""
    monkeypatch.setattr(processor, "STOP_SECONDS", 0.05)
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def move() -> int:
        begun.set()
        try:
            return await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with asyncio.timeout(10), DlqProcessor(move, SECOND) as dlq:
        await begun.wait()
    assert cancelled.is_set()
    assert not dlq.is_running


async def test_a_cancelled_block_ends_it() -> None:
    """The cancellation of the block's task is raised, and the processor's task is over."""
    begun = asyncio.Event()
    made = list[DlqProcessor]()

    async def move() -> int:
        return 0

    async def serve() -> None:
        async with DlqProcessor(move, SECOND) as dlq:
            made.append(dlq)
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(serve())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not made[0].is_running


async def test_a_fault_ends_it_and_is_raised(caplog: pytest.LogCaptureFixture, eventually: Eventually) -> None:
    """What is no trouble of the database ends it; the log says so at once, and the block raises it at its end."""

    async def move() -> int:
        raise ZeroDivisionError("no")

    async def serve(error: Exception | None) -> None:
        async with DlqProcessor(move, SECOND) as dlq:
            await eventually(lambda: not dlq.is_running)
            assert "has ended, jobs that failed for good stay: ZeroDivisionError: no" in caplog.text
            if error is not None:
                raise error

    with pytest.raises(ZeroDivisionError):
        await serve(None)
    with pytest.raises(KeyError):
        await serve(KeyError("the block's own"))


async def test_it_may_be_entered_again_but_not_twice() -> None:
    """One object runs once at a time."""

    async def move() -> int:
        return 0

    dlq = DlqProcessor(move, SECOND)
    for _ in range(2):
        async with dlq:
            with pytest.raises(BackfillError, match="runs already"):
                await dlq.__aenter__()
            assert dlq.is_running
        assert not dlq.is_running


@pytest.mark.parametrize("interval", [None, 60, timedelta(0), timedelta(milliseconds=999), timedelta(days=2)])
async def test_intervals_that_are_refused(dsn: str, interval: Any) -> None:
    """From a second to a day, as for workers."""
    with pytest.raises(InvalidJobError, match=r"interval = .*from 1 second to 1 day"):
        BackfillClient(dsn).start_dlq_processor(interval)
