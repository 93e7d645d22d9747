"""Node's graphile-worker and backfill on one schema, whoever made it.

Each runs the other's jobs, and queues stay serial.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg_pool
import pytest

from backfill import (
    BackfillClient,
    EnqueueStatus,
    JobSpec,
    NewJob,
    Queue,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from contract.snapshot import snapshot

from plugins.node import Node
from plugins.periods import work_for
from plugins.waiting import Eventually
from reading import rows, value

SCHEMA = "graphile_worker"
LEDGER = "select id, ts, breaking from graphile_worker.migrations order by id"
JOBS = "select count(*) from graphile_worker._private_jobs"
DUE = "select count(*) from graphile_worker._private_jobs where run_at <= now()"
LOCKED_QUEUES = "select count(*) from graphile_worker._private_job_queues where locked_at is not null"
SOON = timedelta(milliseconds=20)


async def work(dsn: str, *names: str) -> list[dict[str, Any]]:
    """Run what is due, as we do; what each handler was given."""
    seen: list[dict[str, Any]] = []
    tasks: TaskRegistry[None] = TaskRegistry()

    async def handle(payload: Any, ctx: WorkerContext[None]) -> None:
        fields = ("id", "task_identifier", "queue_name", "priority", "key", "flags", "max_attempts")
        seen.append({"payload": payload, "attempt": ctx.attempt, **{name: getattr(ctx.job, name) for name in fields}})

    for name in names:
        tasks.task(name)(handle)
    await WorkerRunner(WorkerConfig(dsn, concurrency=1), tasks).process_available_jobs()
    return seen


@pytest.fixture(params=["backfill's schema", "Node's schema"])
async def node(request: pytest.FixtureRequest, node_modules: Path, dsn: str, empty_dsn: str) -> Node:
    """Node's worker on a database that we migrated, and on one that Node did first and we after it."""
    if request.param == "backfill's schema":
        return Node(node_modules, dsn)
    node = Node(node_modules, empty_dsn)
    await node.run("migrate.js")
    await (await BackfillClient.connect(empty_dsn, migrate=True)).close()
    return node


async def test_node_accepts_our_schema(node_modules: Path, dsn: str) -> None:
    """Node's own migrations find nothing to do in a schema of ours, and change nothing."""
    before = snapshot(dsn, SCHEMA), await rows(dsn, LEDGER)
    await Node(node_modules, dsn).run("migrate.js")
    assert (snapshot(dsn, SCHEMA), await rows(dsn, LEDGER)) == before


async def test_we_leave_nodes_schema_alone(node_modules: Path, empty_dsn: str) -> None:
    """Where Node came first, migrating adds objects named backfill_*, and touches nothing but autovacuum's settings."""
    node = Node(node_modules, empty_dsn)
    await node.run("migrate.js")
    before, ledger = snapshot(empty_dsn, SCHEMA, ledger=False), await rows(empty_dsn, LEDGER)
    async with BackfillClient(empty_dsn, migrate=True):
        pass
    after = snapshot(empty_dsn, SCHEMA, ledger=False)
    for part, objects in before.items():
        if part not in ("indexes", "constraints"):  # these are told without their names; two more parts have them
            added = after[part].keys() - objects.keys()
            assert [name for name in added if "backfill_" not in name] == [], part
        for name, definition in objects.items():
            found = after[part][name]
            assert (_without_vacuum(found) if part == "storage" else found) == definition, f"{part}: {name}"
    assert "backfill_workers" in after["storage"], "ours are there"
    await node.run("migrate.js")
    assert snapshot(empty_dsn, SCHEMA, ledger=False) == after, "Node still accepts it, and leaves ours alone"
    assert await rows(empty_dsn, LEDGER) == ledger


def _without_vacuum(options: str) -> str:
    """A table's storage parameters without autovacuum's."""
    return ", ".join(option for option in options.split(", ") if not option.startswith("autovacuum_"))


async def test_node_runs_our_jobs(node: Node) -> None:
    """A plain job, a serial one, one with a key and one with flags, which Node can be told to leave alone."""
    async with BackfillClient(node.dsn) as client:
        plain = await client.enqueue("greet", {"name": "Ada"}, priority=-3)
        serial = await client.enqueue("greet", {"name": "Grace"}, queue=Queue.serial_for("user", 7), max_attempts=3)
        keyed = await client.enqueue("greet", {"name": "Barbara"}, job_key="welcome:7", priority=5)
        flagged = await client.enqueue("greet", {"name": "Radia"}, flags=["slow"], priority=9)
    first = await node.work("greet", forbidden=("slow",))
    assert [(job["id"], job["payload"]["name"]) for job in first] == [
        (str(plain.id), "Ada"),
        (str(serial.id), "Grace"),
        (str(keyed.id), "Barbara"),
    ]
    assert [job["attempts"] for job in first] == [1, 1, 1]
    assert [job["priority"] for job in first] == [-3, 0, 5]
    assert [job["max_attempts"] for job in first] == [8, 3, 8]
    assert [job["queue"] for job in first] == [None, "user:7", None]
    assert [job["key"] for job in first] == [None, None, "welcome:7"]
    [last] = await node.work("greet")
    assert (last["id"], last["flags"]) == (str(flagged.id), {"slow": True})
    assert await value(node.dsn, JOBS) == 0
    assert await value(node.dsn, LOCKED_QUEUES) == 0


async def test_node_runs_our_bulk(node: Node) -> None:
    """Jobs that came by COPY are jobs like any other to Node."""
    async with BackfillClient(node.dsn) as client:
        await client.enqueue_bulk("greet", [{"name": str(number)} for number in range(50)])
        await client.enqueue_bulk("greet", [{"name": "serial"}] * 3, queue=Queue.serial("line"))
    assert await value(node.dsn, DUE) == 53
    names = []
    while await value(node.dsn, JOBS):
        # Node ends once it finds nothing, also where a serial queue is locked by the last of its own jobs: then again.
        ran = await node.work("greet")
        assert ran
        names += [job["payload"]["name"] for job in ran]
    assert sorted(names) == sorted([str(number) for number in range(50)] + ["serial"] * 3)


async def test_we_run_nodes_jobs(node: Node) -> None:
    """What Node's addJob was told reaches our handler: payload, queue, key, priority, flags and number of runs."""
    plain, full = await node.add(
        ("greet", {"name": "Ada"}, {}),
        (
            "greet",
            {"name": "Grace"},
            {
                "queueName": "line",
                "jobKey": "k",
                "priority": -7,
                "maxAttempts": 4,
                "flags": ["slow"],
                "runAt": (datetime.now(UTC) - timedelta(hours=1)).isoformat(),
            },
        ),
    )
    assert await work(node.dsn, "greet") == [
        {
            "payload": {"name": "Grace"},
            "attempt": 1,
            "id": int(full["id"]),
            "task_identifier": "greet",
            "queue_name": "line",
            "priority": -7,
            "key": "k",
            "flags": ("slow",),
            "max_attempts": 4,
        },
        {
            "payload": {"name": "Ada"},
            "attempt": 1,
            "id": int(plain["id"]),
            "task_identifier": "greet",
            "queue_name": None,
            "priority": 0,
            "key": None,
            "flags": (),
            "max_attempts": 25,
        },
    ]
    assert await value(node.dsn, JOBS) == 0
    assert await value(node.dsn, LOCKED_QUEUES) == 0


async def test_a_key_is_one_for_both(node: Node) -> None:
    """A job that one side added is replaced by the other's of the same key."""
    async with BackfillClient(node.dsn) as client:
        ours = await client.enqueue("greet", {"name": "ours"}, job_key="k")
        [theirs] = await node.add(("greet", {"name": "theirs"}, {"jobKey": "k"}))
        assert (theirs["id"], theirs["revision"]) == (str(ours.id), 1)
        again = await client.enqueue("greet", {"name": "ours again"}, job_key="k")
        assert (again.status, again.id, again.revision) == (EnqueueStatus.REPLACED, ours.id, 2)
    [run] = await node.work("greet")
    assert run["payload"] == {"name": "ours again"}


async def test_a_failure_passes_from_one_to_the_other(node: Node) -> None:
    """A job that failed in one is retried by the other, and each attempt is counted once."""
    async with BackfillClient(node.dsn) as client:
        outcome = await client.enqueue("greet", {"fail": "not today"}, queue=Queue.serial("line"))
        assert await node.work("greet") == []
        failed = await client.get_job(outcome.id)
        assert failed is not None
        assert (failed.attempts, failed.last_error, failed.locked_by) == (1, "not today", None)
        await client.reschedule_jobs([outcome.id], run_at=datetime.now(UTC) - timedelta(seconds=1))
    assert [job["attempt"] for job in await work(node.dsn, "greet")] == [2]


async def test_a_job_that_node_completes_takes_its_attempts_with_it(node: Node) -> None:
    """Node deletes its row and knows nothing of our records: nobody is shown them, and our workers delete them."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("greet")
    async def greet() -> None:
        raise ValueError("not today")

    kept = "select count(*) from graphile_worker.backfill_attempts"
    async with BackfillClient(node.dsn) as client:
        outcome = await client.enqueue("greet", {"name": "Ada"})
        await WorkerRunner(WorkerConfig(node.dsn), tasks).process_available_jobs()
        assert [record.message for record in await client.attempts(outcome)] == ["not today"]
        await client.reschedule_jobs([outcome.id], run_at=datetime.now(UTC) - timedelta(seconds=1))
        assert len(await node.work("greet")) == 1
        assert await client.attempts(outcome) == []
        assert await value(node.dsn, kept) == 1
    await WorkerRunner(WorkerConfig(node.dsn), tasks).process_available_jobs()
    assert await value(node.dsn, kept) == 0


async def test_node_leaves_a_held_queue_alone(node: Node) -> None:
    """A queue that waits for the retry of a job: Node runs neither that job nor those behind it, and our workers do."""
    lane = Queue.serial("line", block_on_retry=True)
    due = datetime.now(UTC) - timedelta(seconds=1)
    async with BackfillClient(node.dsn) as client:
        first = await client.enqueue("greet", {"fail": True}, queue=lane)
        second = await client.enqueue("greet", {"name": "Ada"}, queue=lane)
        tasks: TaskRegistry[None] = TaskRegistry()

        @tasks.task("greet")
        async def greet() -> None:
            raise ValueError("not today")

        await WorkerRunner(WorkerConfig(node.dsn, concurrency=1), tasks).process_available_jobs()
        await client.reschedule_jobs([first], run_at=due)
        assert [held.job_id for held in await client.held_queues()] == [first.id]
        assert await node.work("greet") == []
    assert [job["id"] for job in await work(node.dsn, "greet")] == [first.id, second.id]
    assert await value(node.dsn, LOCKED_QUEUES) == 0


async def test_node_holds_no_queue(node: Node) -> None:
    """Where Node runs a job with the flag and it fails, Node runs the next one: it does not know the flag."""
    lane = Queue.serial("line", block_on_retry=True)
    async with BackfillClient(node.dsn) as client:
        await client.enqueue("greet", {"fail": "not today"}, queue=lane)
        second = await client.enqueue("greet", {"name": "Ada"}, queue=lane)
        assert [job["id"] for job in await node.work("greet")] == [str(second.id)]


async def test_a_queue_is_serial_for_both_together(node: Node, eventually: Eventually) -> None:
    """With both workers at the same serial queues, and each with jobs at once to spare, no two jobs of one overlap.

    A worker that holds a queue claims its next job with the settlement, so there are more queues than ours has slots.
    """
    await rows(
        node.dsn,
        """create table spans (
             job_id bigint primary key, queue_id integer, worker text not null, began timestamptz not null,
             ended timestamptz
           )""",
    )
    tasks = _recording(node.dsn)
    beside = await node.start("record.js", "4")
    try:
        assert beside.stdout is not None
        assert json.loads(await beside.stdout.readline()) == "ready"
        config = WorkerConfig(node.dsn, concurrency=4, poll_interval=SOON)
        async with WorkerRunner(config, tasks), BackfillClient(node.dsn) as client:

            async def feed() -> bool:
                """Whether both have done their share; while not, the queue gets more to do, and so do free hands."""
                counts = dict(await rows(node.dsn, "select worker, count(*) from spans where queue_id > 0 group by 1"))
                if counts.get("node", 0) >= 10 and counts.get("backfill", 0) >= 10:
                    return True
                if await value(node.dsn, JOBS) < 20:
                    lines = (JobSpec(queue=Queue.serial(f"line{number % 8}")) for number in range(24))
                    await client.enqueue_bulk(NewJob("record", None, line) for line in lines)
                    await client.enqueue_bulk("record", range(5))
                return False

            await eventually(feed)
            await eventually(lambda: value(node.dsn, JOBS), lambda left: left == 0)
        assert beside.stdin is not None
        beside.stdin.close()
        _, complaints = await asyncio.wait_for(beside.communicate(), 30)
        assert beside.returncode == 0, complaints.decode()
    finally:
        if beside.returncode is None:
            beside.kill()
            await beside.communicate()
    assert await value(node.dsn, "select count(*) from spans where ended is null") == 0
    overlaps = await rows(
        node.dsn,
        """select one.job_id, other.job_id from spans as one
           join spans as other on one.queue_id = other.queue_id and one.job_id < other.job_id
             and one.began < other.ended and other.began < one.ended""",
    )
    assert overlaps == []
    assert await value(node.dsn, LOCKED_QUEUES) == 0


def _recording(dsn: str) -> TaskRegistry[Any]:
    @asynccontextmanager
    async def records(_: BackfillClient) -> AsyncIterator[psycopg_pool.AsyncConnectionPool[Any]]:
        async with psycopg_pool.AsyncConnectionPool(dsn, min_size=4, max_size=4, kwargs={"autocommit": True}) as pool:
            yield pool

    tasks: TaskRegistry[psycopg_pool.AsyncConnectionPool[Any]] = TaskRegistry(lifespan=records)

    @tasks.task("record")
    async def record(ctx: WorkerContext[psycopg_pool.AsyncConnectionPool[Any]]) -> None:
        async with ctx.deps.connection() as connection:
            await connection.execute(
                """insert into spans (job_id, queue_id, worker, began)
                   values (%s, %s, 'backfill', clock_timestamp())""",
                (ctx.job.id, ctx.job.job_queue_id),
            )
            await work_for(0.06)  # too long to claim any ahead
            await connection.execute("update spans set ended = clock_timestamp() where job_id = %s", (ctx.job.id,))

    return tasks
