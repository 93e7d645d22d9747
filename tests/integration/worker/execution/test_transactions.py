"""`ctx.transaction()`: a handler's writes and its job's completion are committed as one, or not at all."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from backfill import (
    BackfillClient,
    BackfillError,
    EndHow,
    JobComplete,
    LeaseLostError,
    Queue,
    TaskRegistry,
    TransactionUseError,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from own_transactions import ADD, JOBS, ONE_LEFT, Adding, make_sums, run_due, summed

from plugins.pooler import MakePooler
from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

HOUR = timedelta(hours=1)
KINDS = pytest.mark.parametrize("kind", ["async", "thread"])


@pytest.fixture
async def sums(dsn: str) -> str:
    """A database with the table of sums."""
    await make_sums(dsn)
    return dsn


class Heard:
    """A plugin that notes which jobs completed."""

    def __init__(self) -> None:
        self.completed: list[int] = []

    def register(self, hooks: Any) -> None:
        """Hear of completed jobs."""
        hooks.on(JobComplete, lambda event: self.completed.append(event.job.id))


@KINDS
async def test_effect_and_completion_are_one(sums: str, kind: str) -> None:
    """The sum is written, the job is gone, its end is kept with the result, and all that is told is told."""
    adding, heard = Adding(options={"keep": HOUR}), Heard()
    async with BackfillClient(sums) as client:
        job = await client.enqueue(kind, 5)
        waiting = asyncio.ensure_future(client.result(job, timeout=timedelta(seconds=30)))
        runner = WorkerRunner(WorkerConfig(sums), adding.tasks, plugins=[heard])
        assert await runner.process_available_jobs() == 1
        assert await waiting == {"added": 5}
        [end] = (await client.ends()).ends
        counts = await client.counters()
    assert (end.how, end.attempts, await summed(sums), await value(sums, JOBS)) == (EndHow.COMPLETED, 1, 5, 0)
    assert heard.completed == [job.id]
    assert [(one.task, one.done, one.failed) for one in counts] == [(kind, 1, 0)]


@KINDS
async def test_an_error_rolls_back(sums: str, kind: str) -> None:
    """An attempt that fails within the block has written nothing, and the next one does it once."""

    def fail(ctx: WorkerContext[Any]) -> None:
        if ctx.attempt < 3:
            raise ValueError("not yet")

    adding = Adding(within=fail)
    async with BackfillClient(sums) as client:
        await client.enqueue(kind, 5)
        await run_due(sums, adding.tasks, 2)
        assert await summed(sums) == 0
        [[attempts, free, error]] = await rows(sums, ONE_LEFT)
        assert (attempts, free) == (2, True)
        assert error.startswith("ValueError: not yet")
        await run_due(sums, adding.tasks)
    assert (adding.runs, await summed(sums), await value(sums, JOBS)) == ([1, 2, 3], 5, 0)


@KINDS
async def test_what_is_raised_behind_the_block_is_only_logged(
    sums: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is completed; it is neither tried again nor counted as failed."""

    def fail(_: WorkerContext[Any]) -> None:
        raise ValueError("too late")

    adding = Adding(after=fail)
    async with BackfillClient(sums) as client:
        await client.enqueue(kind, 5)
        await run_due(sums, adding.tasks, 2)
        [counts] = await client.counters()
    assert (adding.runs, await summed(sums), await value(sums, JOBS)) == ([1], 5, 0)
    assert (counts.done, counts.failed) == (1, 0)
    [record] = [record for record in caplog.records if "its handler raised after that" in record.getMessage()]
    assert record.levelno == logging.ERROR
    assert record.exc_info


@KINDS
async def test_a_job_that_was_unlocked_is_not_completed(sums: str, kind: str) -> None:
    """LeaseLostError, and nothing is written; the attempt that has the job then does it."""
    raised: list[BaseException] = []
    dsn = sums

    def unlock(ctx: WorkerContext[Any]) -> None:
        if ctx.attempt == 1:
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute("select graphile_worker.force_unlock_workers(array[%s])", [ctx.worker_id])

    adding = Adding(within=unlock)
    tasks = adding.tasks

    @tasks.task("catching")
    async def catching(number: int, ctx: WorkerContext[None]) -> None:
        try:
            async with ctx.transaction() as tx:
                await tx.connection.execute(ADD, [number])
                unlock(ctx)
        except BackfillError as error:
            raised.append(error)

    async with BackfillClient(sums) as client:
        await client.enqueue(kind, 5)
        await client.enqueue("catching", 7)
        await run_due(sums, tasks)
        assert await summed(sums) in (0, 5, 7, 12)  # the same worker may have claimed them again by now
        await run_due(sums, tasks)
    assert {type(error) for error in raised} == {LeaseLostError}  # the other job's handler unlocks this one, too
    assert (await summed(sums), await value(sums, JOBS)) == (12, 0)


@KINDS
async def test_a_serial_queue_is_free_again(sums: str, kind: str) -> None:
    """The next job of the queue runs at once."""
    adding = Adding()
    async with BackfillClient(sums) as client:
        for number in range(1, 6):
            await client.enqueue(kind, number, queue=Queue.serial("one"))
        await run_due(sums, adding.tasks)
    assert (await summed(sums), await value(sums, JOBS)) == (15, 0)
    assert await value(sums, "select count(locked_by) from graphile_worker._private_job_queues") == 0


async def test_a_queue_that_waits_for_a_retry_is_free_again(sums: str) -> None:
    """Its job has failed once, and completes in its own transaction the next time."""

    def fail(ctx: WorkerContext[Any]) -> None:
        if ctx.attempt == 1:
            raise ValueError("the first time it fails")

    adding, queue = Adding(within=fail), Queue.serial("one", block_on_retry=True)
    async with BackfillClient(sums) as client:
        await client.enqueue("async", 5, queue=queue)
        await run_due(sums, adding.tasks)
        assert len(await client.held_queues()) == 1
        await run_due(sums, adding.tasks)
        assert await client.held_queues() == []
    assert (await summed(sums), await value(sums, JOBS)) == (5, 0)
    assert await value(sums, "select count(locked_by) from graphile_worker._private_job_queues") == 0


async def test_a_paused_queue_stays_paused(sums: str, eventually: Eventually) -> None:
    """It is paused while its job runs: the completion frees it for nobody."""
    adding, tasks = Adding(), TaskRegistry[None]()
    began, paused = asyncio.Event(), asyncio.Event()

    @tasks.task("first")
    async def first(ctx: WorkerContext[None]) -> None:
        began.set()
        await paused.wait()
        async with ctx.transaction() as tx:
            await tx.connection.execute(ADD, [1])

    tasks.include(adding.tasks)
    async with BackfillClient(sums) as client:
        await client.enqueue("first", queue=Queue.serial("one"))
        await client.enqueue("async", 5, queue=Queue.serial("one"))
        async with WorkerRunner(WorkerConfig(sums), tasks) as runner:
            await began.wait()
            await client.pause(queue="one")
            await eventually(lambda: bool(runner._parts.one.executor.paused_queues))
            paused.set()
            await eventually(lambda: summed(sums), lambda total: total == 1)
    assert (await summed(sums), await value(sums, JOBS)) == (1, 1)
    held = "select locked_by from graphile_worker._private_job_queues"
    assert await value(sums, held) is not None  # the lock of the pause


async def test_dead_letters_of_the_key_are_forgotten(sums: str) -> None:
    """An earlier job of the key became a dead letter; this one has done the work."""
    adding, fails = Adding(), [True]
    tasks = adding.tasks

    @tasks.task("keyed")
    async def keyed(ctx: WorkerContext[None]) -> None:
        if fails:
            raise ValueError("fails")
        async with ctx.transaction() as tx:
            await tx.connection.execute(ADD, [1])

    async with BackfillClient(sums) as client:
        await client.enqueue("keyed", job_key="k", max_attempts=1)
        await run_due(sums, tasks)
        assert (await client.dlq_stats()).total_jobs == 1
        fails.clear()
        await client.enqueue("keyed", job_key="k")
        await run_due(sums, tasks)
        assert (await client.dlq_stats()).total_jobs == 0
    assert await summed(sums) == 1


async def test_a_replaced_job_completes(sums: str) -> None:
    """It was replaced by its key while it ran: its effect counts, and so does that of the new one."""
    adding = Adding()
    tasks, client = adding.tasks, BackfillClient(sums)

    @tasks.task("keyed")
    async def keyed(number: int, ctx: WorkerContext[None]) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute(ADD, [number])
            if number == 1:
                await client.enqueue("keyed", 10, job_key="k")

    async with client:
        await client.enqueue("keyed", 1, job_key="k")
        await run_due(sums, tasks)
    assert (await summed(sums), await value(sums, JOBS)) == (11, 0)


async def test_jobs_are_enqueued_in_it(sums: str) -> None:
    """They are there where the completion is: with tasks, names and keys, in coroutines and in threads."""
    tasks, ran = TaskRegistry[None](), list[Any]()

    @tasks.task("after")
    async def after(number: int) -> None:
        ran.append(number)

    @tasks.task("async")
    async def first(ctx: WorkerContext[None]) -> None:
        async with ctx.transaction() as tx:
            await tx.enqueue(after, 1)
            await tx.enqueue("after", 2, job_key="k")
            await tx.enqueue("after", 3, job_key="k", queue=Queue.serial("new"))
            if ctx.attempt == 1:
                raise ValueError("rolled back")

    @tasks.task("thread")
    def second(ctx: WorkerContext[None]) -> None:
        with ctx.transaction() as tx:
            assert tx.enqueue(after, 10).job.task_identifier == "after"
            tx.enqueue("after", 20, job_key="t")
            tx.enqueue("after", 30, job_key="t", queue=Queue.serial("newer"))
            if ctx.attempt == 1:
                raise ValueError("rolled back")

    async with BackfillClient(sums) as client:
        await client.enqueue(first)
        await client.enqueue(second)
        await run_due(sums, tasks)
        assert ran == []
        await run_due(sums, tasks)
    assert sorted(ran) == [1, 3, 10, 30]


async def test_misuse_is_refused(sums: str) -> None:
    """Each error says what to do instead, and nothing is committed by it."""
    tasks, said = TaskRegistry[None](), list[str]()

    @tasks.task("odd")
    async def odd(how: str, ctx: WorkerContext[None]) -> None:
        try:
            async with ctx.transaction() as tx:
                await tx.connection.execute(ADD, [1])
                connection = tx.connection
                if how == "nested":
                    async with ctx.transaction():
                        pass
                elif how == "complete twice":
                    tx.complete()
                    tx.complete()
                elif how == "use after complete":
                    tx.complete()
                    await tx.enqueue("odd", "later")
                elif how == "caught":
                    with pytest.raises(psycopg.Error):
                        await connection.execute("select 1 / 0")
                elif how == "rolled back":
                    await connection.execute("rollback")
                elif how == "commit":
                    with pytest.raises(psycopg.ProgrammingError):
                        await connection.commit()
                    raise TransactionUseError("the driver refuses a commit")
                elif how == "with":
                    with ctx.transaction():
                        pass
        except TransactionUseError as error:
            said.append(f"{how}: {error}")
            raise

    hows = ["nested", "complete twice", "use after complete", "caught", "rolled back", "commit", "with"]
    async with BackfillClient(sums) as client:
        for how in hows:
            await client.enqueue("odd", how, max_attempts=1)
        await run_due(sums, tasks)
        assert (await client.dlq_stats()).total_jobs == len(hows)
    assert sorted(line.partition(":")[0] for line in said) == sorted(hows)
    assert await summed(sums) == 0


async def test_one_block_completes_the_job(sums: str) -> None:
    """After a block that failed there may be another one; after one that completed the job there is none."""
    tasks, said = TaskRegistry[None](), list[str]()

    @tasks.task("twice")
    async def twice(ctx: WorkerContext[None]) -> None:
        with suppress(ZeroDivisionError):
            async with ctx.transaction() as tx:
                await tx.connection.execute(ADD, [1 // 0])
        async with ctx.transaction() as tx:
            await tx.connection.execute(ADD, [1])
        with pytest.raises(TransactionUseError) as refused:
            tx.connection  # noqa: B018 - it is the property that raises
        said.append(str(refused.value))
        with pytest.raises(TransactionUseError, match="completed"):
            await ctx.transaction().__aenter__()

    async with BackfillClient(sums) as client:
        await client.enqueue("twice")
        await run_due(sums, tasks)
    assert said == ["tx: the block of ctx.transaction() is over"]
    assert (await summed(sums), await value(sums, JOBS)) == (1, 0)


@KINDS
async def test_behind_a_pooler(sums: str, kind: str, make_pooler: MakePooler) -> None:
    """In transaction mode, with fewer sessions than there are blocks at a time."""
    adding, through = Adding(), make_pooler(sums)
    async with BackfillClient(sums) as client:
        await client.enqueue_bulk(kind, [1] * 30)
    config = WorkerConfig(through, listen=False, poll_interval=timedelta(milliseconds=100))
    async with asyncio.timeout(60):
        await WorkerRunner(config, adding.tasks).process_available_jobs()
    assert (await summed(sums), await value(sums, JOBS)) == (30, 0)


@KINDS
async def test_a_role_that_the_handler_sets_need_not_complete_jobs(sums: str, role: NewRole, kind: str) -> None:
    """It writes with that role's rights, and the job is completed with the worker's."""
    theirs = sql.Identifier(conninfo_to_dict(role(None))["user"])
    become = sql.SQL("set local role {}").format(theirs)
    with psycopg.connect(sums, autocommit=True) as connection:
        connection.execute(sql.SQL("grant select, update on sums to {}").format(theirs))
    tasks = TaskRegistry[None]()

    @tasks.task("async")
    async def add(ctx: WorkerContext[None]) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute(become)
            await tx.connection.execute(ADD, [3])

    @tasks.task("thread")
    def add_in_thread(ctx: WorkerContext[None]) -> None:
        with ctx.transaction() as tx:
            tx.connection.execute(become)
            tx.connection.execute(ADD, [3])

    async with BackfillClient(sums) as client:
        await client.enqueue(kind)
        await run_due(sums, tasks)
    assert (await summed(sums), await value(sums, JOBS)) == (3, 0)
