"""A client's life: lazy, opened, closed and opened again; its DSN, its pool, its loop, its schema."""

from __future__ import annotations

import asyncio
import gc
import re
from typing import Any, cast

import psycopg
import psycopg_pool
import pytest
from psycopg import rows as row_factories

from backfill import (
    BackfillClient,
    BackfillError,
    ClientClosedError,
    ConfigurationError,
    DatabaseConnectionError,
    Queue,
    SchemaMissingError,
)

from plugins.waiting import Eventually
from reading import rows, value

Pool = psycopg_pool.AsyncConnectionPool[Any]
COUNT = "select count(*) from graphile_worker.jobs"
OTHERS = """select count(*) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""
KILL = """select count(pg_terminate_backend(pid)) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""


async def test_making_one_does_nothing(dsn: str, eventually: Eventually) -> None:
    """No connection before the first verb; that verb opens it."""
    client = BackfillClient(dsn)
    assert not client.is_open
    assert await value(dsn, OTHERS) == 0
    await client.enqueue("t", {})
    assert client.is_open
    await eventually(lambda: value(dsn, OTHERS), lambda count: count == 1)  # the one that looked at the schema is gone
    await client.close()
    assert not client.is_open


def test_one_at_module_level_serves_several_loops(dsn: str) -> None:
    """It needs no loop to be made, and a loop that ended leaves nothing that hinders the next."""
    client = BackfillClient(dsn)

    async def call(*, close: bool) -> int:
        outcome = await client.enqueue("t", {})
        if close:
            await client.close()
        return outcome.id

    assert [asyncio.run(call(close=False)), asyncio.run(call(close=False)), asyncio.run(call(close=True))] == [1, 2, 3]
    gc.collect()
    with pytest.raises(ClientClosedError):
        asyncio.run(call(close=True))


async def test_a_loop_at_a_time(dsn: str) -> None:
    """A second loop, in another thread, is told whose the client is; after `close()` it may have it."""
    client = await BackfillClient.connect(dsn)

    async def elsewhere() -> None:
        await client.enqueue("t", {})
        await client.close()

    with pytest.raises(BackfillError, match="open on another event loop"):
        await asyncio.to_thread(asyncio.run, elsewhere())
    await client.close()
    with pytest.raises(ClientClosedError):
        await asyncio.to_thread(asyncio.run, elsewhere())
    await client.open()
    await client.close()


async def test_closed_and_opened_again(dsn: str) -> None:
    """Closing is harmless twice, and ends every verb; opening is harmless twice, and begins again."""
    client = BackfillClient(dsn)
    for _ in range(2):
        async with client as entered:
            assert entered is client
            await client.open()
            await client.enqueue("t", {})
        await client.close()
        for call in (
            lambda: client.enqueue("t", {}),
            lambda: client.enqueue_bulk("t", [{}]),
            lambda: client.enqueue_bulk("t", []),
            lambda: client.get_job(1),
            lambda: client.remove_job("k"),
            lambda: client.complete_jobs([1]),
            lambda: client.fail_jobs([1]),
            lambda: client.reschedule_jobs([1], priority=1),
        ):
            with pytest.raises(ClientClosedError, match="this client is closed; open it again"):
                await call()
    assert await value(dsn, OTHERS) == 0


async def test_one_closed_before_its_first_use_stays_closed(dsn: str) -> None:
    """`close()` says that nothing more is to come, also where nothing came before."""
    client = BackfillClient(dsn)
    await client.close()
    with pytest.raises(ClientClosedError):
        await client.enqueue("t", {})


async def test_many_tasks_open_it_once(dsn: str) -> None:
    """Calls that come together share one opening and one pool."""
    client = BackfillClient(dsn, min_size=2, max_size=4)
    outcomes = await asyncio.gather(*(client.enqueue("t", {"n": n}) for n in range(50)))
    assert len({one.id for one in outcomes}) == 50
    assert await value(dsn, OTHERS) <= 4
    await client.close()


async def test_calls_under_way_end_when_it_is_closed(dsn: str, eventually: Eventually) -> None:
    """A verb that has its connection keeps it to its end."""
    client = await BackfillClient.connect(dsn)
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("lock table graphile_worker._private_jobs")
        waiting = asyncio.create_task(client.enqueue("t", {}))
        await eventually(lambda: value(dsn, "select count(*) from pg_locks where not granted"))
        await client.close()
        await other.rollback()
        assert (await waiting).is_enqueued
    assert await value(dsn, COUNT) == 1


async def test_the_environment_names_the_database(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a DSN, DATABASE_URL is read when the client opens; without both, the error names both."""
    client = BackfillClient()
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match=r"dsn.*DATABASE_URL"):
        await client.enqueue("t", {})
    monkeypatch.setenv("DATABASE_URL", dsn)
    async with client:
        await client.enqueue("t", {})
    assert await value(dsn, COUNT) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_callable_is_asked_at_each_new_connection(dsn: str, asynchronous: bool, eventually: Eventually) -> None:
    """Async or not; what it raises, or gives instead of a string, is the caller's to see."""
    given: list[object] = []
    answer: object = dsn

    def ask() -> str:
        given.append(answer)
        if isinstance(answer, Exception):
            raise answer
        return cast("str", answer)

    async def ask_slowly() -> str:
        return ask()

    client = BackfillClient(ask_slowly if asynchronous else ask, min_size=0, max_size=2)
    async with client:
        await client.enqueue("t", {})
        asked = len(given)
        assert asked >= 1
        # Again and again until nothing is left: the pool may still be opening a connection.
        await eventually(lambda: value(dsn, KILL), lambda ended: ended == 0)
        await client.enqueue("t", {})
        assert len(given) > asked
    answer = PermissionError("no token")
    with pytest.raises(PermissionError, match="no token"):
        await client.open()
    answer = 7
    with pytest.raises(ConfigurationError, match="the callable gave int, expected a connection string"):
        await client.open()


@pytest.mark.parametrize("autocommit", [False, True])
async def test_a_given_pool_is_used_and_left_as_it_was(dsn: str, autocommit: bool) -> None:
    """Its connections may give dicts and be in transactions of their own; closing the client leaves the pool open."""
    kwargs = {"row_factory": row_factories.dict_row, "autocommit": autocommit}
    async with psycopg_pool.AsyncConnectionPool(dsn, kwargs=kwargs, min_size=1, max_size=1, open=False) as pool:
        async with BackfillClient(pool=cast("Pool", pool)) as client:
            for _ in range(2):
                await client.enqueue("t", {}, queue=Queue.serial("q"))
                await client.enqueue_bulk("t", [{}, {}])
            assert await client.remove_job("k") is None
        async with pool.connection() as connection:
            assert connection.autocommit is autocommit
            assert connection.row_factory is row_factories.dict_row
            assert await (await connection.execute("select 1 as one")).fetchone() == {"one": 1}
    assert await value(dsn, COUNT) == 6


async def test_a_given_pool_must_be_open(dsn: str) -> None:
    """One that was never opened, and one that was closed meanwhile, are named."""
    pool: Pool = psycopg_pool.AsyncConnectionPool(dsn, min_size=1, open=False)
    client = BackfillClient(pool=pool)
    with pytest.raises(ConfigurationError, match="pool: it is not open"):
        await client.enqueue("t", {})
    async with pool:
        await client.enqueue("t", {})
    with pytest.raises(ClientClosedError, match="pool is closed"):
        await client.enqueue("t", {})


async def test_arguments_that_cannot_be_used(dsn: str) -> None:
    """Each is named where the client is made."""
    pool: Pool = psycopg_pool.AsyncConnectionPool(dsn, open=False)
    for arguments, message in (
        ({"dsn": dsn, "pool": pool}, "dsn and pool: give one of them"),
        ({"dsn": 7}, "dsn: expected a connection string or a callable, got int"),
        ({"pool": dsn}, "pool: expected a psycopg_pool.AsyncConnectionPool, got str"),
        ({"schema": ""}, "schema = ''"),
        ({"schema": "s" * 64}, "1 to 63 bytes"),
        ({"min_size": -1}, "min_size = -1"),
        ({"max_size": 0}, "max_size = 0"),
        ({"min_size": 3, "max_size": 2}, "at most max_size"),
    ):
        with pytest.raises(ConfigurationError, match=re.escape(message)):
            BackfillClient(**cast("dict[str, Any]", arguments))


async def test_a_server_that_is_not_there_is_named(unused_tcp_port: int) -> None:
    """Host, port, database and user; never the password; and the client can be tried again."""
    client = BackfillClient(f"postgresql://ada:secret@127.0.0.1:{unused_tcp_port}/app")
    for _ in range(2):
        with pytest.raises(DatabaseConnectionError) as caught:
            await client.enqueue("t", {})
        assert f"host=127.0.0.1 port={unused_tcp_port} dbname=app user=ada" in str(caught.value)
        assert "secret" not in str(caught.value)


async def test_a_missing_schema_is_named(empty_dsn: str) -> None:
    """The error says what makes it; `migrate=True` makes it."""
    with pytest.raises(SchemaMissingError, match="backfill migrate"):
        await BackfillClient.connect(empty_dsn)
    async with BackfillClient(empty_dsn, migrate=True, schema="Odd \"schema' %s $1") as client:
        outcome = await client.enqueue("t", {}, job_key="k", queue=Queue.serial("q"))
        await client.enqueue_bulk("t", [{}, {}], return_ids=True)
        assert (await client.remove_job("k")).id == outcome.id  # type: ignore[union-attr]
    with pytest.raises(SchemaMissingError):
        await BackfillClient.connect(empty_dsn)


async def test_a_schema_that_vanishes_is_named(empty_dsn: str) -> None:
    """An open client says what is missing."""
    async with BackfillClient(empty_dsn, migrate=True) as client:
        await client.enqueue("t", {})
        await rows(empty_dsn, "drop schema graphile_worker cascade")
        with pytest.raises(SchemaMissingError, match="backfill migrate"):
            await client.enqueue("t", {})
        with pytest.raises(BackfillError, match="backfill migrate"):
            await client.enqueue_bulk("t", [{}])
        with pytest.raises(SchemaMissingError, match="backfill migrate"):
            await client.get_job(1)
