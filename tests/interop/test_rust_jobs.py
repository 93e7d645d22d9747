"""The crate graphile_worker and backfill on one schema, whoever made it: each runs the other's jobs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import pytest

from backfill import (
    BackfillClient,
    BatchFailed,
    EnqueueStatus,
    JobKeyMode,
    JobSpec,
    NewJob,
    Queue,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from contract.snapshot import snapshot

from plugins.node import Node
from plugins.periods import work_for
from plugins.rust import Rust
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

JOBS = "select count(*) from graphile_worker._private_jobs"
HELD: LiteralString = "select count(*) from graphile_worker._private_job_queues where locked_at is not null"
LEDGER = "select id from graphile_worker.migrations where id > 19 order by id"
RETIRED = "select count(*) from graphile_worker._private_job_retirements"
WHOSE = "select graphile_worker.backfill_whose_functions(false)"
FAR = datetime(2077, 1, 1, tzinfo=UTC)


async def migrated(dsn: str) -> None:
    """Bring the schema up to date, as we do."""
    await (await BackfillClient.connect(dsn, migrate=True)).close()


@pytest.fixture(params=["ours", "theirs", "ours and Node's", "ours, then Node at the crate's"])
async def engine(request: pytest.FixtureRequest, rust_programs: Path, node_modules: Path, empty_dsn: str) -> Rust:
    """The crate on a database, by who set it up: the last one named came last, before us once more."""
    engine = Rust(rust_programs / "engine-partner", empty_dsn)
    if request.param != "theirs":
        await migrated(empty_dsn)
    if request.param == "ours and Node's":
        await _node(node_modules, empty_dsn)
        assert await rows(empty_dsn, LEDGER) == [(20,)]
    await engine.run("migrate")
    if request.param == "ours, then Node at the crate's":
        before = snapshot(empty_dsn, "graphile_worker")
        await _node(node_modules, empty_dsn)
        assert snapshot(empty_dsn, "graphile_worker") == before
    await migrated(empty_dsn)
    return engine


async def _node(modules: Path, dsn: str) -> None:
    """Let a worker of Graphile Worker 0.18 start and end."""
    process = await Node(modules, dsn).start("newer.js", '["other"]', "[]")
    assert process.stdin is not None
    process.stdin.close()
    told, complaints = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, complaints.decode()
    assert told.splitlines()[0] == b'"ready"'


async def work(dsn: str, *names: str, **options: Any) -> list[dict[str, Any]]:
    """Run what is due, as we do; what each handler was given."""
    seen: list[dict[str, Any]] = []
    tasks: TaskRegistry[None] = TaskRegistry()

    async def handle(payload: Any, ctx: WorkerContext[None]) -> None:
        fields = ("id", "queue_name", "priority", "key", "flags", "max_attempts", "revision")
        seen.append({"payload": payload, "attempt": ctx.attempt, **{name: getattr(ctx.job, name) for name in fields}})

    for name in names:
        tasks.task(name)(handle)
    await WorkerRunner(WorkerConfig(dsn, **options), tasks).process_available_jobs()
    return seen


async def test_both_accept_the_schema(engine: Rust, caplog: pytest.LogCaptureFixture) -> None:
    """The crate's three migrations are there, a second start of either changes nothing, and ours knows whose it is."""
    assert await rows(engine.dsn, LEDGER) == [(20,), (21,), (22,)]
    before = snapshot(engine.dsn, "graphile_worker")
    await engine.run("migrate")
    with caplog.at_level(logging.WARNING, "backfill"):
        await migrated(engine.dsn)
        await work(engine.dsn, "ours")
    assert snapshot(engine.dsn, "graphile_worker") == before
    assert await value(engine.dsn, WHOSE) in ("engine", "theirs")
    told = [record.getMessage() for record in caplog.records if "--take-over-functions" in record.getMessage()]
    assert told == []


async def test_the_crate_runs_our_jobs(engine: Rust) -> None:
    """Plain ones, serial ones, with keys, priorities, flags and attempts; from one call, from many and from bulk."""
    async with BackfillClient(engine.dsn) as client:
        plain = await client.enqueue("theirs", {"n": 0}, priority=-3, max_attempts=3)
        keyed = await client.enqueue("theirs", {"n": 1}, job_key="k", flags=["light"], queue=Queue.serial("line"))
        many = [NewJob("theirs", {"n": n}, JobSpec(job_key=f"k{n}")) for n in range(2, 102)]
        await client.enqueue_bulk(many)
        await client.enqueue_bulk("theirs", [{"n": n} for n in range(102, 302)])
    ran = [told["ran"] for told in await engine.run("work", {"tasks": ["theirs"], "concurrency": 4})]
    by_number = {job["payload"]["n"]: job for job in ran}
    assert sorted(by_number) == list(range(302))
    first, second = by_number[0], by_number[1]
    assert (first["id"], first["priority"], first["max_attempts"], first["attempts"]) == (plain.id, -3, 3, 1)
    assert (second["id"], second["key"], second["flags"], second["is_serial"]) == (keyed.id, "k", {"light": True}, True)
    assert await value(engine.dsn, JOBS) == 0


async def test_we_run_the_crates_jobs(engine: Rust) -> None:
    """The same the other way, added one by one and together."""
    one = ["ours", {"n": 0}, {"priority": -3, "max_attempts": 3}]
    two = ["ours", {"n": 1}, {"job_key": "k", "flags": ["light"], "queue": "line"}]
    added = await engine.run("add", [one, two])
    await engine.run("add_together", [["ours", {"n": n}, {"job_key": f"k{n}"}] for n in range(2, 102)])
    await engine.run("add_together", [["ours", {"n": n}, {"queue": f"q{n % 7}"}] for n in range(102, 302)])
    ran = {job["payload"]["n"]: job for job in await work(engine.dsn, "ours")}
    assert sorted(ran) == list(range(302))
    first, second = ran[0], ran[1]
    assert (first["id"], first["priority"], first["max_attempts"], first["attempt"]) == (added[0]["id"], -3, 3, 1)
    assert (second["id"], second["key"], second["flags"], second["queue_name"]) == (
        added[1]["id"], "k", ("light",), "line",
    )  # fmt: skip
    assert await value(engine.dsn, JOBS) == 0


@pytest.mark.parametrize("mode", list(JobKeyMode))
@pytest.mark.parametrize("first", ["ours", "theirs"])
async def test_a_key_is_one_job_whoever_adds_it(engine: Rust, mode: JobKeyMode, first: str) -> None:
    """In each mode: the second adding finds the first one's job, and does to it what the contract says."""
    async with BackfillClient(engine.dsn) as client:
        there: Any
        if first == "ours":
            there = await client.enqueue("ours", {"n": 1}, job_key="k", run_at=FAR)
            [again] = await engine.run("add", [["ours", {"n": 2}, {"job_key": "k", "job_key_mode": str(mode)}]])
            assert again["id"] == there.id
        else:
            [there] = await engine.run("add", [["ours", {"n": 1}, {"job_key": "k", "run_at": FAR.isoformat()}]])
            outcome = await client.enqueue("ours", {"n": 2}, job_key="k", job_key_mode=mode)
            assert outcome.id == there["id"]
            assert outcome.status is (
                EnqueueStatus.KEPT if mode is JobKeyMode.UNSAFE_DEDUPE else EnqueueStatus.REPLACED
            )
        [job] = await rows(
            engine.dsn, "select payload, revision, run_at >= '2076-01-01' from graphile_worker._private_jobs"
        )
    payload, is_later = ({"n": 1}, True) if mode is JobKeyMode.UNSAFE_DEDUPE else ({"n": 2}, False)
    assert job == (payload, 1, is_later or mode is JobKeyMode.PRESERVE_RUN_AT)


async def test_flags_part_the_work(engine: Rust) -> None:
    """Forbidden and accepted flags mean the same on both sides: each job is run by who takes it, and none is left."""
    specs = [{"flags": flags} for flags in (["gpu"], ["gpu", "slow"], ["light"], [])]
    jobs = [["both", {"n": n}, specs[n % 4]] for n in range(40)]
    await engine.run("add", jobs[:20])
    async with BackfillClient(engine.dsn) as client:
        for task, payload, spec in jobs[20:]:
            await client.enqueue(task, payload, flags=spec["flags"])
    plan = {"tasks": ["both"]}
    ran = await engine.run("work", {**plan, "accepted": ["gpu"], "forbidden": ["slow"]})
    assert sorted(told["ran"]["payload"]["n"] for told in ran) == [n for n in range(40) if n % 4 == 0]
    ours = await work(engine.dsn, "both", accepted_flags=["gpu"])
    assert sorted(job["payload"]["n"] for job in ours) == [n for n in range(40) if n % 4 == 1]
    ours = await work(engine.dsn, "both", forbidden_flags=["light"])
    assert sorted(job["payload"]["n"] for job in ours) == [n for n in range(40) if n % 4 == 3]
    ran = await engine.run("work", {**plan, "accepted": ["light"]})
    assert sorted(told["ran"]["payload"]["n"] for told in ran) == [n for n in range(40) if n % 4 == 2]
    assert await value(engine.dsn, JOBS) == 0


async def test_batches_are_shortened_by_both(engine: Rust) -> None:
    """Each goes on with the items that the other left, and entries of one key are joined whoever adds them."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[Any] = []
    later = RetryPolicy(9, timedelta(hours=1), timedelta(hours=1), 1.0, 0.0)
    due: LiteralString = "update graphile_worker._private_jobs set run_at = now()"

    @tasks.task("batch", batch=True, retry=later)
    async def batch(entries: list[dict[str, Any]]) -> None:
        seen.append(entries)
        failed = [place for place, entry in enumerate(entries) if entry["n"] == 2]
        if failed:
            raise BatchFailed(failed, "not two")

    async with BackfillClient(engine.dsn) as client:
        await client.enqueue("batch", [{"n": 1}, {"n": 2, "fail": "no"}], job_key="all")
        await engine.run("add", [["batch", [{"n": 3, "fail": "nor this"}], {"job_key": "all"}]])
    await engine.run("work", {"tasks": ["batch"]})
    assert await value(engine.dsn, "select payload from graphile_worker._private_jobs") == [
        {"n": 2, "fail": "no"}, {"n": 3, "fail": "nor this"},
    ]  # fmt: skip
    await rows(engine.dsn, due)
    await WorkerRunner(WorkerConfig(engine.dsn), tasks).process_available_jobs()
    assert seen == [[{"n": 2, "fail": "no"}, {"n": 3, "fail": "nor this"}]]
    await rows(engine.dsn, f"{due}, payload = json_build_array(json_build_object('n', 2))")
    [told] = await engine.run("work", {"tasks": ["batch"]})
    assert (told["ran"]["payload"], told["ran"]["attempts"]) == ([{"n": 2}], 3)
    assert await value(engine.dsn, JOBS) == 0


async def test_queues_are_serial_across_both(engine: Rust, eventually: Eventually) -> None:
    """Both work on 40 queues at once: each runs some of the jobs, each job runs once, and no two of a queue overlap."""
    await rows(engine.dsn, "create table runs (n int, queue text, began timestamptz, ended timestamptz)")
    tasks: TaskRegistry[None] = TaskRegistry()
    ours = list[int]()

    @tasks.task("both")
    async def both(payload: dict[str, Any], ctx: WorkerContext[None]) -> None:
        holder = await value(
            engine.dsn, "select locked_by from graphile_worker._private_job_queues where queue_name = %s",
            ctx.job.queue_name,
        )  # fmt: skip
        assert holder == ctx.worker_id
        ours.append(payload["n"])
        await work_for(0.005)

    jobs = [["both", {"n": n}, {"queue": f"q{n % 40}", "job_key": f"j{n}"}] for n in range(400)]
    async with BackfillClient(engine.dsn) as client:
        await engine.run("add_together", jobs[:200])
        for task, payload, spec in jobs[200:]:
            await client.enqueue(task, payload, queue=Queue.serial(spec["queue"]), job_key=spec["job_key"])
        plan = {"tasks": ["both"], "concurrency": 4}
        config = WorkerConfig(engine.dsn, concurrency=4)
        async with engine.running(plan) as theirs, WorkerRunner(config, tasks):
            await eventually(lambda: value(engine.dsn, JOBS), lambda left: left == 0)
    ran = [told["ran"]["payload"]["n"] for told in theirs.seen if "ran" in told]
    assert Counter([*ours, *ran]) == Counter(range(400))
    assert ours
    assert ran
    assert await value(engine.dsn, HELD) == 0
    assert await value(engine.dsn, RETIRED) == 0
