"""Serial queues that nothing uses: what is collected, what never is, and who adds a job just then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import IsolationLevel

from backfill import (
    BackfillClient,
    CleanupRefusedError,
    InvalidJobError,
    JobKeyMode,
    JobSpec,
    NewJob,
    Queue,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.client import asking
from backfill.client.lent import ServicesClient
from backfill.client.verbs import cleanup
from backfill.storage.connection import Connection, connect
from backfill.storage.schema.migrate import migrate
from backfill.storage.statements import render
from backfill.worker.upkeep import cleaner
from contract.scripts import run_script

from places import TESTS
from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
TASKS = "graphile_worker._private_tasks"
WORKERS = "graphile_worker.backfill_workers"
NAMES: LiteralString = f"select queue_name from {QUEUES} order by queue_name"
ORPHANS: LiteralString = f"""
    select count(*) from {JOBS} as jobs
    where not exists (select from {TASKS} as tasks where tasks.id = jobs.task_id)
      or job_queue_id is not null and not exists (select from {QUEUES} as queues where queues.id = job_queue_id)"""
WAITING: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and pid <> pg_backend_pid()"""
ROW: LiteralString = f"""
    insert into {WORKERS} (id, host, pid, heartbeat_at, protocol, tasks, version)
    values (%s, 'there', 7, now() - %s, 1, %s, '0')"""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def unused(dsn: str, *names: str) -> None:
    """Make queues without a job."""
    await rows(dsn, f"insert into {QUEUES} (queue_name) select unnest(%s::text[])", list(names))


async def hold_unused(connection: Connection) -> str:
    """A collector's first look: the ids that it holds."""
    cursor = await connection.execute(render("find_unused_queues"), [0, 1000, 500])
    row = await cursor.fetchone()
    assert row is not None
    return str(row[1])


KINDS: dict[str, LiteralString] = {
    "waits": "set priority = 0",
    "for later": "set run_at = 'infinity'",
    "held": "set locked_by = 'somebody', locked_at = now()",
    "held by nobody": "set locked_at = now()",
    "held since never": "set locked_by = 'somebody'",
    "failed for good": "set attempts = max_attempts",
    "failed for good, held": "set attempts = max_attempts, locked_by = 'somebody', locked_at = now()",
    "failed for good, held by nobody": "set attempts = max_attempts, locked_at = now()",
    "failed for good, held since never": "set attempts = max_attempts, locked_by = 'somebody'",
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_queue_with_any_job_stays(dsn: str, client: BackfillClient, kind: str) -> None:
    """Whatever its state; both by the first look and by the second, which a job may come before."""
    await client.enqueue("t", queue=Queue.serial("used"))
    await rows(dsn, f"update {JOBS} {KINDS[kind]}")
    await unused(dsn, "unused")
    async with await connect(dsn) as connection:
        await connection.execute("begin")
        held = await hold_unused(connection)
        assert held == await value(dsn, f"select array_agg(id)::text from {QUEUES} where queue_name = 'unused'")
        cursor = await connection.execute(render("delete_unused_queues"), ["{1,2,3,4}"])
        assert await cursor.fetchone() == (1,)
        await connection.execute("rollback")
    assert await client.collect_queues() == 1
    assert await rows(dsn, NAMES) == [("used",)]


@pytest.mark.parametrize("column", ["locked_at = now()", "locked_by = 'somebody'"])
async def test_a_locked_queue_stays(dsn: str, client: BackfillClient, column: LiteralString) -> None:
    """Even without a job: its lock is somebody's, or for the release of stale locks."""
    await unused(dsn, "q")
    await rows(dsn, f"update {QUEUES} set {column}")
    assert await client.collect_queues() == 0
    await rows(dsn, f"update {QUEUES} set locked_at = null, locked_by = null")
    assert await client.collect_queues() == 1


async def test_many_queues_go_in_steps(dsn: str, client: BackfillClient) -> None:
    """Used ones between them; up to a limit, and then the rest."""
    await rows(dsn, f"insert into {QUEUES} (queue_name) select 'q' || n from generate_series(1, 4000) as n")
    await rows(dsn, f"insert into {JOBS} (task_id, job_queue_id) select 1, id from {QUEUES} where id % 3 = 0")
    assert await client.collect_queues(limit=1) == 1
    assert await client.collect_queues(limit=1200) == 1200
    assert await client.collect_queues() == 4000 - 4000 // 3 - 1201
    assert await client.collect_queues() == 0
    assert await value(dsn, f"select count(*) from {QUEUES}") == 4000 // 3


@given(used=st.lists(st.booleans(), max_size=12), page=st.integers(1, 4), looked=st.integers(1, 5))
@settings(max_examples=settings.default.max_examples // 3)
async def test_whatever_the_steps(dsn: str, used: list[bool], page: int, looked: int) -> None:
    """Any sizes of steps delete all that is unused, and nothing else."""
    await rows(dsn, f"truncate {JOBS}, {QUEUES}")
    for number, job in enumerate(used):
        await unused(dsn, f"q{number:02}")
        if job:
            await rows(dsn, "select graphile_worker.add_job('t', queue_name => %s)", f"q{number:02}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleanup, "_PAGE", page)
        patch.setattr(cleanup, "_LOOKED_AT", looked)
        async with BackfillClient(dsn) as client:
            assert await client.collect_queues() == used.count(False)
    assert await rows(dsn, NAMES) == [(f"q{number:02}",) for number, job in enumerate(used) if job]


Way = Callable[[BackfillClient, Connection | None], Awaitable[Any]]
SERIAL = Queue.serial("q")
WAYS: dict[str, Way] = {
    "one": lambda client, own: client.enqueue("t", queue=SERIAL, connection=own),
    "one of a new task": lambda client, own: client.enqueue("new", queue=SERIAL, connection=own),
    "one with a key": lambda client, own: client.enqueue("t", queue=SERIAL, job_key="k", connection=own),
    "one deduped": lambda client, own: client.enqueue(
        "t", queue=SERIAL, job_key="k", job_key_mode=JobKeyMode.UNSAFE_DEDUPE, connection=own
    ),
    "bulk": lambda client, own: client.enqueue_bulk("t", range(3), queue=SERIAL, connection=own),
    "bulk with ids": lambda client, own: client.enqueue_bulk(
        "t", range(3), queue=SERIAL, return_ids=True, connection=own
    ),
    "bulk with keys": lambda client, own: client.enqueue_bulk(
        [
            NewJob("t", n, JobSpec(queue=SERIAL, job_key=f"k{n}", job_key_mode=mode))
            for n, mode in enumerate(JobKeyMode)
        ],
        connection=own,
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("joined", [False, True])
async def test_a_job_that_comes_while_its_queue_is_held(
    dsn: str, client: BackfillClient, eventually: Eventually, way: str, joined: bool
) -> None:
    """Whoever adds it waits for the collector, and then makes the queue again; in a caller's transaction too."""
    await client.enqueue("t", queue=SERIAL)
    await rows(dsn, f"delete from {JOBS}")
    async with await connect(dsn) as collector, await connect(dsn) as own:
        await collector.execute("begin")
        held = await hold_unused(collector)
        if joined:
            await own.execute("begin")
        adding = asyncio.ensure_future(WAYS[way](client, own if joined else None))
        await eventually(lambda: value(dsn, WAITING), lambda waiting: waiting == 1)
        cursor = await collector.execute(render("delete_unused_queues"), [held])
        assert await cursor.fetchone() == (1,)
        assert not adding.done()
        await collector.execute("commit")
        await adding
        if joined:
            await own.execute("commit")
    assert await value(dsn, f"select count(*) from {JOBS}") > 0
    assert await value(dsn, ORPHANS) == 0
    assert await rows(dsn, NAMES) == [("q",)]


@pytest.mark.parametrize("way", WAYS)
async def test_a_job_whose_transaction_is_open_keeps_its_queue(dsn: str, client: BackfillClient, way: str) -> None:
    """The collector waits for nobody, and takes what is held by others for used; undone, the queue is collected."""
    await unused(dsn, "q", "r")
    async with await connect(dsn) as own:
        await own.execute("begin")
        await WAYS[way](client, own)
        assert await client.collect_queues() == 1
        await own.execute("commit")
        assert await value(dsn, ORPHANS) == 0
        await rows(dsn, f"delete from {JOBS}")
        await own.execute("begin")
        await WAYS[way](client, own)
        await own.execute("rollback")
    assert await client.collect_queues() == 1


async def test_a_requeued_dead_letter_finds_its_queue(dsn: str, client: BackfillClient, eventually: Eventually) -> None:
    """Its queue was collected long ago, or is just now."""
    job = (await client.enqueue("t", queue=SERIAL)).job
    entry = await client.add_to_dlq(job, "why")
    await rows(dsn, f"delete from {JOBS}")
    assert await client.collect_queues() == 1
    await client.requeue_dlq_job(entry.id)
    assert await value(dsn, ORPHANS) == 0
    await rows(dsn, f"delete from {JOBS}")
    async with await connect(dsn) as collector:
        await collector.execute("begin")
        held = await hold_unused(collector)
        adding = asyncio.ensure_future(client.requeue_dlq_job(entry.id))
        await eventually(lambda: value(dsn, WAITING), lambda waiting: waiting == 1)
        await collector.execute(render("delete_unused_queues"), [held])
        await collector.execute("commit")
        await adding
    assert (await value(dsn, ORPHANS), await rows(dsn, NAMES)) == (0, [("q",)])


async def test_a_snapshot_that_is_older_than_the_collection(dsn: str, client: BackfillClient) -> None:
    """A caller's transaction that sees a queue which is gone is refused by the server: no job is left without one."""
    await unused(dsn, "q")
    async with await connect(dsn) as own:
        await own.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        async with own.transaction(force_rollback=True):
            await own.execute("select count(*) from graphile_worker._private_job_queues")
            assert await client.collect_queues() == 1
            with pytest.raises(psycopg.errors.SerializationFailure):
                await client.enqueue("t", queue=SERIAL, connection=own)
    assert await value(dsn, f"select count(*) from {JOBS}") == 0


@pytest.mark.parametrize("default", ["read committed", "repeatable read", "serializable"])
async def test_a_job_that_came_between_the_looks(
    dsn: str, client: BackfillClient, monkeypatch: pytest.MonkeyPatch, default: str
) -> None:
    """It is seen, whatever isolation a session of the role begins with."""
    await unused(dsn, "q", "r")
    original, looks = asking.run, list[str]()

    async def run(connection: Connection, name: str, schema: str, parameters: Any = (), **more: Any) -> Any:
        looks.append(name)
        if name == "find_unused_queues" and looks.count(name) == 1:  # the transaction has begun
            await client.enqueue("t", queue=SERIAL)
        return await original(connection, name, schema, parameters, **more)

    monkeypatch.setattr(asking, "run", run)
    spaced = default.replace(" ", "\\\\ ")
    async with BackfillClient(f"{dsn} options='-c default_transaction_isolation={spaced}'") as other:
        assert await other.collect_queues() == 1
    assert "delete_unused_queues" in looks
    assert (await value(dsn, ORPHANS), await rows(dsn, NAMES)) == (0, [("q",)])


async def test_a_job_that_the_first_look_did_not_see(
    dsn: str, client: BackfillClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second does; workers are told of it, since one that heard of it may have found its queue held."""
    await client.enqueue("t", queue=SERIAL)
    await unused(dsn, "r")
    original, looks = asking.run, list[str]()

    async def run(connection: Connection, name: str, schema: str, parameters: Any = (), **more: Any) -> Any:
        looks.append(name)
        if name == "find_unused_queues":
            cursor = connection.cursor()
            await cursor.execute(
                f"select null as last, array_agg(id)::text as ids from (select id from {QUEUES} for update) as held"
            )
            return cursor.pgresult
        return await original(connection, name, schema, parameters, **more)

    monkeypatch.setattr(asking, "run", run)
    assert await client.collect_queues() == 1
    assert looks[looks.index("find_unused_queues") :] == ["find_unused_queues", "delete_unused_queues", "notify_jobs"]
    assert (await value(dsn, ORPHANS), await rows(dsn, NAMES)) == (0, [("q",)])


async def test_a_storm(dsn: str, client: BackfillClient, eventually: Eventually) -> None:
    """Producers of every way, a worker that remembers its queues and a collector without rest: every job runs, once."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran: list[int] = []

    @tasks.task("t")
    async def handler(number: int) -> None:
        ran.append(number)

    async def collect() -> int:
        count = 0
        while len(ran) < 1200:
            count += await client.collect_queues()
        return count

    async def produce(first: int) -> None:
        for number in range(first, first + 150):
            lane = Queue.serial(f"q{number % 7}")
            match number % 3:
                case 0:
                    await client.enqueue(handler.job(number), queue=lane)
                case 1:
                    await client.enqueue(handler.job(number), queue=lane, job_key=str(number))
                case _:
                    await client.enqueue_bulk(handler, [number], queue=lane)

    async with WorkerRunner(WorkerConfig(dsn, concurrency=5), tasks):
        collecting = asyncio.ensure_future(collect())
        await asyncio.gather(*(produce(first) for first in range(0, 1200, 150)))
        await eventually(lambda: len(ran) >= 1200)
        assert await collecting > 0
    assert sorted(ran) == list(range(1200))


async def test_a_worker_collects_now_and_then(
    dsn: str, client: BackfillClient, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The live one with the smallest id; the others leave it to that one."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler() -> None: ...

    monkeypatch.setattr(cleaner, "COLLECT_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(cleaner, "COLLECT_SECONDS", 0.0)
    await unused(dsn, "q")
    config = WorkerConfig(dsn, stale_lock_cleanup_interval=timedelta(seconds=1))
    await rows(dsn, ROW, "backfill_0", timedelta(0), [])
    async with WorkerRunner(config, tasks) as runner:
        assert runner._parts is not None
        [part] = [one for one in runner._parts.services if isinstance(one, cleaner.Cleaner)]
        await part._round()
        assert await rows(dsn, NAMES) == [("q",)]
        await rows(dsn, f"delete from {WORKERS} where id = 'backfill_0'")
        await eventually(lambda: rows(dsn, NAMES), lambda found: found == [])


@pytest.fixture
def engine_dsn(dsn: str) -> str:
    """A database of ours on which the Rust engine's migrations ran later."""
    run_script(dsn, (TESTS / "contract" / "rust_engine.sql").read_text())
    return dsn


async def test_never_where_another_programs_function_adds_jobs(engine_dsn: str, caplog: Any) -> None:
    """Its add_jobs holds no queue: nothing is collected, by nobody; a worker says so to who debugs."""
    await unused(engine_dsn, "q")
    async with ServicesClient(engine_dsn) as client:
        with pytest.raises(CleanupRefusedError, match="its add_job or add_jobs is another program's"):
            await client.collect_queues()
        with pytest.raises(CleanupRefusedError, match="its add_job or add_jobs is another program's"):
            await client.collect_tasks()
        await rows(engine_dsn, ROW, "backfill_0", timedelta(0), [])
        part = cleaner.Cleaner(client, config=WorkerConfig(), interval=60.0, worker=lambda: "backfill_0")
        await part._collect()
    assert await rows(engine_dsn, NAMES) == [("q",)]


async def test_never_on_graphile_workers_own_schema(node_dsn: str) -> None:
    """Nor there."""
    async with await connect(node_dsn) as connection:
        await migrate(connection, schema="graphile_worker")
    await unused(node_dsn, "q")
    async with BackfillClient(node_dsn) as client:
        with pytest.raises(CleanupRefusedError):
            await client.collect_queues()
    assert await rows(node_dsn, NAMES) == [("q",)]


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, 2**31])
async def test_limits_that_are_none(limit: Any) -> None:
    """Refused by name before anything is connected."""
    with pytest.raises(InvalidJobError, match=r"^limit = "):
        await BackfillClient("host=nowhere").collect_queues(limit)
