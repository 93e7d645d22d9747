"""`ctx.transaction()` in handlers that `run_job` runs: their writes are committed, and no job is completed."""

from __future__ import annotations

import pytest

from backfill import BackfillClient, ConfigurationError, TaskRegistry, TransactionUseError, WorkerContext
from backfill.testing import run_job
from own_transactions import ADD, JOBS, make_sums, summed

from reading import value

tasks: TaskRegistry[None] = TaskRegistry()


@tasks.task("add")
async def add(number: int, ctx: WorkerContext[None]) -> int:
    """Adds, and enqueues; fails at 13."""
    async with ctx.transaction() as tx:
        await tx.connection.execute(ADD, [number])
        await tx.enqueue("more", number)
        if number == 13:
            raise ValueError("unlucky")
        tx.complete(number * 2)
    return 0


@tasks.task("add_in_thread")
def add_in_thread(number: int, ctx: WorkerContext[None]) -> int:
    """The same in a thread."""
    with ctx.transaction() as tx:
        tx.connection.execute(ADD, [number])
        tx.enqueue("more", number)
        if number == 13:
            raise ValueError("unlucky")
        tx.complete(number * 2)
    return 0


@tasks.task("twice")
async def twice(ctx: WorkerContext[None]) -> None:
    """Completes its job, and would write more."""
    async with ctx.transaction():
        pass
    async with ctx.transaction():
        pass


async def test_what_a_handler_writes_is_committed(dsn: str) -> None:
    """With the jobs that it enqueues; the result is what `tx.complete` was given."""
    await make_sums(dsn)
    async with BackfillClient(dsn) as client:
        assert await run_job(add, 5, client=client) == 10
        assert await run_job(add_in_thread, 7, client=client) == 14
        for task in (add, add_in_thread):
            with pytest.raises(ValueError, match="unlucky"):
                await run_job(task, 13, client=client)
        with pytest.raises(TransactionUseError, match="completed already"):
            await run_job(twice, client=client)
    assert (await summed(dsn), await value(dsn, JOBS)) == (12, 2)


async def test_without_a_client_it_says_so() -> None:
    """So that no test writes to a database by accident."""
    with pytest.raises(ConfigurationError, match="no client was given"):
        await run_job(add, 5)
