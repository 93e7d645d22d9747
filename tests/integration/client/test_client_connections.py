"""The client's own connections: the one at hand, and what is prepared on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import psycopg_pool
import pytest

from backfill import BackfillClient, JobKeyMode, Queue
from backfill.client import execute, session
from backfill.storage.connection import Connection

from reading import rows, value

COUNT = "select count(*) from graphile_worker._private_jobs"
PREPARED = "select name, statement from pg_prepared_statements where name like 'backfill%' order by name"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client, whose task and queue are known."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", {}, queue=Queue.serial("q"))
        yield client


def _session(client: BackfillClient) -> Any:
    session = client._session
    assert session is not None
    return session


def _hand(client: BackfillClient) -> Connection:
    connection: Connection | None = _session(client)._at_hand
    assert connection is not None
    return connection


def _asked(client: BackfillClient) -> int:
    """How often its pool was asked for a connection."""
    asked: int = _session(client).pool.get_stats()["requests_num"]
    return asked


async def _prepared(connection: Connection) -> list[tuple[str, str]]:
    cursor = await connection.execute(PREPARED)
    return [(name, statement) async for name, statement in cursor]


async def test_the_last_connection_stays_at_hand(client: BackfillClient) -> None:
    """Verb after verb has the same one, without asking the pool; two at once ask for another."""
    before, connection = _asked(client), _hand(client)
    for n in range(20):
        await client.enqueue("t", n)
        await client.enqueue_bulk("t", [n])
    assert (_asked(client), _hand(client)) == (before, connection)
    await asyncio.gather(client.enqueue("t", 1), client.get_job(1))
    assert _asked(client) == before + 1


async def test_a_single_connection_serves_all(dsn: str) -> None:
    """Where there is only one, whoever waits gets it next, whatever is at hand."""
    async with BackfillClient(dsn, max_size=1) as client, asyncio.timeout(60):
        await asyncio.gather(*(client.enqueue("t", n) for n in range(100)))
        await asyncio.gather(*(client.enqueue_bulk("t", range(10)) for _ in range(10)))
    assert await value(dsn, COUNT) == 200


async def test_nothing_is_at_hand_where_nothing_is_to_rest(dsn: str) -> None:
    """With min_size=0 the pool has every connection back, and lets them go as it likes."""
    async with BackfillClient(dsn, min_size=0) as client:
        await client.enqueue("t", {})
        assert _session(client)._at_hand is None
        assert _session(client).pool.get_stats()["pool_available"] == 1


async def test_a_given_pool_has_its_connections_back(dsn: str) -> None:
    """Its other users may need them."""
    async with psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False) as pool:
        client = BackfillClient(pool=pool)
        await client.enqueue("t", {})
        async with pool.connection(timeout=5) as connection:
            assert (await connection.execute("select 1")).rowcount == 1
        await client.close()


async def test_after_a_while_the_pool_sees_it(client: BackfillClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one that is older than the pool wants them is replaced."""
    monkeypatch.setattr(session, "AT_HAND_SECONDS", -1.0)
    before = _asked(client)
    _session(client)._until = 0.0
    for n in range(5):
        await client.enqueue("t", n)
    assert _asked(client) == before + 5


async def test_one_that_is_amiss_goes_to_the_pool(client: BackfillClient) -> None:
    """Left inside a transaction by whoever used it, it is not handed to the next verb."""
    connection = await _session(client).take()
    await connection.execute("begin")
    await _session(client).give_back(connection)
    assert _session(client)._at_hand is None
    assert (await client.enqueue("t", {})).is_enqueued


async def test_statements_are_prepared_from_their_second_time(client: BackfillClient) -> None:
    """Each way of adding a job is one statement, prepared once a connection, under a name that is its text's."""
    connection = _hand(client)
    assert await _prepared(connection) == []
    for _ in range(3):
        await client.enqueue("t", {})
        await client.enqueue("t", {}, queue=Queue.serial("q"))
        await client.enqueue("t", {}, job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE)
        assert _hand(client) is connection
    texts = [statement for _, statement in await _prepared(connection)]
    assert sorted(text.splitlines()[0][:32] for text in texts) == [
        "-- does: Adds one job, or applie", "-- does: Adds one parallel job w", "-- does: Adds one serial job wit"
    ]  # fmt: skip


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_statements_that_were_taken_away(client: BackfillClient, dsn: str, times: int) -> None:
    """By a pooler, or a DISCARD: each job is added once all the same."""
    for _ in range(times):
        await client.enqueue("t", {})
    await _hand(client).execute("discard all")
    for n in range(4):
        assert (await client.enqueue("t", n)).job.payload == n
    assert await value(dsn, COUNT) == 1 + times + 4


async def test_statements_that_are_there_already(client: BackfillClient, dsn: str) -> None:
    """A pooler gave the connection of somebody who prepared the same text: it is used."""
    for n in range(3):
        await client.enqueue("t", n)
    execute._STATES.clear()
    for n in range(3):
        assert (await client.enqueue("t", n)).job.payload == n
    assert len(await _prepared(_hand(client))) == 1
    assert await value(dsn, COUNT) == 7


async def test_a_table_that_is_altered(client: BackfillClient, dsn: str) -> None:
    """A prepared statement whose columns' types change is refused by the server; the job is added once all the same."""
    for n in range(3):
        await client.enqueue("t", n)
    await rows(dsn, "drop view graphile_worker.jobs")
    await rows(dsn, "alter table graphile_worker._private_jobs alter column last_error type varchar(9000)")
    for n in range(3):
        assert (await client.enqueue("t", n)).job.payload == n
    assert await value(dsn, COUNT) == 7


async def test_nothing_is_prepared_where_the_driver_may_not(dsn: str) -> None:
    """A pool whose connections never prepare, as poolers of another kind need it, is obeyed."""
    async with psycopg_pool.AsyncConnectionPool(
        dsn, min_size=1, max_size=1, open=False, kwargs={"prepare_threshold": None}
    ) as pool:
        client = BackfillClient(pool=pool)
        for n in range(12):
            await client.enqueue("t", n)
        async with pool.connection() as connection:
            assert await value(dsn, COUNT) == 12
            cursor = await connection.execute("select count(*) from pg_prepared_statements")
            assert await cursor.fetchall() == [(0,)]
        await client.close()


async def test_an_error_of_the_server_is_one(client: BackfillClient, dsn: str) -> None:
    """Of a prepared statement too: it comes as the driver's own, nothing is added, and the connection serves on."""
    for n in range(3):
        await client.enqueue("t", n)
    await rows(
        dsn,
        """create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
           create trigger refuse before insert on graphile_worker._private_jobs for each row
           when (new.priority = 7) execute function refuse()""",
    )
    connection = _hand(client)
    with pytest.raises(psycopg.errors.RaiseException, match="no"):
        await client.enqueue("t", {}, priority=7)
    assert _hand(client) is connection
    assert (await client.enqueue("t", {})).is_enqueued
    assert await value(dsn, COUNT) == 5


async def test_cancelled_while_the_server_waits(client: BackfillClient, dsn: str) -> None:
    """The statement is cancelled on the server, and the connection serves on."""
    for n in range(3):
        await client.enqueue("t", n)
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute("lock table graphile_worker._private_jobs")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.enqueue("t", {})
    assert (await client.enqueue("t", {})).is_enqueued
    assert await value(dsn, COUNT) == 5
