"""The crate backfill and ours on one schema: jobs cross both ways, and both work on one table of dead letters."""

from __future__ import annotations

import asyncio
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, JobKeyMode, Queue, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from plugins.rust import Rust
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

JOBS = "select count(*) from graphile_worker._private_jobs"
LETTERS: LiteralString = "select id, job_key, failure_count, payload from graphile_worker.backfill_dlq order by id"
HELD: LiteralString = "select count(*) from graphile_worker._private_job_queues where locked_at is not null"


@pytest.fixture(params=["ours", "theirs"])
async def seed(request: pytest.FixtureRequest, rust_programs: Any, empty_dsn: str) -> Rust:
    """The crate on a database that we set up first, or that it did, with its table of dead letters, and we after it."""
    seed = Rust(rust_programs / "seed-partner", empty_dsn)
    if request.param == "theirs":
        await seed.run("do", [{"do": "init_dlq"}])
    await (await BackfillClient.connect(empty_dsn, migrate=True)).close()
    assert await seed.run("do", [{"do": "init_dlq"}]) == ["made"]
    return seed


async def one(seed: Rust, **deed: Any) -> Any:
    """Have the crate's client do one thing; what came of it."""
    [told] = await seed.run("do", [deed])
    return told


async def work(dsn: str) -> list[Any]:
    """Run what is due of the task `ours`, which fails where the payload says so; the payloads."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen: list[Any] = []

    @tasks.task("ours")
    async def ours(payload: dict[str, Any]) -> None:
        seen.append(payload)
        if "fail" in payload:
            raise ValueError(payload["fail"])

    await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    return seen


async def test_jobs_cross_both_ways(seed: Rust) -> None:
    """200 each way, with keys, queues and priorities of both clients."""
    specs = [{"queue": f"q{n % 5}", "job_key": f"k{n}", "priority": n % 3 - 1} if n % 2 else {} for n in range(200)]
    await seed.run("enqueue", [["ours", {"n": n}, specs[n]] for n in range(200)])
    assert sorted(payload["n"] for payload in await work(seed.dsn)) == list(range(200))
    async with BackfillClient(seed.dsn) as client:
        for n, spec in enumerate(specs):
            queue = Queue.serial(str(spec["queue"])) if spec else Queue.parallel()
            await client.enqueue(
                "theirs",
                {"n": n},
                queue=queue,
                job_key=f"k{n}" if spec else None,
                priority=int(spec.get("priority", 0)),
            )
    ran = [told["ran"] for told in await seed.run("work")]
    assert sorted(job["payload"]["n"] for job in ran) == list(range(200))
    assert all((job["key"], job["is_serial"]) == (f"k{job['payload']['n']}", True) for job in ran if job["key"])
    assert (await value(seed.dsn, JOBS), await value(seed.dsn, HELD)) == (0, 0)


@pytest.mark.parametrize("mode", list(JobKeyMode))
async def test_a_key_is_one_job(seed: Rust, mode: JobKeyMode) -> None:
    """Added by both clients in each mode; and its attempts are 8 where nothing was said, by both."""
    async with BackfillClient(seed.dsn) as client:
        mine = await client.enqueue("ours", {"n": 1}, job_key="k")
        spec = {"job_key": "k", "job_key_mode": str(mode)}
        [again] = await seed.run("enqueue", [["ours", {"n": 2}, spec]])
        assert (again["id"], again["revision"], again["max_attempts"]) == (mine.id, 1, 8)
        last = await client.enqueue("ours", {"n": 3}, job_key="k", job_key_mode=mode)
        assert (last.id, last.revision) == (mine.id, 2)
    assert await work(seed.dsn) == [{"n": 1 if mode is JobKeyMode.UNSAFE_DEDUPE else 3}]


async def test_its_dead_letters_are_ours(seed: Rust) -> None:
    """A job that its worker gives up and its client moves: ours lists, requeues and deletes it."""
    async with BackfillClient(seed.dsn) as client:
        for n, queue in enumerate((Queue.parallel(), Queue.serial("line"))):
            key = f"k{n}"
            await client.enqueue("theirs", {"n": n, "fail": "no"}, queue=queue, job_key=key, max_attempts=1, priority=3)
        assert len(await seed.run("work")) == 2
        assert await one(seed, do="process_failed") == 2
        found = {letter.job_key: letter for letter in (await client.list_dlq_jobs()).jobs}
        assert [found[key].queue_name for key in ("k0", "k1")] == [None, "line"]
        letter = found["k1"]
        assert (letter.task_identifier, letter.payload, letter.priority, letter.max_attempts, letter.failure_count) == (
            "theirs", {"n": 1, "fail": "no"}, 3, 1, 1,
        )  # fmt: skip
        assert "no" in (letter.last_error or "")
        job = await client.requeue_dlq_job(letter.id)
        assert (job.key, job.queue_name, job.attempts) == ("k1", "line", 0)
        assert await client.delete_dlq_job(found["k0"].id)
        assert await client.delete_dlq_by_job_key("k1") == 1
        assert await rows(seed.dsn, LETTERS) == []


async def test_our_dead_letters_are_its(seed: Rust) -> None:
    """A job that our worker gives up: its client lists, gets, counts, requeues and deletes it, by id and by key."""
    async with BackfillClient(seed.dsn) as client:
        for n, queue in enumerate((Queue.parallel(), Queue.serial("line"))):
            key = f"k{n}" if n else None
            payload = {"n": n, "fail": "no"}
            await client.enqueue("ours", payload, queue=queue, job_key=key, max_attempts=1, flags=["light"])
    assert len(await work(seed.dsn)) == 2
    listed, stats = await seed.run("do", [{"do": "list", "task": "ours"}, {"do": "stats"}])
    assert (listed["total"], stats) == (2, {"total": 2, "tasks": 1, "requeued": 0})
    plain, keyed = sorted(listed["jobs"], key=lambda letter: letter["payload"]["n"])
    assert (plain["queue_name"], plain["job_key"], keyed["queue_name"], keyed["job_key"]) == ("", None, "line", "k1")
    assert "no" in str(keyed["last_error"])
    again = await one(seed, do="requeue", id=keyed["id"], notes="once more")
    assert (again["key"], again["payload"]) == ("k1", {"n": 1, "fail": "no"})
    got = await one(seed, do="get", id=keyed["id"])
    assert (got["requeued_count"], got["notes"]) == (1, "once more")
    assert len(await work(seed.dsn)) == 1
    assert (await one(seed, do="get", id=keyed["id"]))["failure_count"] == 2
    assert await one(seed, do="delete", id=plain["id"]) is True
    assert await one(seed, do="delete_by_key", job_key="k1") == 1
    assert await rows(seed.dsn, LETTERS) == []


async def test_an_entry_of_a_key_is_one_whoever_buries(seed: Rust) -> None:
    """Its add_to_dlq, our worker and its process_failed_jobs renew one entry, which counts how often it came there."""
    bad = {"n": 2, "fail": "no"}
    async with BackfillClient(seed.dsn) as client:
        buried = await one(seed, do="bury", task="ours", payload={"n": 1}, spec={"job_key": "k"}, reason="by hand")
        await client.enqueue("ours", bad, job_key="k", max_attempts=1)
        assert await work(seed.dsn) == [bad]
        assert await rows(seed.dsn, LETTERS) == [(buried["id"], "k", 2, bad)]
        await client.enqueue("theirs", {"n": 3, "fail": "no"}, job_key="k", max_attempts=1)
        await seed.run("work")
        assert await one(seed, do="process_failed") == 1
        [[entry, key, count, _]] = await rows(seed.dsn, LETTERS)
        assert (entry, key, count) == (buried["id"], "k", 3)
        [letter] = (await client.list_dlq_jobs()).jobs
        assert (await client.requeue_dlq_job(letter.id)).key == "k"


class Waiting:
    """A task of ours whose handler waits until the test lets it end, well or badly."""

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.go_on = asyncio.Event()
        self.ran: list[Any] = []

        @self.tasks.task("ours")
        async def ours(payload: dict[str, Any], _: WorkerContext[None]) -> None:
            self.ran.append(payload)
            await self.go_on.wait()
            if "fail" in payload:
                raise ValueError(payload["fail"])


async def test_its_cleanup_leaves_our_running_jobs_alone(seed: Rust, eventually: Eventually) -> None:
    """With its own limits, at its worker's start and by its client: a worker of ours renews its locks before."""
    waiting = Waiting()
    async with BackfillClient(seed.dsn) as client, WorkerRunner(WorkerConfig(seed.dsn), waiting.tasks):
        await client.enqueue("ours", {"n": 1}, queue=Queue.serial("line"))
        await eventually(lambda: len(waiting.ran) == 1)
        assert await one(seed, do="startup_cleanup") == [0, 0, 0]
        async with seed.running({"concurrency": 2, "every_ms": 200}):
            await client.enqueue("theirs", {"n": 2})
            await eventually(lambda: value(seed.dsn, JOBS), lambda left: left == 1)
            assert await value(seed.dsn, HELD) == 1
        waiting.go_on.set()
        await eventually(lambda: value(seed.dsn, JOBS), lambda left: left == 0)
    assert waiting.ran == [{"n": 1}]


@pytest.mark.parametrize("payload", [{"n": 1}, {"n": 1, "fail": "no"}], ids=["completes", "fails"])
async def test_a_last_attempt_of_ours_that_it_moves_away(
    seed: Rust, payload: dict[str, Any], eventually: Eventually
) -> None:
    """Its process_failed_jobs takes a running last attempt for dead: it ends all the same, and a dead letter stays.

    Its queue is free afterwards, and the worker goes on.
    """
    waiting = Waiting()
    async with BackfillClient(seed.dsn) as client, WorkerRunner(WorkerConfig(seed.dsn), waiting.tasks):
        await client.enqueue("ours", payload, queue=Queue.serial("line"), job_key="k", max_attempts=1)
        await eventually(lambda: len(waiting.ran) == 1)
        assert await one(seed, do="process_failed") == 1
        waiting.go_on.set()
        await client.enqueue("ours", {"n": 2}, queue=Queue.serial("line"))
        await eventually(lambda: value(seed.dsn, JOBS), lambda left: left == 0)
        await eventually(lambda: value(seed.dsn, HELD), lambda held: held == 0)
    assert waiting.ran == [payload, {"n": 2}]
    assert [row[1:3] for row in await rows(seed.dsn, LETTERS)] == [("k", 1)]


async def test_locks_that_it_releases_by_force(seed: Rust, eventually: Eventually) -> None:
    """An age below our renewal unlocks a job that runs: ours hears of it, cancels the handler, and runs it again."""
    waiting = Waiting()
    config = WorkerConfig(seed.dsn, concurrency=1)
    async with BackfillClient(seed.dsn) as client, WorkerRunner(config, waiting.tasks):
        await client.enqueue("ours", {"n": 1}, queue=Queue.serial("line"))
        await eventually(lambda: len(waiting.ran) == 1)
        assert await one(seed, do="release_jobs", seconds=0) == 1
        assert await one(seed, do="release_queues", seconds=0) == 1
        await eventually(lambda: len(waiting.ran) == 2, timeout=60)
        waiting.go_on.set()
        await eventually(lambda: value(seed.dsn, JOBS), lambda left: left == 0)
        await eventually(lambda: value(seed.dsn, HELD), lambda held: held == 0)
    assert waiting.ran == [{"n": 1}] * 2


async def test_jobs_that_both_have_given_up(seed: Rust) -> None:
    """Its client fails a waiting job of ours for good: our client moves it, and its clean-up has nothing to delete."""
    async with BackfillClient(seed.dsn) as client:
        job = await client.enqueue("ours", {"n": 1}, job_key="k")
        await seed.run("do", [{"do": "fail_jobs", "ids": [job.id], "reason": "not wanted"}])
        assert await client.process_failed_jobs() == 1
        assert await one(seed, do="delete_failed") == 0
        [letter] = (await client.list_dlq_jobs()).jobs
        assert (letter.last_error, letter.failure_count) == ("not wanted", 1)
        await client.enqueue("ours", {"n": 2}, job_key="gone")
        await seed.run("do", [{"do": "remove_job", "job_key": "gone"}])
        assert await value(seed.dsn, JOBS) == 0
