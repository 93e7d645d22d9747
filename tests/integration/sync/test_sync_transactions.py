"""A job on a caller's synchronous connection: it shares the fate of the caller's writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import psycopg
import psycopg_pool
import pytest
from psycopg import rows as row_factories
from psycopg.pq import TransactionStatus

from backfill import BackfillClient, ConfigurationError, JobKeyMode, JobSpec, NewJob, Queue
from backfill.sync import Client

Verb = Callable[[Any], Any]
COUNT = "select count(*) from graphile_worker.jobs"

# The DSN leads nowhere: with a connection given, the client uses and opens none of its own.
CLIENT = Client("host=127.0.0.1 port=1")
VERBS: dict[str, Verb] = {
    "plain": lambda conn: CLIENT.enqueue("t", {"a": 1}, connection=conn),
    "keyed": lambda conn: CLIENT.enqueue("t", {"a": 1}, job_key="k", connection=conn),
    "serial": lambda conn: CLIENT.enqueue("t", {"a": 1}, queue=Queue.serial("q"), connection=conn),
    "dedupe": lambda conn: CLIENT.enqueue(
        "t", {"a": 1}, job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE, connection=conn
    ),
    "bulk": lambda conn: CLIENT.enqueue_bulk("t", [{"a": 1}], connection=conn),
    "bulk_ids": lambda conn: CLIENT.enqueue_bulk("t", [{"a": 1}], return_ids=True, connection=conn),
    "bulk_keys": lambda conn: CLIENT.enqueue_bulk(
        [NewJob("t", {"a": 1}, JobSpec(job_key="k"))], return_ids=True, connection=conn
    ),
}


@pytest.fixture(params=VERBS)
def verb(request: pytest.FixtureRequest) -> Verb:
    """Each way to add one job on a connection."""
    return VERBS[request.param]


def count(dsn: str) -> int:
    """How many jobs another connection sees."""
    with psycopg.connect(dsn) as connection:
        [[found]] = connection.execute(COUNT).fetchall()
        return int(found)


def test_the_first_statement_begins_a_transaction(dsn: str, verb: Verb) -> None:
    """The driver begins one with the client's statement as with any other: a rollback undoes it, a commit keeps it."""
    with psycopg.connect(dsn) as connection:
        verb(connection)
        assert connection.info.transaction_status is TransactionStatus.INTRANS
        assert count(dsn) == 0
        connection.rollback()
        assert count(dsn) == 0
        verb(connection)
        connection.commit()
        assert count(dsn) == 1


@pytest.mark.parametrize("autocommit", [False, True])
def test_the_job_goes_with_the_callers_writes(dsn: str, verb: Verb, autocommit: bool) -> None:
    """In a block it is seen by nobody before the commit; a savepoint that is rolled back takes the job along."""
    with psycopg.connect(dsn, autocommit=autocommit) as connection:
        connection.execute("create table mine (id int)")
        with connection.transaction():
            connection.execute("insert into mine values (1)")
            verb(connection)
            assert count(dsn) == 0
            with connection.transaction(force_rollback=True):
                connection.execute("insert into mine values (2)")
                CLIENT.enqueue("t", {}, connection=connection)
                verb(connection)
        connection.commit()
        assert count(dsn) == 1
        assert connection.execute("select id from mine").fetchall() == [(1,)]


def test_in_autocommit_it_is_committed_at_once(dsn: str, verb: Verb) -> None:
    """As any statement of the caller's would be."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        verb(connection)
        assert connection.info.transaction_status is TransactionStatus.IDLE
        assert count(dsn) == 1


@pytest.mark.parametrize(
    "setup",
    [
        {"row_factory": row_factories.dict_row},
        {"cursor_factory": psycopg.ClientCursor},
        {"cursor_factory": psycopg.RawCursor},
        {"prepare_threshold": 0},
        {"prepare_threshold": None},
        {"options": "-c datestyle=SQL,DMY -c timezone=Asia/Kathmandu -c bytea_output=escape"},
        {"options": "-c search_path= -c default_transaction_isolation=serializable"},
        {"options": "-c client_encoding=LATIN1"},
    ],
    ids=str,
)
def test_however_the_connection_is_set_up(dsn: str, setup: dict[str, Any]) -> None:
    """What a caller has set changes nothing, and is left as it was."""
    with psycopg.connect(dsn, **setup) as connection:
        before = (
            connection.row_factory,
            connection.cursor_factory,
            connection.prepare_threshold,
            connection.info.encoding,
        )
        for verb in VERBS.values():
            verb(connection)
        CLIENT.enqueue("t", {"a": "ü€"}, connection=connection)
        connection.commit()
        assert before == (
            connection.row_factory,
            connection.cursor_factory,
            connection.prepare_threshold,
            connection.info.encoding,
        )
    with psycopg.connect(dsn) as connection:
        found = connection.execute("select payload::text from graphile_worker._private_jobs order by id").fetchall()
    assert found == [('{"a":1}',)] * (len(VERBS) - 2) + [('{"a":"ü€"}',)], "the three with a key are one"


@pytest.mark.parametrize("autocommit", [False, True])
def test_inside_a_pipeline(dsn: str, verb: Verb, autocommit: bool) -> None:
    """In pipeline mode the call waits for its answer, the first one on a connection and the later ones."""
    with psycopg.connect(dsn, autocommit=autocommit) as connection:
        with connection.pipeline(), connection.transaction():
            connection.execute("create table mine (id int)")
            verb(connection)
            connection.execute("insert into mine select count(*) from graphile_worker.jobs")
        verb(connection)
        with connection.pipeline():
            verb(connection)
        assert connection.execute("select id from mine").fetchall() == [(1,)]
    assert count(dsn) in (1, 3)


def test_an_aborted_transaction_says_so(dsn: str, verb: Verb) -> None:
    """The driver's error comes unchanged, and the transaction stays the caller's to roll back."""
    with psycopg.connect(dsn) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1 / 0")
        with pytest.raises(Exception, match="current transaction is aborted") as caught:
            verb(connection)
        assert isinstance(caught.value.__cause__ or caught.value, psycopg.errors.InFailedSqlTransaction)
        assert connection.info.transaction_status is TransactionStatus.INERROR
        connection.rollback()
        verb(connection)
        connection.commit()
    assert count(dsn) == 1


def test_an_error_of_the_clients_statement(dsn: str) -> None:
    """A statement that the server refuses aborts the transaction, as the driver does; a bulk call's is undone alone."""
    with psycopg.connect(dsn) as connection:
        connection.execute("create table mine (id int)")
        connection.commit()
        connection.execute("set local statement_timeout = '1ms'")
        with psycopg.connect(dsn) as other:
            other.execute("lock table graphile_worker._private_jobs")
            with pytest.raises(psycopg.errors.QueryCanceled):
                CLIENT.enqueue("t", {}, connection=connection)
            assert connection.info.transaction_status is TransactionStatus.INERROR
        connection.rollback()

        def breaks() -> Any:
            yield {}
            raise OSError("the disk")

        connection.execute("insert into mine values (1)")
        with pytest.raises(Exception, match="the disk"):
            CLIENT.enqueue_bulk("t", breaks(), connection=connection)
        assert connection.info.transaction_status is TransactionStatus.INTRANS
        connection.commit()
        assert connection.execute("select id from mine").fetchall() == [(1,)]
    assert count(dsn) == 0


def test_workers_hear_of_it_with_the_commit(dsn: str, verb: Verb) -> None:
    """The notification is part of the transaction: none before the commit, none after a rollback."""
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn) as connection:
        listener.execute('listen "jobs:insert"')
        verb(connection)
        connection.rollback()
        verb(connection)
        listener.execute("select 1")  # whatever was sent before is here by now
        assert list(listener.notifies(timeout=0)) == []
        connection.commit()
        listener.execute("select 1")
        assert len(list(listener.notifies(timeout=0))) == 1


def test_a_pool_gives_a_transaction_of_its_own(dsn: str, verb: Verb) -> None:
    """The call takes a connection of the pool, commits, and gives it back as it was."""
    with psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=1) as pool:
        verb(pool)
        assert count(dsn) == 1
        with pool.connection() as connection:
            assert connection.info.transaction_status is TransactionStatus.IDLE
            assert connection.autocommit is False


def test_other_verbs_on_the_callers_connection(dsn: str) -> None:
    """What is read and changed is the transaction's."""
    with psycopg.connect(dsn, row_factory=row_factories.dict_row) as connection:
        one = CLIENT.enqueue("t", {}, job_key="k", connection=connection)
        other = CLIENT.enqueue("t", {}, connection=connection)
        found = CLIENT.get_job(one, connection=connection)
        assert found is not None
        assert found.id == one.id
        assert [job.priority for job in CLIENT.reschedule_jobs([other], priority=7, connection=connection)] == [7]
        assert [job.id for job in CLIENT.fail_jobs([other], connection=connection)] == [other.id]
        assert [job.id for job in CLIENT.complete_jobs([other], connection=connection)] == [other.id]
        assert CLIENT.remove_job("k", connection=connection) is not None
        control = CLIENT.pause(everything=True, connection=connection)
        assert [said.id for said in CLIENT.controls(connection=connection)] == [control.id]
        CLIENT.schedules.add("0 4 * * * report", connection=connection)
        assert [info.identifier for info in CLIENT.schedules.list(connection=connection)] == ["report"]
        connection.rollback()
        assert CLIENT.controls(connection=connection) == []
        assert CLIENT.schedules.list(connection=connection) == []
    assert count(dsn) == 0


async def test_asynchronous_objects_are_refused(dsn: str) -> None:
    """An asynchronous connection or pool, a client or a DSN is named, and so is what to use."""
    pool = psycopg_pool.AsyncConnectionPool(dsn, open=False)
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        for given, told in (
            (connection, "AsyncConnection is asynchronous, and this client is not: use it with BackfillClient"),
            (pool, "AsyncConnectionPool is asynchronous, and this client is not: use it with BackfillClient"),
            (dsn, "expected a synchronous connection, .+ got str"),
            (BackfillClient(dsn), "expected a synchronous connection, .+ got .*BackfillClient"),
        ):
            for verb in VERBS.values():
                with pytest.raises(Exception, match=told) as caught:
                    verb(given)
                assert isinstance(caught.value.__cause__ or caught.value, ConfigurationError)
    with psycopg.connect(dsn) as lent:
        # A synchronous client in an event loop's thread works; it blocks the loop, as the driver itself would.
        CLIENT.enqueue("t", {}, connection=lent)
    assert await asyncio.to_thread(count, dsn) == 1
    for wrong in (pool, cast("Any", dsn)):
        with pytest.raises(ConfigurationError, match="pool: "):
            Client(pool=wrong)
