"""A job on the caller's own connection.

It shares the fate of the caller's writes, however that connection is set up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import rows as row_factories
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.json import set_json_loads
from psycopg_pool import ConnectionPool

from backfill import BackfillClient, ClientClosedError, ConfigurationError, JobKeyMode, NewJob, Queue

from reading import rows, value

Verb = Callable[[BackfillClient, Any], Awaitable[Any]]
COUNT = "select count(*) from graphile_worker.jobs"

VERBS: dict[str, Verb] = {
    "plain": lambda client, conn: client.enqueue("t", {"a": 1}, connection=conn),
    "keyed": lambda client, conn: client.enqueue("t", {"a": 1}, job_key="k", connection=conn),
    "serial": lambda client, conn: client.enqueue("t", {"a": 1}, queue=Queue.serial("q"), connection=conn),
    "dedupe": lambda client, conn: client.enqueue(
        "t", {"a": 1}, job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE, connection=conn
    ),
    "bulk": lambda client, conn: client.enqueue_bulk("t", [{"a": 1}], connection=conn),
    "bulk_ids": lambda client, conn: client.enqueue_bulk("t", [{"a": 1}], return_ids=True, connection=conn),
}


@pytest.fixture(params=VERBS)
def verb(request: pytest.FixtureRequest) -> Verb:
    """Each way to add one job on a connection."""
    return VERBS[request.param]


# The DSN leads nowhere: with a connection given, the client uses and opens none of its own.
CLIENT = BackfillClient("host=127.0.0.1 port=1")


@pytest.mark.parametrize("autocommit", [False, True])
async def test_the_job_commits_and_rolls_back_with_the_caller(dsn: str, verb: Verb, autocommit: bool) -> None:
    """Inside a transaction block it is seen by nobody before the commit, and gone with a rollback."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit) as connection:
        await connection.execute("create table mine (id int)")
        async with connection.transaction():
            await connection.execute("insert into mine values (1)")
            await verb(CLIENT, connection)
            assert await value(dsn, COUNT) == 0
        if not autocommit:
            assert connection.info.transaction_status is TransactionStatus.INTRANS
            await connection.commit()
        assert await value(dsn, COUNT) == 1
        async with connection.transaction(force_rollback=True):
            await connection.execute("insert into mine values (2)")
            await verb(CLIENT, connection)
        await connection.rollback()
    assert await rows(dsn, "select id from mine") == [(1,)]
    assert await rows(dsn, "select revision from graphile_worker.jobs") == [(0,)]


async def test_without_autocommit_the_caller_commits(dsn: str, verb: Verb) -> None:
    """The driver begins a transaction with the first statement, ours included; a rollback undoes it."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await verb(CLIENT, connection)
        assert connection.info.transaction_status is TransactionStatus.INTRANS
        assert await value(dsn, COUNT) == 0
        await connection.rollback()
        await verb(CLIENT, connection)
        await connection.commit()
    assert await value(dsn, COUNT) == 1


async def test_in_autocommit_it_is_committed_at_once(dsn: str, verb: Verb) -> None:
    """As any statement of the caller's would be."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await verb(CLIENT, connection)
        assert connection.info.transaction_status is TransactionStatus.IDLE
        assert await value(dsn, COUNT) == 1


class Shouting(psycopg.AsyncCursor[Any]):
    """A cursor class of a program's own."""

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Never to be called: a client's statements have placeholders of their own."""
        raise AssertionError(args)


@pytest.mark.parametrize(
    "setup",
    [
        {"row_factory": row_factories.dict_row},
        {"row_factory": row_factories.namedtuple_row},
        {"row_factory": row_factories.scalar_row},
        {"cursor_factory": psycopg.AsyncClientCursor},
        {"cursor_factory": psycopg.AsyncRawCursor},
        {"cursor_factory": Shouting},
        {"prepare_threshold": 0},
        {"prepare_threshold": None},
        {"options": "-c datestyle=SQL,DMY -c intervalstyle=sql_standard -c timezone=Asia/Kathmandu"},
        {"options": "-c search_path= -c default_transaction_isolation=serializable"},
        {"options": "-c standard_conforming_strings=off -c bytea_output=escape"},
    ],
    ids=str,
)
async def test_however_the_connection_is_set_up(dsn: str, setup: dict[str, Any]) -> None:
    """Row factories, cursor classes and settings of the caller's change nothing, and are left as they were."""
    async with await psycopg.AsyncConnection.connect(dsn, **setup) as connection:
        before = connection.row_factory, connection.cursor_factory, connection.prepare_threshold
        set_json_loads(lambda _: 1 / 0, connection)
        for verb in VERBS.values():
            await verb(CLIENT, connection)
        await connection.commit()
        assert (connection.row_factory, connection.cursor_factory, connection.prepare_threshold) == before
    payloads = await rows(dsn, "select payload::text from graphile_worker._private_jobs")
    assert payloads == [('{"a":1}',)] * (len(VERBS) - 1), "the two with a key are one"


async def test_reading_and_managing_on_the_callers_connection(dsn: str) -> None:
    """The other verbs take it too, and what they do is the transaction's."""
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=row_factories.dict_row) as connection:
        one = await CLIENT.enqueue("t", {}, job_key="k", connection=connection)
        other = await CLIENT.enqueue("t", {}, connection=connection)
        assert (await CLIENT.get_job(one, connection=connection)).id == one.id  # type: ignore[union-attr]
        assert [job.priority for job in await CLIENT.reschedule_jobs([other], priority=7, connection=connection)] == [7]
        assert [job.id for job in await CLIENT.fail_jobs([other], connection=connection)] == [other.id]
        assert (await CLIENT.remove_job("k", connection=connection)).id == one.id  # type: ignore[union-attr]
        assert [job.id for job in await CLIENT.complete_jobs([other], connection=connection)] == [other.id]
        await connection.rollback()
    assert await value(dsn, COUNT) == 0


@pytest.mark.parametrize("autocommit", [False, True])
async def test_inside_a_pipeline(dsn: str, verb: Verb, autocommit: bool) -> None:
    """In pipeline mode the call waits for its answer, and statements before and after keep their order."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit) as connection:
        await connection.execute("create table mine (id int)")
        async with connection.pipeline(), connection.transaction():
            await connection.execute("insert into mine values (1)")
            await verb(CLIENT, connection)
            cursor = await connection.execute("insert into mine values (2) returning id")
            assert await cursor.fetchone() == (2,)
        await connection.commit()
        assert connection.info.transaction_status is TransactionStatus.IDLE
    assert await rows(dsn, "select id from mine") == [(1,), (2,)]
    assert await value(dsn, COUNT) == 1


async def test_a_failed_transaction_says_so(dsn: str, verb: Verb) -> None:
    """The driver's errors come as they are on the caller's connection, which stays the caller's to deal with."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.execute("select 1 / 0")
        with pytest.raises(Exception, match="current transaction is aborted") as caught:
            await verb(CLIENT, connection)
        assert isinstance(caught.value.__cause__ or caught.value, psycopg.errors.InFailedSqlTransaction)
        await connection.rollback()
        await verb(CLIENT, connection)
        await connection.commit()
    assert await value(dsn, COUNT) == 1


async def test_cancelled_on_the_callers_connection(dsn: str, verb: Verb) -> None:
    """A call that is cancelled as it waits for a lock leaves a transaction that can be rolled back."""
    async with (
        await psycopg.AsyncConnection.connect(dsn) as other,
        await psycopg.AsyncConnection.connect(dsn) as connection,
    ):
        await other.execute("lock table graphile_worker._private_jobs")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await verb(CLIENT, connection)
        await other.rollback()
        await connection.rollback()
        await verb(CLIENT, connection)
        await connection.commit()
    assert await value(dsn, COUNT) == 1


async def test_what_is_no_connection_is_refused(dsn: str) -> None:
    """A synchronous connection, a pool or a DSN in its place is named, before anything is written."""
    with psycopg.connect(dsn) as sync:
        blocking: ConnectionPool[Any] = ConnectionPool(dsn, open=False)
        for wrong, name in (
            (sync, r"psycopg\.Connection is synchronous, .+ backfill\.sync\.Client"),
            (blocking, r"psycopg_pool\.\S+\.ConnectionPool is synchronous, .+ backfill\.sync\.Client"),
            (dsn, "expected an asynchronous connection, .+, got str; .+"),
        ):
            for verb in VERBS.values():
                with pytest.raises(ConfigurationError, match=rf"connection: {name}$"):
                    await verb(CLIENT, wrong)
    assert await value(dsn, COUNT) == 0


async def test_a_closed_client_refuses_a_connection_too(dsn: str, verb: Verb) -> None:
    """`close()` ends every use of a client."""
    client = BackfillClient(dsn)
    await client.close()
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        with pytest.raises(ClientClosedError, match="open it again"):
            await verb(client, connection)


async def test_a_session_in_another_encoding(dsn: str) -> None:
    """It writes and reads the same characters, those that it has no bytes for too, and stays in its encoding."""
    text = "\u00fc\u65e5\U0001f40d"
    async with await psycopg.AsyncConnection.connect(make_conninfo(dsn, client_encoding="latin1")) as connection:
        outcome = await CLIENT.enqueue(
            f"task {text}", {"\u00fc": text}, job_key=text, queue=Queue.serial(text), connection=connection
        )
        read = await CLIENT.get_job(outcome, connection=connection)
        await CLIENT.enqueue_bulk("bulk", [{"\u00fc": text}], flags=[text], connection=connection)
        await CLIENT.enqueue_bulk([NewJob(text, [text])], delay=timedelta(1), connection=connection)
        await connection.commit()
        assert connection.info.parameter_status("client_encoding") == "LATIN1"
    assert read is not None
    for job in (outcome.job, read):
        assert (job.task_identifier, job.key, job.queue_name) == (f"task {text}", text, text)
        assert job.payload == {"\u00fc": text}
    assert await rows(
        dsn,
        """select task_identifier, jobs.key, queue_name, bare.payload::text, jobs.flags::text
           from graphile_worker.jobs join graphile_worker._private_jobs as bare using (id) order by id""",
    ) == [
        (f"task {text}", text, text, f'{{"\u00fc":"{text}"}}', None),
        ("bulk", None, None, f'{{"\u00fc":"{text}"}}', f'{{"{text}": true}}'),
        (text, None, None, f'["{text}"]', None),
    ]


async def test_another_encoding_in_a_transaction_that_fails(dsn: str) -> None:
    """A rollback puts the session's encoding back, whether or not the statement that failed was the client's."""
    async with await psycopg.AsyncConnection.connect(make_conninfo(dsn, client_encoding="latin1")) as connection:
        await connection.execute("alter table graphile_worker._private_jobs add constraint no check (priority < 5)")
        for priority in (3, 7):
            with contextlib.suppress(psycopg.errors.CheckViolation):
                await CLIENT.enqueue("t", {}, priority=priority, connection=connection)
        await connection.rollback()
        cursor = await connection.execute("show client_encoding")
        assert await cursor.fetchone() == ("LATIN1",)
