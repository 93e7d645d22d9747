"""Jobs in the transaction of a synchronous library's connection live and die with that transaction."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import psycopg2
import pytest
from psycopg2.extensions import new_type, register_type
from psycopg2.extras import DictCursor, NamedTupleCursor, RealDictCursor, register_default_json, wait_select
from psycopg2.pool import ThreadedConnectionPool
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from at_once import Client
from backfill import JobSpec, NewJob, Queue
from backfill.errors import BulkEnqueueError, ConfigurationError
from sync_hosts import HOSTS, SQLALCHEMY, Host, engine_of, host_of, url_of

PAYLOAD = {"text": "100% 'é' \\ \" $1 %s 😀", "big": 2**63 - 1}


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest, dsn: str) -> Iterator[Host]:
    """Each library's connection, in whose first statement a transaction begins."""
    with host_of(request.param, dsn) as found:
        yield found


@pytest.fixture(params=HOSTS)
def alone(request: pytest.FixtureRequest, dsn: str) -> Iterator[Host]:
    """Each library's connection in autocommit."""
    with host_of(request.param, dsn, autocommit=True) as found:
        yield found


def jobs(dsn: str) -> list[tuple[Any, ...]]:
    """What another connection sees: the payload's text, key and priority of each job, by id."""
    query = "select payload ->> 'text', key, priority from graphile_worker._private_jobs as jobs order by jobs.id"
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query).fetchall()


def test_a_job_comes_with_the_commit(host: Host, dsn: str) -> None:
    """As the first statement it begins the transaction, and others see it, as it was, after the commit."""
    job = Client(host.given).enqueue("send", PAYLOAD, run_at=datetime(2030, 1, 1, tzinfo=UTC), priority=-3)
    assert jobs(dsn) == []
    assert host.ask(f"select count(*) from graphile_worker._private_jobs where id = {int(job.id)}") == 1
    host.commit()
    assert jobs(dsn) == [(PAYLOAD["text"], None, -3)]


def test_a_rollback_leaves_nothing(host: Host, dsn: str) -> None:
    """Also where the job was the transaction's first statement."""
    client = Client(host.given)
    client.enqueue("send", PAYLOAD)
    host.rollback()
    host.ask("select 1")
    client.enqueue("send", PAYLOAD, job_key="key")
    client.enqueue("send", PAYLOAD, queue=Queue.serial("serial"))
    host.rollback()
    client.enqueue_bulk([NewJob("send", PAYLOAD)] * 3)
    host.rollback()
    assert jobs(dsn) == []


def test_a_savepoint_takes_its_jobs_along(host: Host, dsn: str) -> None:
    """What comes before and after the savepoint stays."""
    client = Client(host.given)
    client.enqueue("send", {"text": "before"})

    def inside() -> None:
        client.enqueue("send", {"text": "inside"})
        client.enqueue_bulk([NewJob("send", {"text": "inside too"}, JobSpec(job_key="key"))])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), host.savepoint():
        inside()
    client.enqueue("send", {"text": "after"})
    host.commit()
    assert [text for text, *_ in jobs(dsn)] == ["before", "after"]


def test_keys_work_as_ever(host: Host, dsn: str) -> None:
    """A keyed job replaces, and one that is removed in the same transaction never was."""
    client = Client(host.given)
    client.enqueue("send", {"text": "first"}, job_key="key")
    client.enqueue("send", {"text": "second"}, job_key="key")
    client.enqueue("send", {"text": "gone"}, job_key="other")
    assert client.remove_job("other").task_identifier == "send"
    host.commit()
    assert jobs(dsn) == [("second", "key", 0)]


def test_jobs_are_cancelled_and_rescheduled_in_it(host: Host, dsn: str) -> None:
    """Verbs that change jobs are parts of the transaction too: after its rollback the jobs are as before."""
    client = Client(host.given)
    moved, gone = client.enqueue("send", {"text": "a"}), client.enqueue("send", {"text": "b"})
    host.commit()
    for end in (host.rollback, host.commit):
        client.reschedule_jobs([moved.id], priority=7)
        client.cancel(gone.id)
        end()
        if end == host.rollback:
            assert jobs(dsn) == [("a", None, 0), ("b", None, 0)]
    assert jobs(dsn) == [("a", None, 7)]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_bulks_are_in_it(host: Host, dsn: str, end: str) -> None:
    """By COPY, with keys, and in serial queues, in the order of the call."""
    client = Client(host.given)
    specs = [NewJob("send", {"text": str(n)}) for n in range(2500)]
    specs += [NewJob("send", {"text": str(n)}, JobSpec(job_key=f"key{n % 7}")) for n in range(2500, 2520)]
    specs += [NewJob("send", {"text": str(n)}, JobSpec(queue=Queue.serial(f"queue{n % 2}"))) for n in range(2520, 2530)]
    client.enqueue_bulk(specs)
    assert jobs(dsn) == []
    getattr(host, end)()
    kept = sorted(int(text) for text, *_ in jobs(dsn))
    assert kept == ([*range(2500), *range(2513, 2530)] if end == "commit" else [])


def test_an_error_is_the_librarys_own(host: Host, dsn: str) -> None:
    """The server's refusal comes as the library raises it, and the transaction is as after any error."""
    client = Client(host.given)
    client.enqueue("send", {"text": "before"})
    with pytest.raises(host.error):
        host.ask("select 1 / 0")
    with pytest.raises(host.error):
        client.enqueue("send", {"text": "after"})
    host.rollback()
    client.enqueue("send", {"text": "again"})
    host.commit()
    assert [text for text, *_ in jobs(dsn)] == ["again"]


def test_an_error_in_a_bulk_call_says_how_far_it_came(host: Host, dsn: str) -> None:
    """Nothing of it is there."""
    with pytest.raises(host.error):
        host.ask("select 1 / 0")
    with pytest.raises(BulkEnqueueError) as raised:
        Client(host.given).enqueue_bulk([NewJob("send", {})])
    assert isinstance(raised.value.__cause__, host.error)
    host.rollback()
    assert jobs(dsn) == []


def test_without_a_transaction_each_call_commits(alone: Host, dsn: str) -> None:
    """In autocommit a verb is a transaction of its own, and a bulk call too."""
    client = Client(alone.given)
    client.enqueue("send", {"text": "one"})
    client.enqueue("send", {"text": "two"}, job_key="key", queue=Queue.serial("serial"))
    client.enqueue_bulk([NewJob("send", {"text": str(n)}, JobSpec(job_key=None if n else "many")) for n in range(3)])
    client.complete_jobs([client.enqueue("send", {"text": "gone"}).id for _ in range(2)])
    assert sorted(text for text, *_ in jobs(dsn)) == ["0", "1", "2", "one", "two"]


def test_a_bulk_call_in_autocommit_is_whole(alone: Host, dsn: str) -> None:
    """An error in the caller's items undoes all of it, also what was sent before."""

    def items() -> Iterator[NewJob[Any]]:
        yield from [NewJob("send", {"text": "lost"}) for _ in range(3000)]
        raise ZeroDivisionError

    with pytest.raises((ZeroDivisionError, BulkEnqueueError)):
        Client(alone.given).enqueue_bulk(items())
    assert jobs(dsn) == []
    Client(alone.given).enqueue("send", {"text": "next"})
    assert len(jobs(dsn)) == 1


def test_the_notification_comes_with_the_commit(host: Host, dsn: str) -> None:
    """Workers hear of the job when they can see it."""
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute('listen "jobs:insert"')
        Client(host.given).enqueue("send", {})
        assert list(listener.notifies(timeout=0)) == []
        host.commit()
        assert len(list(listener.notifies(timeout=20, stop_after=1))) == 1


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_an_engine_means_a_transaction_of_the_calls_own(dsn: str, driver: str) -> None:
    """It is committed with the call."""
    with engine_of(dsn, driver) as engine:
        Client(engine).enqueue("send", {"text": "one"})
        Client(engine).enqueue_bulk([NewJob("send", {"text": "two"})] * 2)
        assert [text for text, *_ in jobs(dsn)] == ["one", "two", "two"]
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_other_engines_are_refused_by_name(dsn: str) -> None:
    """What the client cannot use says so before it does anything."""
    import sqlalchemy

    engine = sqlalchemy.create_engine("sqlite://")
    with pytest.raises(ConfigurationError, match=r"SQLAlchemy's engine is of sqlite\+pysqlite: .*postgresql\+psycopg"):
        Client(engine).enqueue("send", {})
    engine.dispose()


def test_an_asynchronous_session_is_refused_by_name(dsn: str) -> None:
    """The message names the client that takes it."""
    with pytest.raises(ConfigurationError, match=r"AsyncSession is asynchronous, .*BackfillClient"):
        Client(AsyncSession()).enqueue("send", {})


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_session_within_run_sync_is_refused_by_name(dsn: str, driver: str) -> None:
    """Its engine is asynchronous, so the client could not use the driver's connection."""
    engine = create_async_engine(url_of(dsn, driver))
    try:
        async with AsyncSession(engine) as session:
            for given in (session, await session.connection()):
                with pytest.raises(ConfigurationError, match=r"asynchronous one, .* AsyncSession"):
                    await given.run_sync(lambda found: Client(found).enqueue("send", {}))
    finally:
        await engine.dispose()


@pytest.mark.parametrize("name", SQLALCHEMY)
def test_codecs_of_the_program_do_not_matter(dsn: str, name: str) -> None:
    """A session that reads its own JSON, and arrays, in another way, gets the same job."""
    with host_of(name, dsn) as host:
        job = Client(host.given).enqueue("send", PAYLOAD, flags={"a,b", '"'})
        assert Client(host.given).get_job(job.id).payload == PAYLOAD


def test_a_pool_of_psycopg2_means_a_transaction_of_the_calls_own(dsn: str) -> None:
    """It is committed with the call, and undone with an error; the connection goes back."""
    pool = ThreadedConnectionPool(1, 1, dsn)
    try:
        Client(pool).enqueue("send", {"text": "one"})
        with pytest.raises(ZeroDivisionError):
            Client(pool).enqueue_bulk(NewJob("send", {}) for _ in [1 // 0])
        Client(pool).enqueue_bulk([NewJob("send", {"text": "two"})])
        assert [text for text, *_ in jobs(dsn)] == ["one", "two"]
    finally:
        pool.closeall()


def test_codecs_of_psycopg2_do_not_matter(dsn: str) -> None:
    """A connection that reads JSON and numbers in another way gives the same jobs."""
    with host_of("psycopg2", dsn) as host:
        register_default_json(host.given, loads=lambda _text: "other")
        register_type(new_type((20, 23), "odd", lambda _value, _cursor: "other"), host.given)
        job = Client(host.given).enqueue("send", PAYLOAD)
        assert Client(host.given).get_job(job.id).payload == PAYLOAD


@pytest.mark.parametrize("name", HOSTS)
def test_bulk_payloads_in_another_encoding(dsn: str, name: str) -> None:
    """A session that speaks LATIN1 would read a COPY's data in it, so rows go by the driver's own parameters there."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        database = psycopg.sql.Identifier(connection.info.dbname)
        connection.execute(psycopg.sql.SQL("alter database {} set client_encoding = 'LATIN1'").format(database))
    with host_of(name, dsn) as host:
        Client(host.given).enqueue_bulk([NewJob("send", {"text": "é"})] * 3)
        Client(host.given).enqueue_bulk(NewJob("send", {"text": "é"}, JobSpec(job_key=key)) for key in "abc")
        host.commit()
    assert [text for text, *_ in jobs(dsn)] == ["é"] * 6


@pytest.mark.parametrize("factory", [RealDictCursor, DictCursor, NamedTupleCursor], ids=str)
def test_cursors_of_psycopg2_do_not_matter(dsn: str, factory: Any) -> None:
    """The client makes cursors of the plain kind, whatever kind the connection makes for the program."""
    with host_of("psycopg2", dsn) as host:
        host.given.cursor_factory = factory
        job = Client(host.given).enqueue("send", PAYLOAD)
        Client(host.given).enqueue_bulk([NewJob("send", PAYLOAD)] * 2)
        assert Client(host.given).get_job(job.id).payload == PAYLOAD
        host.commit()
    assert len(jobs(dsn)) == 3


def test_an_asynchronous_connection_of_psycopg2_is_refused(dsn: str) -> None:
    """Its calls do not wait, so the client could read no results."""
    connection = psycopg2.connect(dsn, async_=1)
    try:
        wait_select(connection)
        with pytest.raises(ConfigurationError, match="async_=True"):
            Client(connection).enqueue("send", {})
        assert not connection.isexecuting()
    finally:
        connection.close()
