"""`ctx.transaction(session)`: a job is completed in the transaction of its handler's own session of SQLAlchemy."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from backfill import BackfillClient, EndHow, Queue, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.testing import run_job
from own_transactions import ADD, make_sums, run_due, summed
from sessions import KINDS, Adding, session_of, sync_session_of

from plugins.waiting import Eventually
from reading import rows, value

JOBS = "select task_identifier, attempts from graphile_worker.jobs order by id"
ERRORS = "select last_error from graphile_worker.jobs where task_identifier = 'add'"
MINE = text("insert into mine values (1)")
LOCK = "update graphile_worker._private_jobs set locked_by = 'other' where locked_by is not null"
KILL = text("select pg_terminate_backend(pg_backend_pid())")


@pytest.fixture
async def sums(dsn: str) -> str:
    """A database with the table of sums, and a table of the handler's own."""
    await make_sums(dsn)
    await rows(dsn, "create table mine (id int unique deferrable initially deferred)")
    return dsn


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Where the handler runs, and its driver."""
    return str(request.param)


async def run(dsn: str, adding: Adding, times: int = 1, **enqueued: Any) -> None:
    """Enqueue the task, and run it so often."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("add", 5, **enqueued)
    await run_due(dsn, adding.tasks, times)


@pytest.mark.parametrize("connection", [False, True])
async def test_effect_and_completion_are_one(sums: str, kind: str, connection: bool) -> None:
    """The sum and the next job are written, the job is gone, its queue is free, and its end is kept with the result."""
    adding = Adding(sums, kind, connection, options={"keep": timedelta(hours=1)})
    await run(sums, adding, queue=Queue.serial("one"), job_key="key", flags=["flag"])
    async with BackfillClient(sums) as client:
        [end] = (await client.ends()).ends
        assert await client.result(end.job_id) == {"added": 5}
    assert (end.how, await summed(sums), adding.runs) == (EndHow.COMPLETED, 5, [1])
    assert await rows(sums, JOBS) == [("more", 0)]
    assert (
        await value(sums, "select count(*) from graphile_worker._private_job_queues where locked_by is not null") == 0
    )


async def test_an_error_rolls_back(sums: str, kind: str) -> None:
    """Also what the session wrote before the block; the next attempt does it once."""

    def fail(_: Any) -> None:
        if len(adding.runs) < 3:
            raise ValueError("not yet")

    adding = Adding(sums, kind, within=fail, before=lambda session: session.execute(MINE))
    await run(sums, adding, 3)
    assert (adding.runs, await summed(sums), await value(sums, "select count(*) from mine")) == ([1, 2, 3], 5, 1)
    assert await rows(sums, JOBS) == [("more", 0)]


async def test_a_savepoint_is_undone_alone(sums: str, kind: str) -> None:
    """What failed in it is not there, and the job is completed."""

    def part(session: Any) -> None:
        with suppress(DBAPIError), session.begin_nested():
            session.execute(MINE)
            session.execute(text("select 1/0"))

    await run(sums, Adding(sums, kind, within=part))
    assert (await summed(sums), await value(sums, "select count(*) from mine")) == (5, 0)
    assert await rows(sums, JOBS) == [("more", 0)]


async def test_a_transaction_of_the_sessions_own_goes_on(sums: str, kind: str) -> None:
    """A session with `begin()` around the block commits at the end of the block, and once."""
    adding = Adding(sums, kind, before=lambda session: session.begin())
    await run(sums, adding)
    assert (await summed(sums), await rows(sums, JOBS)) == (5, [("more", 0)])


async def test_a_lost_lease_rolls_back(sums: str, kind: str) -> None:
    """The job was given to another worker meanwhile: nothing of the block is there, and the job is as it was."""

    def lose(session: Any) -> None:
        thread = threading.Thread(target=lambda: asyncio.run(rows(sums, LOCK)))
        thread.start()
        thread.join()

    await run(sums, Adding(sums, kind, within=lose))
    assert await summed(sums) == 0
    assert await rows(sums, "select task_identifier, attempts, locked_by from graphile_worker.jobs") == [
        ("add", 1, "other")
    ]


async def test_a_killed_backend_writes_nothing(sums: str, kind: str) -> None:
    """Whether or not the handler catches the driver's error; the next attempt does it once."""

    def kill(session: Any) -> None:
        if len(adding.runs) < 3:
            with suppress(*([DBAPIError] if len(adding.runs) == 2 else [])):
                session.execute(KILL)

    adding = Adding(sums, kind, within=kill)
    await run(sums, adding, 2)
    assert (await summed(sums), await rows(sums, JOBS)) == (0, [("add", 2)])
    assert "nothing" in await value(sums, ERRORS)
    await run_due(sums, adding.tasks)
    assert (adding.runs, await summed(sums)) == ([1, 2, 3], 5)


async def test_what_the_server_refuses_at_the_commit_is_rolled_back(sums: str, kind: str) -> None:
    """A deferred constraint fails there: the attempt fails by the library's error."""

    def twice(session: Any) -> None:
        session.execute(MINE)
        if len(adding.runs) == 1:
            session.execute(MINE)

    adding = Adding(sums, kind, within=twice)
    await run(sums, adding)
    assert (await summed(sums), await rows(sums, JOBS)) == (0, [("add", 1)])
    assert "mine_id_key" in await value(sums, ERRORS)
    await run_due(sums, adding.tasks)
    assert (await summed(sums), await rows(sums, JOBS)) == (5, [("more", 0)])


def _caught(session: Any) -> None:
    with suppress(DBAPIError):
        session.execute(text("select 1/0"))


MISUSES = {
    "caught": _caught,
    "committed": lambda session: session.commit(),
    "committed and written": lambda session: (session.commit(), session.execute(MINE)),
    "rolled back": lambda session: session.rollback(),
    "committed by text": lambda session: (session.execute(text("commit")), session.execute(text("begin"))),
}


async def test_a_broken_transaction_completes_nothing(sums: str, kind: str) -> None:
    """The job stays, and its attempt fails by an error that says what to do."""
    for misuse, within in MISUSES.items():
        await run(sums, Adding(sums, kind, within=within))
        assert "TransactionUseError" in await value(sums, ERRORS), misuse
        assert "begin_nested()" in await value(sums, ERRORS), misuse
        await rows(sums, "delete from graphile_worker._private_jobs where id in (select id from graphile_worker.jobs)")


async def test_an_unfit_session_is_refused(sums: str, kind: str) -> None:
    """Before the block's code runs."""
    nested = Adding(sums, kind, before=lambda session: session.begin_nested())
    alone = Adding(sums, kind, engine={"isolation_level": "AUTOCOMMIT"})
    for adding, said in ((nested, "within a savepoint"), (alone, "autocommit")):
        await run(sums, adding)
        assert said in await value(sums, f"{ERRORS} order by id desc limit 1")
    assert await summed(sums) == 0


async def test_above_read_committed_the_lock_is_left_alone(sums: str, kind: str) -> None:
    """A session at `repeatable read` completes its job as well."""
    await run(sums, Adding(sums, kind, engine={"isolation_level": "REPEATABLE READ"}))
    assert (await summed(sums), await rows(sums, JOBS)) == (5, [("more", 0)])


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_stop_rolls_back(sums: str, driver: str, eventually: Eventually) -> None:
    """The handler is cancelled in its block, and the job goes back with its attempt."""
    began, tasks = asyncio.Event(), TaskRegistry[None]()

    @tasks.task("add")
    async def add(number: int, ctx: WorkerContext[None]) -> None:
        async with session_of(sums, driver) as session, ctx.transaction(session):
            await session.execute(text(ADD.replace("%s", str(number))))
            began.set()
            await asyncio.Event().wait()

    config = WorkerConfig(sums, shutdown_timeout=timedelta(milliseconds=50))
    async with BackfillClient(sums) as client, WorkerRunner(config, tasks):
        await client.enqueue("add", 5)
        await began.wait()
    assert (await summed(sums), await rows(sums, JOBS)) == (0, [("add", 0)])


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_block_that_is_left_open_is_rolled_back(sums: str, driver: str) -> None:
    """Its connection is closed, since nobody will end the block."""
    tasks = TaskRegistry[None]()

    async with session_of(sums, driver) as session:

        @tasks.task("add")
        async def add(number: int, ctx: WorkerContext[None]) -> None:
            await ctx.transaction(session).__aenter__()
            await session.execute(text(ADD.replace("%s", str(number))))

        async with BackfillClient(sums) as client:
            await client.enqueue("add", 5)
        await run_due(sums, tasks)
        assert (await summed(sums), await rows(sums, JOBS)) == (0, [("add", 1)])
        assert "the block was rolled back" in await value(sums, ERRORS)


async def test_what_fails_behind_the_commit_changes_nothing(sums: str, kind: str) -> None:
    """A listener of the session's own raises after the commit: the job is completed, and does not run again."""
    from sqlalchemy import event

    def listen(session: Any) -> None:
        def raises(_: Any) -> None:
            raise ValueError("behind")

        event.listen(session, "after_commit", raises)

    adding = Adding(sums, kind, within=listen)
    await run(sums, adding, 2)
    assert (adding.runs, await summed(sums), await rows(sums, JOBS)) == ([1], 5, [("more", 0)])


async def test_a_commit_that_the_server_turns_into_a_rollback(sums: str, kind: str) -> None:
    """A listener breaks the transaction before the commit, of which no error tells: the worker looks, and it fails."""
    from sqlalchemy import event

    def listen(session: Any) -> None:
        if len(adding.runs) < 3:
            event.listen(session, "before_commit", _caught if len(adding.runs) == 1 else lambda _: None)

    adding = Adding(sums, kind, within=listen)
    await run(sums, adding)
    assert (await summed(sums), await rows(sums, JOBS)) == (0, [("add", 1)])
    assert "a listener of the session's commit has broken" in await value(sums, ERRORS)
    await run_due(sums, adding.tasks)
    assert (adding.runs, await summed(sums), await rows(sums, JOBS)) == ([1, 2], 5, [("more", 0)])


async def test_a_session_on_a_connection_is_refused(sums: str) -> None:
    """Its commit may leave the connection's transaction open, so the job would not be completed by it."""
    tasks = TaskRegistry[None]()

    @tasks.task("add")
    async def add(number: int, ctx: WorkerContext[None]) -> None:
        async with (
            session_of(sums, "asyncpg", AsyncConnection) as connection,
            connection.begin(),
            AsyncSession(connection) as session,
            ctx.transaction(session),
        ):
            raise AssertionError

    async with BackfillClient(sums) as client:
        await client.enqueue("add", 5)
    await run_due(sums, tasks)
    assert "bound to a connection" in await value(sums, ERRORS)


async def test_other_objects_are_refused_by_name(sums: str) -> None:
    """Sessions of the other kind, what makes sessions, and other libraries' connections."""
    tasks, told = TaskRegistry[None](), list[str]()

    @tasks.task("refused")
    async def refused(ctx: WorkerContext[None]) -> None:
        with sync_session_of(sums, "psycopg") as other:
            for given in (other, other.get_bind(), object(), (await _engine(sums))):
                with pytest.raises(BaseException, match=r"ctx\.transaction") as raised:
                    async with ctx.transaction(given):
                        raise AssertionError
                told.append(str(raised.value))

    async with BackfillClient(sums) as client:
        await client.enqueue("refused")
    await run_due(sums, tasks)
    assert "Session is of the other kind: an async handler needs an AsyncSession or AsyncConnection" in told[0]
    assert "Engine is of the other kind" in told[1]
    assert "expected an AsyncSession or AsyncConnection of SQLAlchemy, got builtins.object" in told[2]
    assert "it takes an AsyncSession or AsyncConnection" in told[3]
    assert await rows(sums, JOBS) == []


async def _engine(dsn: str) -> Any:
    async with session_of(dsn, "psycopg") as session:
        return session.bind


async def test_run_job_commits_the_session(sums: str, kind: str) -> None:
    """There is no job to complete; the result is what `tx.complete` was given."""
    adding = Adding(sums, kind)
    async with BackfillClient(sums) as client:
        task = adding.tasks.get("add")
        assert task is not None
        assert await run_job(task, 5, client=client) == {"added": 5}
    assert (await summed(sums), await rows(sums, JOBS)) == (5, [("more", 0)])
