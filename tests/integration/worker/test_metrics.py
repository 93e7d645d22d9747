"""Metrics of a worker in this process: `/metrics` on its health address agrees with what handlers and clients did."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from backfill import BackfillClient, Queue, RetryPolicy, Snooze, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.metrics import process_metrics
from backfill.metrics.books import Metrics
from backfill.metrics.catalogue import INSTRUMENTS, UNKNOWN_JOBS, Kind
from backfill.worker.upkeep import gauges, unknown

from plugins.waiting import Eventually
from scraping import Samples, samples_of, scrape, total

ATTEMPTS = "backfill_job_attempts_total"


class Deeds:
    """Tasks that end in each way, and how often each has run."""

    def __init__(self) -> None:
        self.ran = dict[str, int]()
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.release = threading.Event()
        self.begun = threading.Event()
        once = RetryPolicy(max_attempts=1)

        @self.tasks.task("fine")
        async def fine() -> None:
            self.note("fine")

        @self.tasks.task("late", retry=once)
        async def late() -> None:
            self.note("late")
            raise TimeoutError("no answer")

        @self.tasks.task("again", retry=RetryPolicy(max_attempts=2, initial_delay=timedelta(0), max_delay=timedelta(0)))
        async def again() -> None:
            self.note("again")
            if self.ran["again"] == 1:
                raise ValueError("once more")

        @self.tasks.task("put_off")
        async def put_off() -> None:
            self.note("put_off")
            if self.ran["put_off"] == 1:
                raise Snooze(timedelta(0))

        @self.tasks.task("hold_the_loop")
        async def hold_the_loop() -> None:
            self.begun.set()
            self.release.wait(20)

    def note(self, task: str) -> None:
        """Note that a handler has run."""
        self.ran[task] = self.ran.get(task, 0) + 1


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Books of this test's own in the place of the process's."""
    own = Metrics()
    monkeypatch.setattr("backfill.metrics.books._metrics", own)
    assert process_metrics() is own
    return own


@pytest.fixture
def config(dsn: str) -> WorkerConfig:
    """A worker with a health address."""
    return WorkerConfig(dsn, health_address="127.0.0.1:0")


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """A client of this process."""
    async with BackfillClient(dsn) as one:
        yield one


async def _scraped(runner: WorkerRunner) -> Samples:
    port = runner.health_port
    assert port is not None
    return samples_of(await asyncio.to_thread(scrape, port))


async def test_a_scrape_agrees_with_what_was_done(
    books: Metrics, config: WorkerConfig, client: BackfillClient, eventually: Eventually
) -> None:
    """Jobs enqueued in each way, attempts by outcome, dead letters by reason, waits, runs and claims."""
    deeds, seen = Deeds(), dict[tuple[str, frozenset[tuple[str, str]]], float]()

    async def scraped() -> float:
        seen.update(await _scraped(runner))
        return total(seen, ATTEMPTS)

    runner = WorkerRunner(config, deeds.tasks)
    async with runner:
        await client.enqueue_bulk("fine", ({} for _ in range(700)))
        await asyncio.gather(*(client.enqueue("fine", {}, priority=-10) for _ in range(30)))
        await client.enqueue("fine", {}, queue=Queue.serial("one"), job_key="k")
        for task in ("late", "again", "put_off"):
            await client.enqueue(task, {}, max_attempts={"late": 1, "again": 2}.get(task))
        await eventually(scraped, lambda number: number >= 736)
    assert deeds.ran == {"fine": 731, "late": 1, "again": 2, "put_off": 2}
    made = "backfill_jobs_enqueued_total"
    assert total(seen, made, task="fine", queue="parallel", priority_band="bulk_default") == 700
    assert total(seen, made, task="fine", queue="parallel", priority_band="fast_high") == 30
    assert total(seen, made, task="fine", queue="serial") == 1
    assert total(seen, made) == 734
    outcomes = {
        (task, outcome): total(seen, ATTEMPTS, task=task, outcome=outcome)
        for task in deeds.ran
        for outcome in ("completed", "retried", "dead", "snoozed", "discarded", "given_back")
    }
    assert {key: value for key, value in outcomes.items() if value} == {
        ("fine", "completed"): 731, ("late", "dead"): 1, ("again", "retried"): 1, ("again", "completed"): 1,
        ("put_off", "snoozed"): 1, ("put_off", "completed"): 1,
    }  # fmt: skip
    assert total(seen, "backfill_dlq_jobs_added_total", task="late", reason="timeout", queue="parallel") == 1
    for name in ("run", "wait"):
        assert total(seen, f"backfill_job_{name}_duration_seconds_count") == 736
        assert 0 < total(seen, f"backfill_job_{name}_duration_seconds_sum") < 736 * 60
        assert total(seen, f"backfill_job_{name}_duration_seconds_bucket", le="+Inf") == 736
    assert total(seen, "backfill_claim_size_sum") == 736
    assert total(seen, "backfill_settle_lag_seconds_count") == 736
    assert total(seen, "backfill_worker_active") == 1
    assert total(seen, "backfill_lane_slots_free") == 10
    assert total(seen, "backfill_db_operations_total", operation="enqueue", status="success") == 35
    assert not [labels for labels, _ in books.snapshot().of(next(one for one in INSTRUMENTS if one.kind is Kind.SUM))]


async def test_they_are_written_by_the_batch(books: Metrics, config: WorkerConfig, client: BackfillClient) -> None:
    """10,000 jobs cost a few calls for each batch and claim, and no call of their own."""
    deeds = Deeds()
    books.want()
    await client.enqueue_bulk("fine", ({} for _ in range(10_000)))
    assert books.calls <= 2
    runner = WorkerRunner(config, deeds.tasks)
    assert await runner.process_available_jobs() == 10_000
    assert deeds.ran["fine"] == 10_000
    snapshot = books.snapshot()
    assert (
        sum(value.number for (name, _), value in snapshot.values.items() if name == "backfill.job.attempts") == 10_000
    )
    claims = sum(sum(value.buckets) for (name, _), value in snapshot.values.items() if name == "backfill.claim.size")
    assert books.calls < 1_000
    assert claims < 500


async def test_nothing_is_kept_before_somebody_asks(books: Metrics, dsn: str, client: BackfillClient) -> None:
    """A worker without a health address, and a client, leave the books as they are."""
    await client.enqueue("fine", {})
    assert await WorkerRunner(WorkerConfig(dsn), Deeds().tasks).process_available_jobs() == 1
    assert (books.calls, books.wanted) == (0, False)


async def test_a_held_loop_does_not_hold_up_a_scrape(
    books: Metrics, config: WorkerConfig, client: BackfillClient
) -> None:
    """A handler that blocks the loop is seen in the metrics while it does so."""
    deeds = Deeds()
    async with WorkerRunner(config, deeds.tasks) as runner:
        port = runner.health_port
        assert port is not None
        seen = list[Samples]()

        def watch() -> None:
            try:
                assert deeds.begun.wait(20)
                seen.append(samples_of(scrape(port)))
            finally:
                deeds.release.set()

        watching = threading.Thread(target=watch)
        watching.start()
        await client.enqueue("hold_the_loop", {})
        await asyncio.to_thread(watching.join)
    assert [total(one, "backfill_lane_slots_used") for one in seen] == [1]


async def test_one_worker_of_the_fleet_looks_at_the_queue(
    books: Metrics, config: WorkerConfig, client: BackfillClient, eventually: Eventually
) -> None:
    """Of two workers one shows the due, scheduled and running jobs of each task and the dead letters."""
    deeds = Deeds()
    bury = TaskRegistry[None]()

    @bury.task("lost")
    async def lost() -> None:
        raise PermissionError("not for us")

    books.want()
    await client.enqueue("lost", {}, max_attempts=1)
    await WorkerRunner(config, bury).process_available_jobs()
    for _ in range(3):
        await client.enqueue("nobody's", {})
    await client.enqueue("fine", {}, delay=timedelta(hours=1))
    async with WorkerRunner(config, deeds.tasks) as one, WorkerRunner(config, deeds.tasks):

        async def due() -> float:
            return total(await _scraped(one), "backfill_queue_depth", state="due", task="nobody's")

        await eventually(due, lambda number: number == 3)
        seen = await _scraped(one)
    assert total(seen, "backfill_queue_depth", state="scheduled", task="fine") == 1
    assert 0 < total(seen, "backfill_queue_oldest_due_age_seconds") < 60
    assert total(seen, "backfill_dlq_size", task="") == total(seen, "backfill_dlq_size", task="lost") == 1
    assert total(seen, "backfill_worker_active") == 2
    assert total(seen, "backfill_dlq_jobs_added_total", reason="forbidden") == 1


async def test_formats_and_methods(books: Metrics, config: WorkerConfig) -> None:
    """The Accept header chooses the format, and HEAD gives the head alone."""
    async with WorkerRunner(config, Deeds().tasks) as runner:
        url = f"http://127.0.0.1:{runner.health_port}/metrics"

        def ask(method: str, accept: str) -> tuple[str, bytes]:
            request = urllib.request.Request(url, method=method, headers={"Accept": accept})
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.headers["Content-Type"], answer.read()

        kind, text = await asyncio.to_thread(ask, "GET", "application/openmetrics-text; version=1.0.0")
        assert kind.startswith("application/openmetrics-text")
        assert text.endswith(b"# EOF\n")
        kind, text = await asyncio.to_thread(ask, "GET", "*/*")
        assert kind.startswith("text/plain")
        assert b"backfill_worker_active" in text
        assert (await asyncio.to_thread(ask, "HEAD", "*/*")) == (kind, b"")


async def test_without_the_library(
    books: Metrics, config: WorkerConfig, client: BackfillClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where prometheus_client is not installed, `/metrics` names the extra, and nothing is counted."""
    monkeypatch.setattr("backfill.metrics.prometheus.find_spec", lambda _: None)
    await client.enqueue("fine", {})
    async with WorkerRunner(config, Deeds().tasks) as runner:
        port = runner.health_port
        assert port is not None
        with pytest.raises(urllib.error.HTTPError) as refused:
            await asyncio.to_thread(scrape, port)
        with refused.value as answer:
            assert answer.code == 404
            assert b"backfill[prometheus]" in answer.read()
    assert not books.wanted


async def test_jobs_that_nobody_knows(
    books: Metrics,
    config: WorkerConfig,
    client: BackfillClient,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are shown by their task while no worker knows it, and no longer once they are gone."""
    monkeypatch.setattr(unknown, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(unknown, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(unknown, "WARN_SECONDS", 0.0)
    jobs = [await client.enqueue("nobody's", {}, run_at=datetime.now(UTC) - timedelta(minutes=1)) for _ in range(3)]
    async with WorkerRunner(config, Deeds().tasks) as runner:

        async def shown() -> list[tuple[str, float]]:
            name = "backfill_queue_unknown_jobs"
            return [(dict(has)["task"], one) for (which, has), one in (await _scraped(runner)).items() if which == name]

        await eventually(shown, lambda found: found == [("nobody's", 3)])
        await client.complete_jobs([job.id for job in jobs if job.id is not None])
        await eventually(shown, lambda found: found == [])
    assert not books.snapshot(UNKNOWN_JOBS).values


async def test_an_old_snapshot_is_seen(
    books: Metrics, config: WorkerConfig, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    """A transaction that holds a snapshot, or has written, is seen with its age; others hold nothing up."""
    monkeypatch.setattr(gauges, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(gauges, "LOOK_SECONDS", 0.02)
    name = "backfill_database_oldest_snapshot_age_seconds"
    async with (
        WorkerRunner(config, Deeds().tasks) as runner,
        await psycopg.AsyncConnection.connect(dsn) as idle,
        await psycopg.AsyncConnection.connect(dsn) as other,
    ):

        async def age() -> float | None:
            return next((one for (which, _), one in (await _scraped(runner)).items() if which == name), None)

        await eventually(age, lambda seconds: seconds is not None)
        await idle.execute("select 1")
        assert idle.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        for first in ("select pg_current_xact_id()", "set transaction isolation level repeatable read"):
            await other.execute(first)
            await other.execute("select 1")
            await eventually(age, lambda seconds: seconds is not None and seconds > 0.5)
            await other.rollback()
            await eventually(age, lambda seconds: seconds is not None and seconds < 0.5)
