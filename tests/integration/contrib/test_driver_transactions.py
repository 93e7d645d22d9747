"""Jobs in transactions that another library began: they are there if, and only if, the transaction commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import asyncpg
import psycopg
import pytest

from backfill import (
    BackfillClient,
    BulkEnqueueError,
    CancelStatus,
    ConfigurationError,
    JobKeyMode,
    JobSpec,
    NewJob,
    Queue,
)
from backfill.jobs import EnqueueStatus
from drivers_hosts import (
    COMMITTING,
    HOSTS,
    MINE,
    OWN_ERRORS,
    POOLS,
    TABLE,
    WRONG,
    Host,
    SessionHost,
    asyncpg_keywords,
    url_of,
)

from reading import rows, value

Verb = Callable[[BackfillClient, Any], Awaitable[Any]]
COUNT = "select count(*) from graphile_worker.jobs"
PRIORITIES = "select key, priority from graphile_worker.jobs order by id"
BOTH = "select (select count(*) from mine), (select count(*) from graphile_worker.jobs)"
VERBS: dict[str, Verb] = {
    "plain": lambda client, conn: client.enqueue("t", {"a": 1}, connection=conn),
    "keyed": lambda client, conn: client.enqueue("t", {"a": 1}, job_key="k", connection=conn),
    "serial": lambda client, conn: client.enqueue("t", {"a": 1}, queue=Queue.serial("q"), connection=conn),
    "bulk": lambda client, conn: client.enqueue_bulk("t", [{"a": 1}], connection=conn),
    "bulk_keyed": lambda client, conn: client.enqueue_bulk(
        (NewJob("t", {}, JobSpec(job_key=k)) for k in ["a"]), connection=conn
    ),
}
# Its DSN leads nowhere: with a connection given, the client opens none of its own.
CLIENT = BackfillClient("host=127.0.0.1 port=1")


class UndoneError(Exception):
    """What a program raises to undo its transaction."""


@pytest.fixture(params=HOSTS, ids=lambda kind: kind.__name__)
async def host(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Host]:
    """A program with each driver, and a table of its own."""
    await rows(dsn, TABLE)
    async with request.param.opened(dsn) as host:
        yield host


@pytest.fixture(params=VERBS)
def verb(request: pytest.FixtureRequest) -> Verb:
    """Each way to add one job."""
    return VERBS[request.param]


async def test_the_job_commits_and_rolls_back_with_the_program(dsn: str, host: Host, verb: Verb) -> None:
    """Before the commit nobody sees it; a rollback leaves nothing, also where the job was the first statement."""
    with suppress(UndoneError):
        async with host.transaction():
            await verb(CLIENT, host.given)
            await host.execute(MINE)
            raise UndoneError
    assert await rows(dsn, BOTH) == [(0, 0)]
    async with host.transaction():
        await host.execute(MINE)
        await verb(CLIENT, host.given)
        assert await rows(dsn, BOTH) == [(0, 0)]
    assert await rows(dsn, BOTH) == [(1, 1)]


async def test_a_savepoint_takes_its_jobs_with_it(dsn: str, host: Host, verb: Verb) -> None:
    """What was added before it and after it stays."""
    async with host.transaction():
        await CLIENT.enqueue("before", connection=host.given)
        with suppress(UndoneError):
            async with host.savepoint():
                await verb(CLIENT, host.given)
                raise UndoneError
        await CLIENT.enqueue("after", connection=host.given)
    assert await rows(dsn, "select task_identifier from graphile_worker.jobs order by id") == [("before",), ("after",)]


async def test_workers_are_told_at_the_commit(dsn: str, host: Host, verb: Verb) -> None:
    """The notification is part of the transaction."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listener:
        await listener.execute('listen "jobs:insert"')
        async with host.transaction():
            await verb(CLIENT, host.given)
            assert [told async for told in listener.notifies(timeout=0)] == []
        assert [told.channel async for told in listener.notifies(timeout=20, stop_after=1)] == ["jobs:insert"]


async def test_bulk_of_several_chunks(dsn: str, host: Host) -> None:
    """Rows without keys go by COPY; ids come in order; new names and keys are no obstacle; a bad item undoes all."""
    async with host.transaction():
        outcome = await CLIENT.enqueue_bulk(
            (NewJob(f"t{n % 3}", n) for n in range(4500)), return_ids=True, connection=host.given
        )
        mixed = [NewJob("m", n, JobSpec(job_key=f"k{n % 7}" if n % 2 else None)) for n in range(50)]
        await CLIENT.enqueue_bulk(mixed, connection=host.given)
        bad = [NewJob("bad", n if n < 2100 else object()) for n in range(2101)]
        with pytest.raises(BulkEnqueueError):
            await CLIENT.enqueue_bulk(bad, connection=host.given)
    assert (outcome.written, await value(dsn, COUNT)) == (4500, 4500 + 25 + 7)
    assert outcome.ids == [
        row[0]
        for row in await rows(dsn, "select id from graphile_worker.jobs where task_identifier ~ '^t' order by id")
    ]


async def test_an_error_of_the_server_fails_the_transaction(dsn: str, host: Host) -> None:
    """The driver's own error comes out, without the row that the server quotes; the program rolls back and goes on."""
    await rows(dsn, "alter table graphile_worker._private_jobs add constraint none check (priority <> 13)")
    async with host.transaction():
        await CLIENT.enqueue("kept", connection=host.given)
        with pytest.raises(host.errors, match="none") as caught:
            async with host.savepoint():
                await CLIENT.enqueue("t", {"card": "secret"}, priority=13, connection=host.given)
        assert "secret" not in str(caught.value)
    with suppress(*OWN_ERRORS):
        async with host.transaction():
            await CLIENT.enqueue("lost", connection=host.given)
            await host.execute(WRONG)
    assert await rows(dsn, "select task_identifier from graphile_worker.jobs") == [("kept",)]


async def test_outcomes_are_whole(dsn: str, host: Host) -> None:
    """What a verb returns is the same through every driver, whatever codecs the program has set."""
    payload = {"text": 'a "quoted"\\ \u00e9\u2603\n%s $1', "big": 2**60, "list": [1.5, None, True]}
    at = datetime(2044, 2, 29, 12, 30, 15, 123456, UTC)
    async with host.transaction():
        added = await CLIENT.enqueue("t", payload, run_at=at, job_key="k", flags=["a b"], connection=host.given)
        kept = await CLIENT.enqueue(
            "other", {}, job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE, connection=host.given
        )
    assert (added.status, kept.status) == (EnqueueStatus.ADDED, EnqueueStatus.KEPT)
    assert added.job.payload == kept.job.payload == payload
    assert (added.job.run_at, added.job.key, added.job.id) == (at, "k", kept.job.id)
    async with host.transaction():
        removed = await CLIENT.remove_job("k", connection=host.given)
    assert removed is not None
    assert await value(dsn, COUNT) == 0


async def test_jobs_are_changed_in_it(dsn: str, host: Host) -> None:
    """Cancelling, removing, rescheduling and completing: after a rollback the jobs are as before, also by savepoint."""
    async with host.transaction():
        jobs = [await CLIENT.enqueue(f"t{n}", {}, job_key=f"k{n}", connection=host.given) for n in range(5)]

    async def change() -> None:
        cancelled = await CLIENT.cancel(jobs[0].id, reason="no more", connection=host.given)
        removed = await CLIENT.remove_job("k1", connection=host.given)
        [moved] = await CLIENT.reschedule_jobs([jobs[2].id], priority=7, connection=host.given)
        [completed] = await CLIENT.complete_jobs([jobs[3].id], connection=host.given)
        assert removed is not None
        assert (cancelled.status, removed.id) == (CancelStatus.REMOVED, jobs[1].id)
        assert (moved.priority, completed.id) == (7, jobs[3].id)

    async with host.transaction():
        with suppress(UndoneError):
            async with host.savepoint():
                await change()
                raise UndoneError
    with suppress(UndoneError):
        async with host.transaction():
            await change()
            raise UndoneError
    assert await rows(dsn, PRIORITIES) == [("k0", 0), ("k1", 0), ("k2", 0), ("k3", 0), ("k4", 0)]
    async with host.transaction():
        await change()
        assert await value(dsn, COUNT) == 5
    assert await rows(dsn, PRIORITIES) == [("k2", 7), ("k4", 0)]
    assert await rows(dsn, "select job_id, how from graphile_worker.backfill_ends") == [(jobs[0].id, "cancelled")]


@pytest.mark.parametrize("pool", POOLS)
async def test_of_a_pool_each_call_has_a_transaction(dsn: str, verb: Verb, pool: Any) -> None:
    """It is committed when the call returns, and the connection is the pool's again."""
    async with pool(dsn) as given:
        await verb(CLIENT, given)
        assert await value(dsn, COUNT) == 1
        await CLIENT.enqueue("again", connection=given)
        assert await value(dsn, COUNT) == 2


@pytest.mark.parametrize("kind", HOSTS[:3])
async def test_without_a_transaction_each_call_commits(dsn: str, verb: Verb, kind: type[Host]) -> None:
    """As a statement of the program's own does."""
    async with kind.opened(dsn) as host:
        await verb(CLIENT, host.given)
        assert await value(dsn, COUNT) == 1


@pytest.mark.parametrize("kind", COMMITTING)
async def test_sqlalchemy_begins_with_the_first_statement(dsn: str, verb: Verb, kind: type[SessionHost]) -> None:
    """The job is such a statement: it waits for `commit()`, and `rollback()` undoes it."""
    async with kind.opened(dsn) as host:
        await verb(CLIENT, host.given)
        await host.given.rollback()
        assert await value(dsn, COUNT) == 0
        await verb(CLIENT, host.given)
        assert await value(dsn, COUNT) == 0
        await host.given.commit()
        assert await value(dsn, COUNT) == 1


async def test_what_is_no_connection_is_refused_by_name(dsn: str) -> None:
    """Objects of these libraries that are no connections, and those of their synchronous halves."""
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import async_sessionmaker

    engine = create_engine(url_of(dsn, "psycopg"))
    with pytest.raises(ConfigurationError, match=r"^connection: sqlalchemy\S+Engine is synchronous.+sync\.Client$"):
        await CLIENT.enqueue("t", connection=engine)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match=r"async_sessionmaker makes sessions: pass one of them$"):
        await CLIENT.enqueue("t", connection=async_sessionmaker())  # type: ignore[call-overload]


async def test_bulk_payloads_in_another_encoding(dsn: str) -> None:
    """A session of asyncpg's that speaks LATIN1 would read a COPY's data in it, so rows go by its parameters there."""
    connection = await asyncpg.connect(**asyncpg_keywords(dsn), server_settings={"client_encoding": "LATIN1"})
    try:
        await CLIENT.enqueue_bulk([NewJob("t", {"text": "é"})] * 3, connection=connection)
        await CLIENT.enqueue_bulk(
            (NewJob("t", {"text": "é"}, JobSpec(job_key=k)) for k in "abc"), connection=connection
        )
    finally:
        await connection.close()
    assert await rows(dsn, "select payload ->> 'text' from graphile_worker._private_jobs") == [("é",)] * 6
