"""A synchronous client with a pool that was given to it, behind PgBouncer, and with interceptors."""

from __future__ import annotations

import asyncio
import logging

import psycopg
import psycopg_pool
import pytest

from backfill import (
    BackfillError,
    BeforeJobSchedule,
    ConfigurationError,
    ContinueWith,
    JobScheduleRefusedError,
    JobScheduleResult,
    Skip,
)
from backfill.sync import Client

from interceptors import Asked
from plugins.pooler import assert_sessions_are_clean


def payloads(dsn: str) -> list[dict[str, int]]:
    """The payloads of all jobs, in the order of their ids."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute("select payload from graphile_worker._private_jobs order by id").fetchall()
        return [payload for (payload,) in found]


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_pool_that_was_given(dsn: str, autocommit: bool) -> None:
    """Each call is committed, connections come back as they were, and the pool stays open."""
    given = {"autocommit": autocommit, "row_factory": psycopg.rows.dict_row}
    with psycopg_pool.ConnectionPool(dsn, kwargs=given, min_size=1, max_size=1) as pool:
        with Client(pool=pool) as client:
            assert client.pool is pool
            client.enqueue("t", {"n": 0})
            client.enqueue_bulk("t", [{"n": 1}, {"n": 2}])
            assert payloads(dsn) == [{"n": 0}, {"n": 1}, {"n": 2}]
        with pool.connection() as connection:
            assert connection.autocommit is autocommit
            assert connection.execute("select 1 as one").fetchall() == [{"one": 1}]


async def test_behind_a_pooler(dsn: str, pooled_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each statement may run on another session of the server, and none keeps anything; the log says so once."""
    caplog.set_level(logging.INFO)

    def use() -> None:
        with Client(pooled_dsn) as client:
            for n in range(20):
                client.enqueue("t", {"n": n})
            assert client.enqueue_bulk("t", ({"n": n} for n in range(20, 2_500))).written == 2_480

    await asyncio.to_thread(use)
    assert len([record for record in caplog.records if "is a pooler" in record.getMessage()]) == 1
    assert payloads(dsn) == [{"n": n} for n in range(2_500)]
    await assert_sessions_are_clean(pooled_dsn)


def test_array_nulls_may_be_off(dsn: str) -> None:
    """The client's own sessions turn it on; a caller's pool is refused, since its session is not ours to change."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            psycopg.sql.SQL("alter database {} set array_nulls = off").format(
                psycopg.sql.Identifier(connection.info.dbname)
            )
        )
    with Client(dsn) as client:
        outcome = client.enqueue_bulk("t", [{"n": 1}], return_ids=True)
        assert client.cancel(outcome.ids[0]).accepted
    with (
        psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=1) as pool,
        pytest.raises(ConfigurationError, match=r"array_nulls is off .* set it to on"),
        Client(pool=pool) as lent,
    ):
        lent.enqueue("t", {"n": 2})


async def answer(event: BeforeJobSchedule) -> JobScheduleResult | None:
    """Leave out 1, and change 2 to 20, once the event loop has had its turn."""
    await asyncio.sleep(0)
    number = event.payload["n"]
    return Skip() if number == 1 else ContinueWith({"n": 20}) if number == 2 else None


def ask(dsn: str) -> None:
    """Add jobs of which interceptors are asked."""
    with Client(dsn, plugins=[Asked(answer)]) as client:
        client.enqueue("t", {"n": 0})
        with pytest.raises(JobScheduleRefusedError):
            client.enqueue("t", {"n": 1})
        outcome = client.enqueue_bulk("t", [{"n": n} for n in range(3)], return_ids=True)
        assert (outcome.written, outcome.skipped, outcome.skipped_indexes) == (2, 1, [1])
    assert payloads(dsn) == [{"n": 0}, {"n": 0}, {"n": 20}]


def test_interceptors_are_asked(dsn: str) -> None:
    """In an event loop that is made for the call."""
    ask(dsn)


async def test_interceptors_are_asked_where_a_loop_runs(dsn: str) -> None:
    """In a thread beside the caller's, whose event loop cannot run another coroutine meanwhile."""
    ask(dsn)


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_dsn_may_not_use_its_own_client(dsn: str, kind: str) -> None:
    """It says so instead of waiting for ever, also where a coroutine gives the dsn in a thread beside the caller's."""

    def plain() -> str:
        client.enqueue("t", {})
        return dsn

    async def asynchronous() -> str:
        return plain()

    client = Client(plain if kind == "plain" else asynchronous)
    with pytest.raises(BackfillError, match="the dsn's callable uses the client"):
        client.open()
    assert not client.is_open
