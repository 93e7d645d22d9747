"""Handlers that run on although they should have ended: their slots stay taken, and nothing runs beside them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import LiteralString
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from backfill import BackfillClient, QueueConfig, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.worker.execution import stragglers

from plugins.periods import let_pass
from plugins.waiting import Eventually
from reading import rows, value

SECOND = timedelta(seconds=1)
LOCKED: LiteralString = "select count(*) from graphile_worker._private_jobs where locked_by is not null"
GIVE_UP: LiteralString = "update graphile_worker.backfill_workers set given_up_at = now()"
UNLOCK: LiteralString = "update graphile_worker._private_jobs set locked_at = null, locked_by = null"


class Threads:
    """A synchronous task that runs until it is released, whatever it is asked.

    Attributes:
        begun: the id of the job of each attempt, in the order in which they began.
        most: how many attempts ran at once at most.
        asked: whether an attempt was asked to stop.
    """

    def __init__(self, timeout: timedelta | None = None) -> None:
        self.begun: list[int] = []
        self.most = 0
        self.asked = False
        self._running = 0
        self._lock = threading.Lock()
        self._release = threading.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @self.tasks.task("hangs", timeout=timeout)
        def hangs(ctx: WorkerContext[None]) -> None:
            with self._lock:
                self.begun.append(ctx.job.id)
                self._running += 1
                self.most = max(self.most, self._running)
            while not (self._release.is_set() or ctx.should_stop):
                self._release.wait(0.02)
            self.asked = self.asked or ctx.should_stop
            self._release.wait(60)
            with self._lock:
                self._running -= 1

    def release(self) -> None:
        """Let all attempts end."""
        self._release.set()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that does not end hangs after a moment."""
    monkeypatch.setattr(stragglers, "HANGS_AFTER", 0.1)


@pytest.fixture
def threads() -> Iterator[Threads]:
    """A task without limits; its attempts are released in the end."""
    found = Threads()
    yield found
    found.release()


@pytest.mark.parametrize("limit", ["timeout", "deadline"])
async def test_a_thread_out_of_time_keeps_its_slot_and_its_job(dsn: str, eventually: Eventually, limit: str) -> None:
    """Its attempt is settled when it ends, so no second one starts beside it, in the same lane or elsewhere."""
    threads = Threads(SECOND / 20 if limit == "timeout" else None)
    try:
        async with BackfillClient(dsn) as client:
            if limit == "timeout":
                await client.enqueue("hangs")
            else:
                await client.enqueue("hangs", deadline=datetime.now(UTC) + SECOND)
            config = WorkerConfig(dsn, concurrency=1, poll_interval=SECOND / 10)
            async with WorkerRunner(config, threads.tasks), WorkerRunner(config, threads.tasks):
                await eventually(lambda: threads.asked)
                await client.enqueue_bulk("hangs", [None] * 2)
                await eventually(lambda: len(threads.begun) == 2)  # one slot of the other worker
                await let_pass(1.0)
                assert len(threads.begun) == 2
                assert await value(dsn, LOCKED) == 2
                threads.release()
                await eventually(lambda: len(threads.begun) == 3)
                await eventually(lambda: value(dsn, LOCKED), lambda locked: locked == 0)
        assert len(set(threads.begun)) == 3
    finally:
        threads.release()


async def test_a_thread_of_a_lost_lease_keeps_its_slot_and_bars_its_job(
    dsn: str, threads: Threads, eventually: Eventually
) -> None:
    """The worker goes on under a new id with one slot less, and claims the job again only to let it wait."""
    async with BackfillClient(dsn) as client:
        job = await client.enqueue("hangs")
        config = WorkerConfig(
            dsn, concurrency=2, poll_interval=SECOND / 10, dead_after=4 * SECOND, heartbeat_interval=SECOND / 5
        )
        async with WorkerRunner(config, threads.tasks) as runner:
            await eventually(lambda: threads.begun == [job.id])
            first = runner.worker_id
            await rows(dsn, GIVE_UP)
            await eventually(lambda: runner.worker_id != first and runner.health().ready)
            assert runner._parts is not None
            parked = runner._parts.stragglers._parked
            await rows(dsn, f"{UNLOCK} where locked_by = %s", first)  # as the recovery by another worker does
            await eventually(lambda: len(parked) == 1)
            [earlier] = parked
            await rows(dsn, UNLOCK)  # by force, so that it is claimed once more
            await eventually(lambda: len(parked) == 1 and parked[0] is not earlier)
            await client.enqueue("hangs")
            await eventually(lambda: len(threads.begun) == 2)
            await eventually(lambda: value(dsn, LOCKED), lambda locked: locked == 2)
            await let_pass(1.0)
            assert threads.begun.count(job.id) == 1
            assert threads.most == 2
            threads.release()
            await eventually(lambda: threads.begun.count(job.id) == 2)
            await eventually(lambda: value(dsn, "select count(*) from graphile_worker._private_jobs"), lambda n: n == 0)
    assert threads.most == 2


async def test_a_thread_whose_job_was_unlocked_bars_it(dsn: str, threads: Threads, eventually: Eventually) -> None:
    """Also where the worker keeps its id, and claims the job that somebody has unlocked by force."""
    async with BackfillClient(dsn) as client:
        job = await client.enqueue("hangs")
        config = WorkerConfig(dsn, concurrency=2, poll_interval=SECOND / 10)
        async with WorkerRunner(config, threads.tasks) as runner:
            await eventually(lambda: threads.begun == [job.id])
            assert runner._parts is not None
            await rows(dsn, "update graphile_worker._private_jobs set run_at = now() + interval '1 hour'")
            await rows(dsn, UNLOCK)
            runner._parts.one.station.locks.look_soon()
            runner._parts.wake()
            await eventually(lambda: threads.asked)
            await rows(dsn, "update graphile_worker._private_jobs set run_at = now()")
            runner._parts.wake()
            await eventually(lambda: value(dsn, LOCKED), lambda locked: locked == 1)
            await let_pass(0.5)
            assert threads.begun == [job.id]
            threads.release()
            await eventually(lambda: threads.begun == [job.id] * 2)
    assert threads.most == 1


@pytest.mark.usefixtures("quick")
async def test_a_lane_whose_slots_all_hang_is_told(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """By the health, with one warning; a worker of which no lane runs anything is not ready, and stays live."""
    threads = Threads(SECOND / 20)

    @threads.tasks.task("other")
    async def other() -> None: ...

    lanes = [QueueConfig("slow", 2, tasks=["hangs"]), QueueConfig("quick", 1, tasks=["other"])]
    with caplog.at_level(logging.INFO, logger="backfill"):
        try:
            async with (
                BackfillClient(dsn) as client,
                WorkerRunner(WorkerConfig(dsn, queues=lanes), threads.tasks) as one,
            ):
                await client.enqueue("hangs")
                await eventually(lambda: threads.asked)
                await let_pass(0.5)
                assert one.health().hung == ()
                await client.enqueue("hangs")
                await eventually(lambda: one.health().hung == ("slow",))
                now = one.health()
                assert (now.live, now.ready) == (True, True)
                assert now.reasons == ("lane slow hangs: handlers that do not end have all of its slots",)
                assert now.as_dict()["hung"] == ("slow",)
                threads.release()
                await eventually(lambda: one.health().hung == ())
        finally:
            threads.release()
    told = [record for record in caplog.records if "hangs: its 2 slots" in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"]
    assert "lane slow runs jobs again" in caplog.text


def _status(port: int, path: str) -> int:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return int(error.code)


@pytest.mark.usefixtures("quick")
async def test_a_worker_of_which_every_lane_hangs_is_not_ready(
    dsn: str, tmp_path: Path, eventually: Eventually
) -> None:
    """And still live: a restart would cut its handlers off. The probes over HTTP and by a file say the same."""
    threads, file = Threads(SECOND / 20), tmp_path / "health"
    config = WorkerConfig(dsn, concurrency=1, health_address="127.0.0.1:0", health_file=str(file))
    try:
        async with BackfillClient(dsn) as client, WorkerRunner(config, threads.tasks) as runner:
            await eventually(lambda: runner.health().ready and file.exists())
            await client.enqueue("hangs")
            await eventually(lambda: not runner.health().ready)
            assert runner.health().live
            assert runner.health().hung == ("default",)
            port = runner.health_port
            assert port is not None
            statuses = [await asyncio.to_thread(_status, port, path) for path in ("/live", "/ready", "/health")]
            assert statuses == [200, 503, 200]
            await eventually(lambda: not file.exists())
            threads.release()
            await eventually(lambda: runner.health().ready)
    finally:
        threads.release()
