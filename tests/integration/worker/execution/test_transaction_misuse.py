"""`ctx.transaction()` whose end does not stand for what the block has written: no job is completed then."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from psycopg import IsolationLevel

from backfill import BackfillClient, TaskRegistry, TransactionUseError, WorkerConfig, WorkerContext, WorkerRunner
from backfill.client.lent import ServicesClient
from own_transactions import ADD, JOBS, ONE_LEFT, OPEN, make_sums, run_due, summed

from plugins.waiting import Eventually
from reading import rows, value

KINDS = pytest.mark.parametrize("kind", ["async", "thread"])

LAST_ERROR = "select min(last_error::text) from graphile_worker.backfill_dlq"


@pytest.fixture
async def sums(dsn: str) -> str:
    """A database with the table of sums."""
    await make_sums(dsn)
    return dsn


@KINDS
@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_another_transaction_in_its_stead(sums: str, kind: str, ends: Any) -> None:
    """A transaction that the handler has begun by SQL text is not the block's: the attempt fails."""
    tasks = TaskRegistry[None]()

    @tasks.task("async")
    async def odd(ctx: WorkerContext[None]) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute(ADD, [1])
            for text in (ends, "begin"):
                await tx.connection.execute(text)

    @tasks.task("thread")
    def odd_in_thread(ctx: WorkerContext[None]) -> None:
        with ctx.transaction() as tx:
            tx.connection.execute(ADD, [1])
            for text in (ends, "begin"):
                tx.connection.execute(text)

    async with BackfillClient(sums) as client:
        await client.enqueue(kind)
        await run_due(sums, tasks)
    [[attempts, free, error]] = await rows(sums, ONE_LEFT)
    assert (attempts, free) == (1, True)
    assert error.startswith("TransactionUseError: ctx.transaction(): the handler has ended the block's transaction")


@KINDS
async def test_a_block_that_is_left_open(sums: str, kind: str, eventually: Eventually) -> None:
    """The handler returns within its block: the attempt fails, all is rolled back, and the next job has its turn."""
    tasks, blocks = TaskRegistry[None](), list[Any]()

    @tasks.task("async")
    async def leave(ctx: WorkerContext[None]) -> None:
        blocks.append(ctx.transaction())
        tx = await blocks[-1].__aenter__()
        await tx.connection.execute(ADD, [1])

    @tasks.task("thread")
    def leave_in_thread(ctx: WorkerContext[None]) -> None:
        blocks.append(ctx.transaction())
        tx = blocks[-1].__enter__()
        tx.connection.execute(ADD, [1])

    async with BackfillClient(sums) as client:
        for _ in range(3):
            await client.enqueue(kind, max_attempts=1)
        async with asyncio.timeout(30), WorkerRunner(WorkerConfig(sums, pool_size=2), tasks):

            async def all_have_failed() -> bool:
                return (await client.dlq_stats()).total_jobs == 3

            await eventually(all_have_failed)
            assert await value(sums, OPEN) == 0
    assert "the handler has returned while its block was open" in await value(sums, LAST_ERROR)
    assert await summed(sums) == 0


async def test_a_task_that_outlives_its_handler(sums: str) -> None:
    """A task that the handler has started holds the block open: it writes nothing, and its block's end says so."""
    tasks, started, go_on, left = TaskRegistry[None](), asyncio.Event(), asyncio.Event(), list[Any]()

    @tasks.task("leave")
    async def leave(ctx: WorkerContext[None]) -> None:
        async def add() -> None:
            async with ctx.transaction() as tx:
                await tx.connection.execute(ADD, [1])
                started.set()
                await go_on.wait()

        left.append(asyncio.ensure_future(add()))
        await started.wait()

    async with BackfillClient(sums) as client:
        await client.enqueue("leave", max_attempts=1)
        await run_due(sums, tasks)
        assert (await client.dlq_stats()).total_jobs == 1
    go_on.set()
    with pytest.raises(TransactionUseError, match="its handler has returned"):
        await left[0]
    assert (await summed(sums), await value(sums, JOBS)) == (0, 0)


async def test_a_writing_of_progress_that_is_under_way(sums: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above read committed the block begins once it is over, since it writes the job's row."""
    tasks, raised = TaskRegistry[None](), list[BaseException]()
    writes, seen, wrote = asyncio.Event(), asyncio.Event(), asyncio.Event()
    write = ServicesClient.write_progress

    async def write_late(client: Any, worker: str, entries: Any) -> Any:
        writes.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(seen.wait(), 0.5)
        try:
            return await write(client, worker, entries)
        finally:
            wrote.set()

    monkeypatch.setattr(ServicesClient, "write_progress", write_late)

    @tasks.task("read")
    async def read(ctx: WorkerContext[None]) -> None:
        ctx.set_progress(1)
        await writes.wait()
        try:
            async with ctx.transaction(isolation=IsolationLevel.REPEATABLE_READ) as tx:
                await tx.connection.execute(ADD, [1])
                seen.set()
                await wrote.wait()
        except BaseException as error:
            raised.append(error)
            raise

    async with BackfillClient(sums) as client:
        await client.enqueue("read")
        await run_due(sums, tasks)
    assert raised == []
    assert (await summed(sums), await value(sums, JOBS)) == (1, 0)
    assert await value(sums, "select count(*) from graphile_worker.backfill_progress") == 0
