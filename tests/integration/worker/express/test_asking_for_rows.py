"""What a handler does within a window that needs the claim in its job's row: the window ends early for it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from backfill import (
    BackfillClient,
    CancelStatus,
    LeaseLostError,
    RetryPolicy,
    TaskRegistry,
    TransactionUseError,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from express_tasks import CLAIM, LINES, patient, prove_all
from own_transactions import ADD, JOBS, make_sums, summed
from sessions import ADDED, session_of

from plugins.waiting import Eventually
from reading import rows, value

PROGRESS = "select count(*) from graphile_worker.backfill_progress"
DUE = "update graphile_worker._private_jobs set run_at = now() - interval '1 second'"
FAILED = "select count(*) from graphile_worker._private_jobs where last_error is not null and locked_by is null"
END_WINDOWS = """
    select count(pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and application_name like 'backfill express %'"""
BLOCKING = """
    create function graphile_worker.wait() returns trigger language plpgsql as $$
    begin
      perform pg_advisory_xact_lock(7);
      return new;
    end
    $$;
    create trigger wait before update on graphile_worker._private_jobs
      for each row execute function graphile_worker.wait()"""
BLOCKED = "select count(*) from pg_locks where not granted and locktype = 'advisory' and objid = 7"
HOUR = timedelta(hours=1)
LATER = RetryPolicy(9, HOUR, HOUR, 1.0, 0.0)
Context = WorkerContext[None]


@pytest.fixture(autouse=True)
def _proven(monkeypatch: pytest.MonkeyPatch) -> None:
    prove_all(monkeypatch)


@pytest.fixture
async def sums(dsn: str) -> str:
    """A database with the table of sums."""
    await make_sums(dsn)
    return dsn


async def _own(_: str, ctx: Context) -> Any:
    async with ctx.transaction() as tx:
        claim = await (await tx.connection.execute(CLAIM, [ctx.job.id])).fetchone()
        await tx.connection.execute(ADD, [5])
    return claim


async def _of_a_session(dsn: str, ctx: Context) -> Any:
    async with session_of(dsn, "psycopg") as session, ctx.transaction(session):
        [claim] = await rows(dsn, CLAIM, ctx.job.id)
        await session.execute(ADDED, {"number": 5})
    return claim


def _blocking(ctx: Context) -> Any:
    with ctx.transaction() as tx:
        claim = tx.connection.execute(CLAIM, [ctx.job.id]).fetchone()
        tx.connection.execute(ADD, [5])
    return claim


async def _in_a_thread(_: str, ctx: Context) -> Any:
    return await asyncio.to_thread(_blocking, ctx)


@pytest.mark.parametrize("within", [_own, _of_a_session, _in_a_thread])
async def test_a_transaction_of_the_handlers_own_begins_once_the_claim_is_in_the_row(
    sums: str, eventually: Eventually, within: Any
) -> None:
    """Its end completes the job by that claim, and the effect is there once."""
    tasks, seen = TaskRegistry[None](), []

    @tasks.task("add", express=True)
    async def add(_: int, ctx: Context) -> None:
        seen.extend(await rows(sums, CLAIM, ctx.job.id))
        seen.append(tuple(await within(sums, ctx)))
        seen.append(ctx.worker_id)

    async with BackfillClient(sums) as client, WorkerRunner(patient(sums), tasks):
        await eventually(lambda: value(sums, LINES), bool)
        await client.enqueue(add, 1)
        await eventually(lambda: value(sums, JOBS), lambda left: left == 0)
    worker = seen.pop()
    assert seen == [(None, 0), (worker, 1)]
    assert (await summed(sums), await value(sums, JOBS)) == (5, 0)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_session_that_sees_the_row_without_its_claim_is_refused(
    sums: str, eventually: Eventually, driver: str
) -> None:
    """At its level, it could not delete the row. A block that is opened before its first statement is not refused."""
    tasks, seen = TaskRegistry[None](), list[Any]()

    @tasks.task("add", express=True, retry=LATER)
    async def add(early: bool, ctx: Context) -> None:
        async with session_of(sums, driver, isolation_level="REPEATABLE READ") as session:
            if early:
                await session.execute(text("select 1"))
            try:
                async with ctx.transaction(session):
                    await session.execute(ADDED, {"number": 5})
            except TransactionUseError as error:
                seen.append(str(error))
                raise

    async with BackfillClient(sums) as client, WorkerRunner(patient(sums), tasks):
        await eventually(lambda: value(sums, LINES), bool)
        await client.enqueue(add, False)
        await eventually(lambda: value(sums, JOBS), lambda left: left == 0)
        assert (await summed(sums), seen) == (5, [])
        await client.enqueue(add, True)
        await eventually(lambda: value(sums, FAILED), lambda failed: failed == 1)
        assert await summed(sums) == 5
        assert ["express=True" in error for error in seen] == [True]
        await rows(sums, DUE)
        # The second attempt is an ordinary one.
        await eventually(lambda: value(sums, JOBS), lambda left: left == 0)
    assert (await summed(sums), len(seen)) == (10, 1)


@pytest.mark.parametrize("helped", [False, True])
async def test_a_handler_whose_window_breaks_begins_no_transaction(
    sums: str, eventually: Eventually, helped: bool
) -> None:
    """Its task is cancelled; a task that it has started for the transaction learns that the job is lost."""
    tasks, seen = TaskRegistry[None](), list[Any]()
    begun, go = asyncio.Event(), asyncio.Event()

    async def transact(ctx: Context) -> None:
        try:
            async with ctx.transaction() as tx:
                await tx.connection.execute(ADD, [5])
                seen.append("committed")
        except BaseException as error:
            seen.append(type(error))
            raise

    @tasks.task("add", express=True)
    async def add(_: int, ctx: Context) -> None:
        begun.set()
        await go.wait()
        helper = asyncio.ensure_future(transact(ctx)) if helped and not seen else transact(ctx)
        try:
            await (asyncio.shield(helper) if isinstance(helper, asyncio.Task) else helper)
        except asyncio.CancelledError:
            if isinstance(helper, asyncio.Task):
                await asyncio.wait([helper])
                helper.exception()
            raise

    await rows(sums, BLOCKING)
    async with (
        BackfillClient(sums) as client,
        await psycopg.AsyncConnection.connect(sums) as other,
        WorkerRunner(patient(sums), tasks),
    ):
        await eventually(lambda: value(sums, LINES), bool)
        job = await client.enqueue(add, 1)
        await begun.wait()
        await other.execute("select pg_advisory_xact_lock(7)")  # no claim enters a row
        go.set()
        await eventually(lambda: value(sums, BLOCKED), bool)
        await rows(sums, END_WINDOWS)
        await eventually(lambda: seen, bool)
        assert await rows(sums, CLAIM, job.id) == [(None, 0)]
        await other.rollback()
        await eventually(lambda: value(sums, JOBS), lambda left: left == 0)
    assert seen == [LeaseLostError if helped else asyncio.CancelledError, "committed"]
    assert await summed(sums) == 5


@pytest.mark.parametrize("thread", [False, True])
async def test_a_word_of_progress_asks_for_the_row(dsn: str, eventually: Eventually, thread: bool) -> None:
    """It is written as that of any other job is, while the handler runs."""
    tasks, go = TaskRegistry[None](), asyncio.Event()

    @tasks.task("long", express=True)
    async def step(_: int, ctx: Context) -> None:
        if thread:
            await asyncio.to_thread(ctx.set_progress, 1, 2)
            await asyncio.to_thread(ctx.checkpoint, "half")
        else:
            ctx.set_progress(1, 2)
            ctx.checkpoint("half")
        await go.wait()

    async with BackfillClient(dsn) as client, WorkerRunner(patient(dsn), tasks) as runner:
        await eventually(lambda: value(dsn, LINES), bool)
        job = await client.enqueue(step, 1)
        await eventually(lambda: rows(dsn, CLAIM, job.id), lambda found: found == [(runner.worker_id, 1)])
        said = await eventually(lambda: client.progress(job), lambda progress: progress is not None)
        assert (said.done, said.total, said.attempt) == (1, 2, 1)
        go.set()
        await eventually(lambda: value(dsn, JOBS), lambda left: left == 0)
    assert await value(dsn, PROGRESS) == 0


async def test_progress_of_a_job_that_ends_within_its_window(dsn: str, eventually: Eventually) -> None:
    """A job that completes leaves nothing; what one says that fails comes to its next attempt."""
    tasks, seen = TaskRegistry[None](), []

    @tasks.task("step", express=True, retry=None)
    async def step(fails: bool, ctx: Context) -> None:
        claims = await rows(dsn, CLAIM, ctx.job.id)
        seen.append((fails, ctx.attempt, ctx.checkpointed, claims[0][1]))
        ctx.set_progress(1)
        ctx.checkpoint("half")
        if fails and ctx.attempt == 1:
            raise ValueError("no")

    async with BackfillClient(dsn) as client, WorkerRunner(patient(dsn), tasks):
        await eventually(lambda: value(dsn, LINES), bool)
        await client.enqueue(step, False)
        await eventually(lambda: value(dsn, JOBS), lambda left: left == 0)
        assert await value(dsn, PROGRESS) == 0
        await client.enqueue(step, True)
        await eventually(lambda: value(dsn, FAILED), lambda failed: failed == 1)
        assert (await value(dsn, JOBS), await value(dsn, PROGRESS)) == (1, 1)
        await rows(dsn, DUE)
        await eventually(lambda: value(dsn, JOBS), lambda left: left == 0)
    assert seen == [(False, 1, None, 0), (True, 1, None, 0), (True, 2, "half", 2)]
    assert await value(dsn, PROGRESS) == 0


@pytest.mark.parametrize("by_itself", [False, True])
async def test_a_job_is_cancelled_while_its_window_holds_it(dsn: str, eventually: Eventually, by_itself: bool) -> None:
    """The request waits for the window to end, and then stands in the row, where the worker finds it."""
    tasks, seen = TaskRegistry[None](), []

    @tasks.task("long", express=True)
    async def long(_: int, ctx: Context) -> None:
        seen.append(ctx.attempt)
        try:
            if by_itself:
                seen.append((await ctx.client.cancel(ctx.job)).status)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(ctx.cancelled_by is not None)
            raise

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), tasks):
        await eventually(lambda: value(dsn, LINES), bool)
        job = await client.enqueue(long, 1)
        await eventually(lambda: seen, bool)
        if not by_itself:
            seen.append((await client.cancel(job)).status)
        await eventually(lambda: value(dsn, JOBS), lambda left: left == 0)
    # The worker may hear of the request before the handler that made it has its answer.
    assert seen == [1, CancelStatus.REQUESTED, True] or (by_itself and seen == [1, True])
