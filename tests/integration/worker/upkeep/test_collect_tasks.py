"""Tasks that nothing uses: collected on demand, and never while another program's worker may live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import LiteralString

import pytest

from backfill import BackfillClient, CleanupRefusedError, Queue, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.storage.connection import connect
from backfill.storage.statements import render

from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
TASKS = "graphile_worker._private_tasks"
SERIAL = Queue.serial("q")
ORPHANS: LiteralString = f"""
    select count(*) from {JOBS} as jobs
    where not exists (select from {TASKS} as tasks where tasks.id = jobs.task_id)"""
WAITING: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and pid <> pg_backend_pid()"""
ROW: LiteralString = """
    insert into graphile_worker.backfill_workers (id, host, pid, heartbeat_at, protocol, tasks, version)
    values (%s, 'there', 7, now() - %s, 1, %s, '0')"""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def test_tasks_are_collected_on_demand(dsn: str, client: BackfillClient) -> None:
    """Those without a job that no worker's row names, be the worker silent; their names are told."""
    await client.enqueue("used")
    await client.enqueue("later", run_at=datetime(2999, 1, 1, tzinfo=UTC))
    await rows(dsn, f"insert into {TASKS} (identifier) values ('b'), ('a'), ('known'), ('silent')")
    await rows(dsn, ROW, "backfill_1", timedelta(0), ["known"])
    await rows(dsn, ROW, "backfill_2", timedelta(hours=1), ["silent", "nowhere"])
    assert await client.collect_tasks() == ("a", "b")
    assert await client.collect_tasks() == ()
    assert await value(dsn, f"select count(*) from {TASKS}") == 4


@pytest.mark.leaves_rows
@pytest.mark.parametrize(
    ("sign", "named"),
    [
        (
            "update graphile_worker._private_jobs set locked_by = 'worker-1', locked_at = now() - interval '9 hours'",
            "worker-1",
        ),
        ("update graphile_worker._private_jobs set locked_at = now()", "a lock without an owner"),
        ("update graphile_worker._private_job_queues set locked_by = 'worker-2', locked_at = now()", "worker-2"),
        ("update graphile_worker._private_job_queues set locked_at = now()", "a lock without an owner"),
        (
            "create table graphile_worker._private_workers as select 'engine' as id, now() as last_heartbeat_at",
            "engine",
        ),
        ("update graphile_worker._private_jobs set locked_by = 'backfill_1', locked_at = now()", None),
        (
            "create table graphile_worker._private_workers as select 'backfill_1' as id, now() as last_heartbeat_at",
            None,
        ),
        (
            """create table graphile_worker._private_workers as
               select 'x' as id, timestamptz '-infinity' as last_heartbeat_at""",
            None,
        ),
    ],
)
async def test_tasks_stay_while_another_programs_worker_may_live(
    dsn: str, client: BackfillClient, sign: LiteralString, named: str | None
) -> None:
    """A lock under a foreign id, however old, or a heartbeat of the engine's; ours are no reason."""
    await client.enqueue("used", queue=SERIAL)
    await rows(dsn, f"insert into {TASKS} (identifier) values ('unused')")
    await rows(dsn, sign)
    if named is None:
        assert await client.collect_tasks() == ("unused",)
    else:
        with pytest.raises(CleanupRefusedError, match=f": {named}. Stop them") as caught:
            await client.collect_tasks()
        assert caught.value.workers == (named,)
        assert await value(dsn, f"select count(*) from {TASKS}") == 2


async def test_a_job_that_comes_while_its_task_is_held(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Whoever adds it waits, and then makes the task again; who added one before keeps it."""
    await rows(dsn, f"insert into {TASKS} (identifier) values ('t'), ('u')")
    async with await connect(dsn) as collector, await connect(dsn) as own:
        await own.execute("begin")
        await client.enqueue("u", connection=own)
        await collector.execute("begin")
        [(held,)] = await (await collector.execute(render("find_unused_tasks"))).fetchall()
        adding = asyncio.gather(client.enqueue("t"), client.enqueue_bulk("t", range(3)))
        await eventually(lambda: value(dsn, WAITING), lambda waiting: waiting == 2)
        await own.execute("commit")
        await collector.execute(render("delete_unused_tasks"), [[held]])
        await collector.execute("commit")
        await adding
    assert await value(dsn, ORPHANS) == 0
    assert await value(dsn, f"select count(*) from {JOBS}") == 5


async def test_a_worker_finds_a_task_again_that_was_made_anew(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Its row was deleted under the worker: at its next full poll it knows the new one."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran: list[int] = []

    @tasks.task("t")
    async def handler(number: int) -> None:
        ran.append(number)

    async with WorkerRunner(WorkerConfig(dsn, poll_interval=timedelta(milliseconds=100)), tasks):
        await client.enqueue(handler.job(1))
        await eventually(lambda: ran == [1])
        await eventually(lambda: value(dsn, f"select count(*) from {JOBS}"), lambda left: left == 0)
        await rows(dsn, f"delete from {TASKS}")
        await client.enqueue(handler.job(2))
        await eventually(lambda: ran == [1, 2])
