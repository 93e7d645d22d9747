"""Roles and databases whose transactions are `serializable` or `repeatable read` by default: ours are `read committed`.

Triggers note at which level each table of the queue was written.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, LiteralString, cast

import psycopg
import psycopg_pool
import pytest

from backfill import BackfillClient, Queue, RetryPolicy, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.storage.connection import connect
from fleet.processes import jobs_left

from plugins.pooler import MakePooler
from plugins.waiting import Eventually
from reading import rows, value

SCHEMA = "graphile_worker"
TABLES = (
    "_private_jobs",
    "_private_job_queues",
    "backfill_workers",
    "backfill_dlq",
    "backfill_ends",
    "backfill_counters",
)
NOTE: LiteralString = """
    create table levels (place text, what text, level text, name text);
    create function note() returns trigger language plpgsql as $$
    begin
      insert into public.levels  -- functions of the queue write with a search_path of their own
      values (tg_table_name, tg_op, current_setting('transaction_isolation'), current_setting('application_name'));
      return null;
    end $$"""
LEVELS: LiteralString = "select distinct place, what, level from levels where level <> 'read committed'"
SECOND = timedelta(seconds=1)
NODE = "worker-0123456789"


async def default_to(dsn: str, level: str, whose: str) -> None:
    """Make it the level of each new session's transactions, by its role or by its database."""
    name = await value(dsn, "select quote_ident(current_database())")
    role = await value(dsn, "select quote_ident(current_user)")
    subject = f"role {role} in database {name}" if whose == "role" else f"database {name}"
    await rows(dsn, cast("LiteralString", f"alter {subject} set default_transaction_isolation = '{level}'"))
    assert await value(dsn, "show default_transaction_isolation") == level


async def note_levels(dsn: str) -> None:
    """Note the level of each write."""
    await rows(dsn, NOTE)
    for table in TABLES:
        await rows(
            dsn,
            cast(
                "LiteralString",
                f"create trigger note after insert or update or delete on {SCHEMA}.{table} execute function note()",
            ),
        )


def registry_of(ran: list[Any]) -> TaskRegistry[None]:
    """Tasks that end well, are kept, fail once, and fail for good."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("plain")
    async def plain(payload: Any) -> None:
        ran.append(payload)

    @tasks.task("kept", keep=timedelta(hours=1))
    async def kept(payload: Any) -> Any:
        ran.append(payload)
        return payload

    @tasks.task("flaky", retry=RetryPolicy(3, initial_delay=SECOND / 10))
    async def flaky(payload: Any, ctx: WorkerContext[None]) -> None:
        if ctx.attempt == 1:
            raise RuntimeError("once")
        ran.append(payload)

    @tasks.task("never")
    async def never() -> None:
        raise RuntimeError("for good")

    return tasks


async def enqueue_all(client: BackfillClient) -> None:
    """Jobs of each kind, by each way of adding them."""
    for number in range(10):
        await client.enqueue("plain", number)
        await client.enqueue("plain", number, queue=Queue.serial(f"q{number % 3}"))
        await client.enqueue("plain", number, job_key=f"key{number}")
    await client.enqueue("kept", "kept")
    await client.enqueue("flaky", "flaky")
    await client.enqueue("never", max_attempts=1)
    await client.enqueue_bulk("plain", range(100))
    await asyncio.gather(*(client.enqueue("plain", number, job_key="one") for number in range(20)))
    await client.remove_job("one")
    job = await client.enqueue("plain", "later", delay=timedelta(hours=1))
    await client.reschedule_jobs([job], delay=timedelta(hours=2))
    await client.complete_jobs([job])


async def leave_locks(dsn: str, client: BackfillClient) -> None:
    """What a worker that died, one without a row and one of another program have left."""
    await rows(
        dsn,
        f"""insert into {SCHEMA}.backfill_workers (id, host, pid, heartbeat_at, protocol, version, dead_after)
        values ('backfill_dead', 'there', 7, now() - interval '1 hour', 3, '0', '1 second')""",
    )
    for holder in ("backfill_dead", "backfill_gone", NODE):
        job = await client.enqueue("plain", holder, queue=Queue.serial(holder), delay=timedelta(hours=1))
        lock: LiteralString = "set locked_by = %s, locked_at = now() - interval '5 hours'"
        await rows(
            dsn, f"update {SCHEMA}._private_jobs {lock}, attempts = 1, run_at = now() where id = %s", holder, job.id
        )
        await rows(dsn, f"update {SCHEMA}._private_job_queues {lock} where queue_name = %s", holder, holder)


@pytest.mark.parametrize("through", ["direct", "pooler"])
@pytest.mark.parametrize(("level", "whose"), [("serializable", "role"), ("repeatable read", "database")])
async def test_a_worker_and_its_producers(
    dsn: str, make_pooler: MakePooler, eventually: Eventually, through: str, level: str, whose: str
) -> None:
    """Claims, settlements, serial queues, heartbeats, recovery, cleanup, single jobs and bulk.

    All are read committed.
    """
    async with BackfillClient(dsn) as client:
        await leave_locks(dsn, client)
    await note_levels(dsn)
    await default_to(dsn, level, whose)
    used = dsn if through == "direct" else make_pooler(dsn)
    config = WorkerConfig(
        used, listen=through == "direct", poll_interval=SECOND / 10, dead_after=2 * SECOND,
        heartbeat_interval=SECOND / 5,
        stale_lock_cleanup_interval=SECOND, dlq_processor_interval=SECOND,
    )  # fmt: skip
    ran: list[Any] = []
    async with BackfillClient(used) as client:
        await enqueue_all(client)
        async with WorkerRunner(config, registry_of(ran)) as runner:
            await enqueue_all(client)
            await eventually(lambda: {"backfill_dead", "backfill_gone", NODE} <= set(map(str, ran)), timeout=30)
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=30)
            await runner.flush_counters()
        assert len((await client.list_dlq_jobs()).jobs) == 2
    assert await rows(dsn, LEVELS) == []
    written = {row[0] for row in await rows(dsn, "select distinct place from levels")}
    assert written == set(TABLES)
    beats = await value(dsn, "select count(*) from levels where place = 'backfill_workers' and what = 'UPDATE'")
    assert beats > 3


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
async def test_a_given_pool(dsn: str, level: str) -> None:
    """Its transactions are read committed while the client has a connection.

    What its owner set is there again afterwards.
    """
    await note_levels(dsn)
    await default_to(dsn, level, "database")

    async def configure(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)

    async with psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=4, configure=configure, open=False) as pool:
        async with BackfillClient(pool=pool) as client:
            await enqueue_all(client)
            await client.startup_cleanup()
        async with pool.connection() as connection:
            assert connection.isolation_level == psycopg.IsolationLevel.SERIALIZABLE
            cursor = await connection.execute("show transaction_isolation")
            assert await cursor.fetchone() == ("serializable",)
    assert await rows(dsn, LEVELS) == []


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
async def test_migrating(empty_dsn: str, level: str) -> None:
    """The schema is made, by several at once, and can be used."""
    await default_to(empty_dsn, level, "role")

    async def migrated() -> None:
        async with BackfillClient(empty_dsn, migrate=True) as client:
            await client.enqueue("t", job_key="k")

    await asyncio.gather(*(migrated() for _ in range(4)))
    assert await jobs_left(empty_dsn) == 1


async def test_sessions_of_ours(dsn: str) -> None:
    """A connection's session is set once; one that is read committed anyway is left as it is."""
    async with await connect(dsn) as connection:
        cursor = await connection.execute("select source from pg_settings where name = 'default_transaction_isolation'")
        assert await cursor.fetchone() == ("default",)
    await default_to(dsn, "serializable", "role")
    async with await connect(dsn) as connection:
        cursor = await connection.execute("show transaction_isolation")
        assert await cursor.fetchone() == ("read committed",)
        async with connection.transaction():
            cursor = await connection.execute("show transaction_isolation")
            assert await cursor.fetchone() == ("read committed",)
