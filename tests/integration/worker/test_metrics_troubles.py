"""Metrics of what goes wrong, or slowly, in a worker: each is made to happen, and then seen on `/metrics`."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.metrics.books import Metrics
from backfill.worker.upkeep import gauges
from fleet.processes import fleet_of

from plugins.periods import let_pass
from plugins.waiting import Eventually
from reading import rows
from scraping import Samples, samples_of, scrape, total

END: LiteralString = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and application_name = %s"""
LOCK: LiteralString = "select id from graphile_worker._private_jobs where id = %s for update"
HELD: LiteralString = "select count(*) from graphile_worker._private_jobs where locked_at is not null"
ROW: LiteralString = "select id from graphile_worker.backfill_workers where id = %s"
RECONNECTS = "backfill_reconnects_total"


class Held:
    """A task whose handlers run until they are released.

    Attributes:
        tasks: its registry.
        running: how many of its handlers run.
        release: set when they may end.
    """

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.running = 0
        self.release = asyncio.Event()

        @self.tasks.task("held")
        async def held() -> None:
            self.running += 1
            await self.release.wait()


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Books of this test's own in the place of the process's."""
    own = Metrics()
    monkeypatch.setattr("backfill.metrics.books._metrics", own)
    return own


def _config(dsn: str, **settings: Any) -> WorkerConfig:
    return WorkerConfig(dsn, health_address="127.0.0.1:0", **settings)


async def _scraped(runner: WorkerRunner) -> Samples:
    assert runner.health_port is not None
    return samples_of(await asyncio.to_thread(scrape, runner.health_port))


async def test_reconnects(books: Metrics, dsn: str, eventually: Eventually) -> None:
    """The connection by which a worker hears of jobs, and one by which it takes them, are each counted once."""
    held = Held()
    held.release.set()
    async with WorkerRunner(_config(dsn), held.tasks) as runner, BackfillClient(dsn) as client:

        async def reconnects() -> float:
            return total(await _scraped(runner), RECONNECTS)

        assert await reconnects() == 0
        assert await rows(dsn, END, f"backfill {runner.worker_id} listen") == [(True,)]
        await eventually(reconnects, lambda number: number == 1)
        ended = await rows(dsn, END, f"backfill {runner.worker_id}")
        assert ended
        await client.enqueue("held", {})
        await eventually(reconnects, lambda number: number > 1)
        await eventually(lambda: held.running == 1)
        assert 2 <= await reconnects() <= 1 + len(ended)


async def test_recoveries(books: Metrics, dsn: str, eventually: Eventually) -> None:
    """A killed worker counts once, although its recovery takes two turns; so does each dead letter that came of it."""
    held = Held()
    async with (
        fleet_of(1, dsn) as fleet,
        BackfillClient(dsn) as client,
        await psycopg.AsyncConnection.connect(dsn) as other,
    ):
        jobs = [await client.enqueue("hold", {}, max_attempts=1) for _ in range(2)]
        await eventually(lambda: rows(dsn, HELD), lambda found: found == [(2,)])
        await other.execute(LOCK, [jobs[0].id])
        async with WorkerRunner(_config(dsn), held.tasks) as runner:
            [victim] = fleet.workers
            await fleet.kill(victim)
            await eventually(lambda: rows(dsn, HELD), lambda found: found == [(1,)])
            await other.rollback()
            await eventually(lambda: rows(dsn, ROW, victim), lambda found: found == [])

            async def recoveries() -> float:
                return total(await _scraped(runner), "backfill_recoveries_total")

            await eventually(recoveries)
            seen = await _scraped(runner)
    assert total(seen, "backfill_recoveries_total") == 1
    assert total(seen, "backfill_dlq_jobs_added_total") == 2
    assert total(seen, "backfill_dlq_jobs_added_total", task="other", queue="other", reason="unknown") == 2


async def test_slots(books: Metrics, dsn: str, eventually: Eventually) -> None:
    """Those of each lane are used while handlers run, and free before and afterwards."""
    held = Held()
    lanes = [QueueConfig(concurrency=5, name="main"), QueueConfig(concurrency=2, name="aside", tasks=["aside"])]
    async with WorkerRunner(_config(dsn, queues=lanes), held.tasks) as runner, BackfillClient(dsn) as client:

        async def slots() -> list[float]:
            seen = await _scraped(runner)
            return [
                total(seen, f"backfill_lane_slots_{state}", lane=lane)
                for lane in ("main", "aside")
                for state in ("used", "free")
            ]

        assert await slots() == [0, 5, 0, 2]
        for _ in range(3):
            await client.enqueue("held", {})
        await eventually(lambda: held.running == 3)
        assert await slots() == [3, 2, 0, 2]
        held.release.set()
        await eventually(slots, lambda found: found == [0, 5, 0, 2])
    assert not [name for name, _ in books.snapshot().values if "slots" in name]


async def test_settle_lag(books: Metrics, dsn: str, eventually: Eventually) -> None:
    """An attempt whose end cannot be written, since somebody holds its row, has waited for as long as that took."""
    held = Held()
    async with (
        WorkerRunner(_config(dsn), held.tasks) as runner,
        BackfillClient(dsn) as client,
        await psycopg.AsyncConnection.connect(dsn) as other,
    ):
        job = await client.enqueue("held", {})
        await eventually(lambda: held.running == 1)
        await other.execute(LOCK, [job.id])
        held.release.set()
        await let_pass(0.6)
        assert total(await _scraped(runner), "backfill_settle_lag_seconds_count") == 0
        await other.rollback()

        async def settled() -> float:
            return total(await _scraped(runner), "backfill_settle_lag_seconds_count")

        await eventually(settled, lambda number: number == 1)
        seen = await _scraped(runner)
    assert total(seen, "backfill_settle_lag_seconds_sum") >= 0.5
    assert total(seen, "backfill_settle_lag_seconds_bucket", le="0.5") == 0


async def test_loop_lag(books: Metrics, dsn: str, eventually: Eventually) -> None:
    """It grows while a handler blocks the loop, and is small again afterwards."""
    tasks: TaskRegistry[None] = TaskRegistry()
    begun, release = threading.Event(), threading.Event()
    lags = list[float]()

    @tasks.task("block")
    async def block() -> None:
        begun.set()
        release.wait(20)

    async with WorkerRunner(_config(dsn), tasks) as runner, BackfillClient(dsn) as client:
        port = runner.health_port
        assert port is not None

        def watch() -> None:
            try:
                assert begun.wait(20)
                while not lags or lags[-1] < 1.5:
                    lags.append(total(samples_of(scrape(port)), "backfill_loop_lag_seconds"))
            finally:
                release.set()

        watching = threading.Thread(target=watch)
        watching.start()
        await client.enqueue("block", {})
        await asyncio.to_thread(watching.join)

        async def lag() -> float:
            return total(await _scraped(runner), "backfill_loop_lag_seconds")

        assert lags == sorted(lags)
        assert lags[-1] >= 1.5
        await eventually(lag, lambda seconds: seconds < 1.0)


async def test_another_worker_looks_at_the_queue_when_one_has_ended(
    books: Metrics, dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers of one process show the same; what the one that looked has shown is not added to the other's."""
    monkeypatch.setattr(gauges, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(gauges, "LOOK_SECONDS", 0.05)
    held = Held()

    async def shown() -> list[float]:
        seen = await _scraped(second)
        names = ("worker_active", "lane_slots_free", "queue_depth")
        return [total(seen, f"backfill_{name}") for name in names]

    async with BackfillClient(dsn) as client, AsyncExitStack() as both:
        await client.enqueue("nobody's", {})
        ends = dict[WorkerRunner, AsyncExitStack]()
        for _ in range(2):
            end = await both.enter_async_context(AsyncExitStack())
            ends[await end.enter_async_context(WorkerRunner(_config(dsn), held.tasks))] = end
        first, second = sorted(ends, key=lambda runner: runner.worker_id or "")
        await eventually(shown, lambda found: found == [2, 20, 1])
        await ends[first].aclose()
        await client.enqueue("nobody's", {})
        await eventually(shown, lambda found: found == [1, 10, 2])
