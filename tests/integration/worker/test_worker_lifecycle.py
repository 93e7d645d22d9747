"""A worker's start and stop: wake-ups, graceful shutdown, its row, and a database that goes away meanwhile."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from backfill import (
    BackfillClient,
    ConfigurationError,
    DatabaseConnectionError,
    Queue,
    SchemaMissingError,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from reading import rows

NEVER = timedelta(hours=1)
JOBS = "select count(*) from graphile_worker._private_jobs"


class Runs:
    """A registry whose one task notes its payloads and can be held."""

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.changed = asyncio.Event()
        self.release = asyncio.Event()
        self.tasks.task("task")(self._handle)
        self.tasks.task("hold")(self._hold)

    async def _handle(self, payload: Any) -> None:
        self.begun.append(payload)
        self.ended.append(payload)
        self.changed.set()

    async def _hold(self, payload: Any, ctx: WorkerContext[None]) -> None:
        self.begun.append(payload)
        self.changed.set()
        await self.release.wait()
        self.ended.append(payload)
        self.changed.set()

    async def until(self, *, begun: int = 0, ended: int = 0) -> None:
        """Wait until so many have begun and ended."""
        async with asyncio.timeout(30):
            while len(self.begun) < begun or len(self.ended) < ended:
                self.changed.clear()
                await self.changed.wait()


async def test_a_new_job_wakes_an_idle_worker(dsn: str) -> None:
    """By notification: the poll's interval is an hour."""
    runs = Runs()
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn, poll_interval=NEVER), runs.tasks):
        for number in range(3):
            await client.enqueue("task", number)
            await runs.until(ended=number + 1)


async def test_a_job_for_later_is_run_when_it_is_due(dsn: str) -> None:
    """By the timer: the poll's interval is an hour; a retry and an earlier job are found too."""
    runs = Runs()
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn, poll_interval=NEVER), runs.tasks):
        await client.enqueue("task", "later", delay=timedelta(milliseconds=600), priority=3)
        await client.enqueue("task", "sooner", delay=timedelta(milliseconds=300), priority=7)
        await runs.until(ended=2)
    assert runs.ended == ["sooner", "later"]


async def test_polling_alone_is_enough(dsn: str) -> None:
    """Without a listener, jobs are found by the poll."""
    runs = Runs()
    config = WorkerConfig(dsn, poll_interval=timedelta(milliseconds=50), listen=False)
    async with BackfillClient(dsn) as client, WorkerRunner(config, runs.tasks):
        await client.enqueue("task", 1)
        await runs.until(ended=1)


async def test_shutdown_waits_for_what_runs(dsn: str) -> None:
    """A handler that ends in time is settled; nothing new is claimed meanwhile."""
    runs = Runs()
    async with BackfillClient(dsn) as client:
        await client.enqueue("hold", 1)
        runner = WorkerRunner(WorkerConfig(dsn, concurrency=1), runs.tasks)
        running = asyncio.ensure_future(runner.run())
        await runs.until(begun=1)
        running.cancel()
        await client.enqueue("task", 2)
        asyncio.get_running_loop().call_later(0.1, runs.release.set)
        with pytest.raises(asyncio.CancelledError):
            await running
    assert runs.ended == [1]
    assert await rows(dsn, "select attempts, locked_at from graphile_worker._private_jobs") == [(0, None)]


async def test_a_shutdowns_deadline_gives_back_what_runs(dsn: str) -> None:
    """Interrupted at the deadline, a job goes back with its attempt and its queue is free; nothing is lost."""
    runs = Runs()
    async with BackfillClient(dsn) as client:
        await client.enqueue("hold", 1, queue=Queue.serial("q"))
        await client.enqueue("hold", 2)
        stop = asyncio.Event()
        config = WorkerConfig(dsn, shutdown_timeout=timedelta(milliseconds=200))
        running = asyncio.ensure_future(WorkerRunner(config, runs.tasks).run_until_cancelled(stop))
        await runs.until(begun=2)
        begun = time.monotonic()
        stop.set()
        await running
        assert time.monotonic() - begun < 3 * 5.2
    assert runs.ended == []
    left = await rows(dsn, "select attempts, locked_at, locked_by, last_error from graphile_worker._private_jobs")
    assert left == [(0, None, None, None)] * 2
    assert await rows(dsn, "select locked_at from graphile_worker._private_job_queues") == [(None,)]


async def test_a_worker_has_a_row_while_it_runs(dsn: str, eventually: Any) -> None:
    """With an id made anew at each start, beaten on, and deleted at the end."""
    runs = Runs()
    config = WorkerConfig(dsn, heartbeat_interval=timedelta(milliseconds=100))
    query = "select id, pid is not null, protocol, tasks, heartbeat_at from graphile_worker.backfill_workers"
    ids = set()
    for _ in range(2):
        runner = WorkerRunner(config, runs.tasks)
        async with runner:
            [first] = await rows(dsn, query)
            assert first[:4] == (runner.worker_id, True, 3, ["task", "hold"])
            ids.add(first[0])
            await eventually(lambda: rows(dsn, query), lambda found, at=first[4]: found[0][4] > at)
        assert await rows(dsn, query) == []
    assert len(ids) == 2


async def test_cut_connections_lose_nothing(dsn: str, eventually: Any) -> None:
    """Every connection of the worker is ended again and again: all jobs run, none is left locked."""
    runs = Runs()
    config = WorkerConfig(dsn, concurrency=20, poll_interval=timedelta(milliseconds=100))
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk("task", range(400))
        async with WorkerRunner(config, runs.tasks):
            for round_ in range(5):
                await rows(
                    dsn,
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'backfill_%%' "
                    "and application_name like '%%backfill\\_%%' and pid <> pg_backend_pid() "
                    "and datname = current_database()",
                )
                await client.enqueue_bulk("task", range(1000 * (round_ + 1), 1000 * (round_ + 1) + 100))
            await eventually(lambda: rows(dsn, JOBS), lambda found: found == [(0,)])
    assert len(set(runs.ended)) == 900


async def test_a_claim_whose_answer_was_lost_is_given_back(dsn: str, eventually: Any) -> None:
    """Rows locked by this worker that it does not hold are found after a reconnect, with their attempts lowered."""
    runs = Runs()
    config = WorkerConfig(dsn, poll_interval=timedelta(milliseconds=100))
    async with BackfillClient(dsn) as client, WorkerRunner(config, runs.tasks) as runner:
        await client.enqueue("hold", "held")
        await runs.until(begun=1)
        # as a claim would have left them whose answer never came: locked, with an attempt, in a queue
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await connection.execute("select graphile_worker.add_job('task', '1', 'q')")
            await connection.execute(
                "update graphile_worker._private_jobs set locked_by = %s, locked_at = now(), attempts = 1 "
                "where locked_at is null",
                [runner.worker_id],
            )
            await connection.execute(
                "update graphile_worker._private_job_queues set locked_by = %s, locked_at = now()", [runner.worker_id]
            )
        await rows(
            dsn, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s",
            f"backfill {runner.worker_id}",
        )  # fmt: skip
        await runs.until(ended=1)
        runs.release.set()
        await eventually(lambda: rows(dsn, JOBS), lambda found: found == [(0,)])
    assert sorted(map(str, runs.ended)) == ["1", "held"]


async def test_a_worker_refuses_what_it_cannot_work_with(empty_dsn: str) -> None:
    """A missing schema, a server that is not there, and a registry without tasks: one clear error each."""
    with pytest.raises(SchemaMissingError, match="backfill migrate"):
        await WorkerRunner(WorkerConfig(empty_dsn), Runs().tasks).run()
    away = "postgresql://nobody:secret@127.0.0.1:1/none"
    with pytest.raises(DatabaseConnectionError, match="port=1") as caught:
        await WorkerRunner(WorkerConfig(away), Runs().tasks).run()
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="no task"):
        WorkerRunner(WorkerConfig(empty_dsn), TaskRegistry())
