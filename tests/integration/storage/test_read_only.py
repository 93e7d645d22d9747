"""A database that takes no writes is named at once by whoever starts to use it, unless there may be another one."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from backfill import BackfillClient, ReadOnlyDatabaseError, TaskRegistry, WorkerConfig, WorkerRunner

from plugins.away import MakeServer, copy_as_standby
from plugins.waiting import Eventually
from reading import value

REPLICATED = {"wal_level": "replica", "max_wal_senders": "4"}


async def _refused(dsn: str, found: str) -> None:
    """Each way in says what was found, within seconds."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handle() -> None:
        pass

    for migrates in (False, True):
        async with asyncio.timeout(10):
            with pytest.raises(ReadOnlyDatabaseError, match=found):
                await BackfillClient.connect(dsn, migrate=migrates)
    async with asyncio.timeout(10):
        with pytest.raises(ReadOnlyDatabaseError, match=found):
            await BackfillClient(dsn).enqueue("t", {})
    async with asyncio.timeout(10):
        with pytest.raises(ReadOnlyDatabaseError, match=found):
            await BackfillClient(dsn).enqueue_bulk("t", range(3))
    for run in ("run", "process_available_jobs"):
        async with asyncio.timeout(10):
            with pytest.raises(ReadOnlyDatabaseError, match=found):
                await getattr(WorkerRunner(WorkerConfig(dsn), tasks), run)()
    async with AsyncConnectionPool(dsn, min_size=1, open=False) as pool, asyncio.timeout(10):
        with pytest.raises(ReadOnlyDatabaseError, match=found):
            await BackfillClient(pool=pool).enqueue("t", {})


async def test_a_database_that_is_set_to_be_read_only(dsn: str) -> None:
    """Connecting, enqueuing and a worker's start name the setting."""
    database = sql.Identifier(await value(dsn, "select current_database()"))
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
        await owner.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(database))
    await _refused(dsn, "default_transaction_read_only")


async def test_a_standby(make_server: MakeServer, eventually: Eventually) -> None:
    """Alone it is named; beside its primary, the primary is found."""
    primary = make_server(settings=REPLICATED)
    async with BackfillClient(primary.dsn, migrate=True):
        pass
    await asyncio.to_thread(copy_as_standby, primary, primary.folder.parent / "server1")
    standby = make_server(settings=REPLICATED)
    await eventually(lambda: value(primary.dsn, "select count(*) from pg_stat_replication where state = 'streaming'"))
    await _refused(standby.dsn, "standby")
    hosts = f"{standby.socket_folder},{primary.socket_folder}"
    async with BackfillClient(
        f"host={hosts} port=5432,5432 user=postgres dbname=postgres target_session_attrs=read-write"
    ) as client:
        await client.enqueue("t", {})


async def test_several_hosts_are_not_asked(dsn: str) -> None:
    """One that is read-only now may take writes later, or another one does: calls wait for that as they did."""
    given = conninfo_to_dict(dsn)
    host, port = given["host"], given.get("port", "5432")
    several = make_conninfo(
        dsn, host=f"{host},{host}", port=f"{port},{port}", options="-c default_transaction_read_only=on"
    )
    client = await BackfillClient.connect(several)
    await client.close()
