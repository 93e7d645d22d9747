"""The client's pool in its users' hands: which one it is, and that nobody waits for a connection that is at rest."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import psycopg_pool
import pytest

from backfill import BackfillClient, ClientClosedError, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from plugins.waiting import Eventually
from reading import value

COUNT = "select count(*) from graphile_worker._private_jobs"
UNCLOSED = """
import asyncio, sys
from backfill import BackfillClient

async def main():
    connecting, for_ever, is_slow = asyncio.Event(), asyncio.Event(), False

    async def dsn():
        if is_slow:
            connecting.set()
            await for_ever.wait()
        return sys.argv[1]

    client = BackfillClient(dsn)
    await client.open()
    is_slow = True
    async with client.pool.connection():
        call = asyncio.create_task(client.enqueue("t", {}))
        await connecting.wait()

asyncio.run(main())
print("ended")
"""


async def test_a_given_pool_is_given_back(dsn: str) -> None:
    """The client's pool is the program's own, before the client opens too."""
    async with psycopg_pool.AsyncConnectionPool[Any](dsn, open=False) as pool:
        client = BackfillClient(pool=pool)
        assert client.pool is pool
        async with client:
            assert client.pool is pool
        assert client.pool is pool


async def test_its_own_pool_is_there_while_it_is_open(dsn: str) -> None:
    """Before and after there is none, and the error says how to open the client."""
    client = BackfillClient(dsn)
    with pytest.raises(ClientClosedError, match="async with client"):
        _ = client.pool
    async with client:
        pool = client.pool
        async with pool.connection() as connection:
            assert connection.autocommit
            cursor = await connection.execute("select $1::integer + 1", [1])
            assert await cursor.fetchone() == (2,)
    with pytest.raises(ClientClosedError):
        _ = client.pool
    with pytest.raises(psycopg_pool.PoolClosed):
        await pool.getconn()


async def test_a_statement_and_a_job_in_one_transaction(dsn: str) -> None:
    """A connection of the pool serves as `connection=` of a verb."""
    async with BackfillClient(dsn, max_size=1) as client:
        async with client.pool.connection() as connection:
            async with connection.transaction(force_rollback=True):
                await client.enqueue("t", {}, connection=connection)
            async with connection.transaction():
                await client.enqueue("t", {}, connection=connection)
        assert await value(dsn, COUNT) == 1


async def test_the_only_connection_is_not_kept_from_its_users(dsn: str) -> None:
    """The one that the client keeps at hand is lent at once, and kept at hand again afterwards."""
    async with BackfillClient(dsn, max_size=1) as client:
        for n in range(3):
            await client.enqueue("t", n)
            async with asyncio.timeout(10), client.pool.connection() as connection:
                cursor = await connection.execute(COUNT)
                assert await cursor.fetchone() == (n + 1,)


async def test_a_user_who_waits_gets_the_connection_of_a_verb(dsn: str, eventually: Eventually) -> None:
    """A verb that is done gives its connection to whoever waits at the pool, and does not keep it at hand."""
    async with BackfillClient(dsn, max_size=1) as client:
        async with client._connection(None):

            async def use() -> Any:
                async with client.pool.connection() as connection:
                    return await (await connection.execute("select 7")).fetchone()

            using = asyncio.ensure_future(use())
            await eventually(lambda: client.pool.get_stats()["requests_waiting"])
        assert await asyncio.wait_for(using, 10) == (7,)
        await client.enqueue("t", {})


async def test_a_dead_connection_at_hand_is_not_lent(dsn: str) -> None:
    """The server has ended it meanwhile: the pool makes another one in its place."""
    async with BackfillClient(dsn, max_size=1) as client:
        await client.enqueue("t", {})
        await value(
            dsn,
            """select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'""",
        )
        async with asyncio.timeout(20), client.pool.connection() as connection:
            cursor = await connection.execute("select 7")
            assert await cursor.fetchone() == (7,)
        await client.enqueue("t", {})


async def test_handlers_have_the_pool_of_their_worker(dsn: str) -> None:
    """`ctx.client.pool` is the same for all handlers, from the first use of `ctx.client` on."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen = list[Any]()

    @tasks.task("t")
    async def handler(_payload: int, ctx: WorkerContext[None]) -> None:
        await ctx.client.open()
        async with ctx.client.pool.connection() as connection:
            seen.append(await (await connection.execute("select 7")).fetchone())
        seen.append(ctx.client.pool)

    async with BackfillClient(dsn) as client:
        await client.enqueue("t", 1)
        await client.enqueue("t", 2)
    assert await WorkerRunner(WorkerConfig(dsn, concurrency=1), tasks).process_available_jobs() == 2
    assert seen[0] == seen[2] == (7,)
    assert seen[1] is seen[3]


def test_a_program_ends_while_an_unclosed_client_connects(dsn: str) -> None:
    """The end of `asyncio.run` cancels the pool's tasks once, and one that is connecting ends too."""
    ended = subprocess.run([sys.executable, "-c", UNCLOSED, dsn], check=True, capture_output=True, timeout=30)
    assert ended.stdout == b"ended\n"
    assert b"error connecting" not in ended.stderr
