"""A failover: the primary is killed, and a synchronous standby becomes the primary, under a worker and a producer."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from backfill import BackfillClient, DatabaseConnectionError, TaskRegistry, WorkerConfig, WorkerRunner

from plugins.away import MakeServer, copy_as_standby
from plugins.waiting import Eventually
from reading import rows, value

REPLICATED = {"wal_level": "replica", "max_wal_senders": "4"}
LEFT = "select count(*) from graphile_worker._private_jobs"


@pytest.mark.timeout(120)
async def test_nothing_acknowledged_is_lost_and_nothing_runs_twice(
    make_server: MakeServer, eventually: Eventually
) -> None:
    """What ran meanwhile is settled on the new primary; what was enqueued before and after it runs once."""
    primary = make_server(settings=REPLICATED)
    async with BackfillClient(primary.dsn, migrate=True):
        pass
    await asyncio.to_thread(copy_as_standby, primary, primary.folder.parent / "server1")
    standby = make_server(settings=REPLICATED)
    await eventually(lambda: value(primary.dsn, "select count(*) from pg_stat_replication where state = 'streaming'"))
    await rows(primary.dsn, "alter system set synchronous_standby_names = 'standby'")
    await rows(primary.dsn, "select pg_reload_conf()")
    await eventually(lambda: value(primary.dsn, "select count(*) from pg_stat_replication where sync_state = 'sync'"))
    dsn = (
        f"host={standby.socket_folder},{primary.socket_folder} port=5432,5432 user=postgres dbname=postgres "
        "target_session_attrs=read-write"
    )
    tasks: TaskRegistry[None] = TaskRegistry()
    ran, begun, go_on = Counter[int](), Counter[int](), asyncio.Event()

    @tasks.task("hold", keep=None)
    async def hold(number: int) -> None:
        begun[number] += 1
        await go_on.wait()
        ran[number] += 1

    @tasks.task("quick")
    async def quick(number: int) -> None:
        begun[number] += 1
        ran[number] += 1

    acknowledged, unknown = set[int](), set[int]()
    over = asyncio.Event()

    async def produce(client: BackfillClient) -> None:
        number = 1000
        while not over.is_set():
            number += 1
            try:
                await client.enqueue(quick.job(number))
            except DatabaseConnectionError:
                unknown.add(number)
            else:
                acknowledged.add(number)

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn, concurrency=30), tasks):
        for number in range(20):
            await client.enqueue(hold.job(number))
        await eventually(lambda: len(begun) >= 20)
        producing = asyncio.create_task(produce(client))
        await eventually(lambda: ran.total() >= 50)
        await primary.kill()
        go_on.set()
        await eventually(lambda: sum(ran[number] for number in range(20)), (20).__eq__)
        await rows(standby.dsn, "select pg_promote()")
        before = len(acknowledged)
        await eventually(lambda: len(acknowledged), lambda now: now > before + 50)
        over.set()
        await producing
        await eventually(lambda: value(standby.dsn, LEFT), (0).__eq__)
    assert set(range(20)) | acknowledged <= set(ran)
    assert set(ran) <= set(range(20)) | acknowledged | unknown
    assert set(begun.values()) == {1}, {number: count for number, count in begun.items() if count > 1}
