"""The heartbeat of a worker at work: what stops it, what does not, and who is told of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from fleet.processes import jobs_left

from plugins.periods import block_for, let_pass
from plugins.waiting import Eventually
from reading import rows, value

SECOND = timedelta(seconds=1)
WORKERS = "graphile_worker.backfill_workers"
BEATEN: LiteralString = f"select heartbeat_at from {WORKERS} where id = %s"
ENGINES: LiteralString = """
    create table graphile_worker._private_workers (
      id text primary key, last_heartbeat_at timestamptz not null,
      started_at timestamptz not null default now(), metadata jsonb
    )"""
ENGINES_ROWS: LiteralString = "select id from graphile_worker._private_workers order by id"


class Blocking:
    """A task whose handler holds its loop for a while, unless another attempt has begun before."""

    def __init__(self, seconds: float) -> None:
        self.ran: list[str] = []
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry()

        @self.tasks.task("block")
        async def block(_: Any, ctx: WorkerContext[None]) -> None:
            self.ran.append(ctx.worker_id)
            if not self.begun.is_set():
                self.begun.set()
                block_for(seconds)
                self.ended.set()


@contextmanager
def working_elsewhere(config: WorkerConfig, tasks: TaskRegistry[None]) -> Iterator[Callable[[], str | None]]:
    """A worker on a loop of its own, in a thread; gives what tells its id."""
    runners: list[WorkerRunner] = []
    ready, loops = threading.Event(), list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def work() -> None:
        async with WorkerRunner(config, tasks) as runner:
            stop = asyncio.Event()
            runners.append(runner)
            loops.append((asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield lambda: runners[0].worker_id
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
    assert not thread.is_alive()


async def test_a_handler_that_holds_the_loop_loses_nothing(dsn: str, eventually: Eventually) -> None:
    """For four times the dead time: its worker stays, says how its loop lags, and nobody runs the job beside it."""
    blocking = Blocking(4.0)
    config = WorkerConfig(dsn, dead_after=SECOND, heartbeat_interval=SECOND / 5)
    async with BackfillClient(dsn) as client:
        with working_elsewhere(config, blocking.tasks) as worker:
            first = worker()
            await client.enqueue("block", 1)
            await asyncio.to_thread(blocking.begun.wait, 30)
            async with WorkerRunner(config, blocking.tasks) as other:
                lag: LiteralString = f"select lag from {WORKERS} where id = %s"
                await eventually(lambda: value(dsn, lag, first), lambda seconds: seconds > 3)
                assert await asyncio.to_thread(blocking.ended.wait, 30)
                await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
                assert {row[0] for row in await rows(dsn, f"select id from {WORKERS}")} == {first, other.worker_id}
                assert worker() == first
                await eventually(lambda: value(dsn, lag, first), lambda seconds: seconds < 1)
        assert blocking.ran == [first]


async def test_a_loop_that_hangs_for_longer_than_stuck_after_loses_its_worker(dsn: str, eventually: Eventually) -> None:
    """Where that was asked for.

    Another runs the job, and the first goes on under a new id once its loop turns again.
    """
    blocking = Blocking(12.0)
    config = WorkerConfig(dsn, dead_after=SECOND, heartbeat_interval=SECOND / 5, stuck_after=SECOND)
    async with BackfillClient(dsn) as client:
        with working_elsewhere(config, blocking.tasks) as worker:
            first = worker()
            await client.enqueue("block", 1)
            await asyncio.to_thread(blocking.begun.wait, 30)
            async with WorkerRunner(config, blocking.tasks) as other:
                await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
                assert not blocking.ended.is_set()
                assert blocking.ran == [first, other.worker_id]
                await eventually(worker, lambda now: now != first)
                await eventually(
                    lambda: rows(dsn, f"select id from {WORKERS}"),
                    lambda found: {row[0] for row in found} == {worker(), other.worker_id},
                )
        assert len(blocking.ran) == 2


async def test_a_dsn_that_expires_is_asked_for_anew(dsn: str, eventually: Eventually) -> None:
    """A callable's first role may not log in any more and its connections are ended: the beat goes on with the next."""
    roles = [f"expiring_{number}_{time.monotonic_ns()}" for number in range(2)]
    asked: list[int] = []
    current = 0

    async def fresh() -> str:
        asked.append(current)
        return make_conninfo(dsn, user=roles[current])

    with psycopg.connect(dsn, autocommit=True) as admin:
        for role in roles:
            admin.execute(psycopg.sql.SQL("create role {} superuser login").format(psycopg.sql.Identifier(role)))
        try:
            async with BackfillClient(dsn):
                config = WorkerConfig(fresh, dead_after=4 * SECOND, heartbeat_interval=SECOND / 5)
                async with WorkerRunner(config, Blocking(0).tasks) as runner:
                    first = runner.worker_id
                    current = 1
                    admin.execute(psycopg.sql.SQL("alter role {} nologin").format(psycopg.sql.Identifier(roles[0])))
                    admin.execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [roles[0]]
                    )
                    before = await value(dsn, BEATEN, first)
                    await eventually(lambda: value(dsn, BEATEN, first), lambda now: now > before + 4 * SECOND)
                    assert runner.worker_id == first
                assert 1 in asked
        finally:
            admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = any (%s)", [roles])
            for role in roles:
                admin.execute(psycopg.sql.SQL("drop role {}").format(psycopg.sql.Identifier(role)))


async def test_a_string_that_a_callable_gave_is_replaced_now_and_then(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while all goes well: what the thread has must not be older than what expires.

    One that fails is asked again.
    """
    monkeypatch.setattr("backfill.worker.liveness.beat.FRESH_SECONDS", 0.05)
    monkeypatch.setattr("backfill.worker.liveness.beat._ASK_AGAIN_SECONDS", 0.05)
    asked, started = list[int](), list[int]()

    def fresh() -> str:
        asked.append(1)
        if started and len(asked) % 5 == 0:
            raise RuntimeError("no token just now")
        return dsn

    async with BackfillClient(dsn), WorkerRunner(WorkerConfig(fresh), Blocking(0).tasks):
        started.append(1)
        before = len(asked)
        await eventually(lambda: len(asked) > before + 12)


async def test_a_worker_whose_heartbeats_do_not_get_through_takes_nothing(dsn: str, eventually: Eventually) -> None:
    """Others may have given it up: it leaves them all jobs, and goes on once a heartbeat gets through."""
    config = WorkerConfig(dsn, dead_after=SECOND, heartbeat_interval=SECOND / 5)
    blocking = Blocking(0)
    async with BackfillClient(dsn) as client, WorkerRunner(config, blocking.tasks) as runner:
        await client.enqueue("block", 1)
        await eventually(lambda: len(blocking.ran) == 1)
        assert runner._parts is not None
        one = runner._parts.one
        async with await psycopg.AsyncConnection.connect(dsn) as other:
            await other.execute(f"select id from {WORKERS} for update")
            await eventually(lambda: one.beat.leased_until() < time.monotonic())
            claimed = one.executor.claimed
            await client.enqueue_bulk("block", [2, 3])
            await let_pass(0.5)
            assert one.executor.claimed == claimed
            assert len(blocking.ran) == 1
            await other.rollback()
        await eventually(lambda: len(blocking.ran) == 3)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)


async def test_a_heartbeat_brings_back_what_is_newest_of_control(dsn: str, eventually: Eventually) -> None:
    """And how large the fleet is."""
    config = WorkerConfig(dsn, dead_after=SECOND, heartbeat_interval=SECOND / 5)
    async with BackfillClient(dsn), WorkerRunner(config, Blocking(0).tasks) as runner:
        assert runner._parts is not None
        beat = runner._parts.one.beat
        said = await value(dsn, "insert into graphile_worker.backfill_control (said) values ('{}') returning version")
        await eventually(lambda: beat.version == said)
        async with WorkerRunner(config, Blocking(0).tasks):
            await eventually(lambda: beat.fleet == 2)


async def test_the_rust_engine_sees_our_workers(dsn: str, eventually: Eventually) -> None:
    """Where it has made its table of workers, even while ours run: a row that beats, and goes with the worker."""
    config = WorkerConfig(dsn, dead_after=SECOND, heartbeat_interval=SECOND / 5)
    beaten: LiteralString = "select max(last_heartbeat_at) from graphile_worker._private_workers"
    async with BackfillClient(dsn) as client, WorkerRunner(config, Blocking(0).tasks) as first:
        await rows(dsn, ENGINES)
        await eventually(lambda: rows(dsn, ENGINES_ROWS), lambda found: found == [(first.worker_id,)])
        begun = await value(dsn, beaten)
        await eventually(lambda: value(dsn, beaten), lambda now: now > begun)
        async with WorkerRunner(config, Blocking(0).tasks) as second:
            ids = sorted([(first.worker_id,), (second.worker_id,)])
            assert await rows(dsn, ENGINES_ROWS) == ids
        assert await rows(dsn, ENGINES_ROWS) == [(first.worker_id,)]
        await rows(dsn, f"update {WORKERS} set given_up_at = now()")
        await eventually(lambda: rows(dsn, ENGINES_ROWS), lambda found: found not in ([], [(ids[0][0],)]))
        await client.enqueue("block", 1)
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
        await eventually(lambda: rows(dsn, ENGINES_ROWS), lambda found: found == [(first.worker_id,)])
    assert await rows(dsn, ENGINES_ROWS) == []


async def test_an_engine_that_refuses_our_workers_costs_no_heartbeat(dsn: str, eventually: Eventually) -> None:
    """Its table may be another one some day."""
    config = WorkerConfig(dsn, dead_after=SECOND, heartbeat_interval=SECOND / 5)
    async with BackfillClient(dsn), WorkerRunner(config, Blocking(0).tasks) as runner:
        await rows(dsn, "create table graphile_worker._private_workers (name text)")
        before = await value(dsn, BEATEN, runner.worker_id)
        await eventually(lambda: value(dsn, BEATEN, runner.worker_id), lambda now: now > before + SECOND)
    assert await rows(dsn, f"select id from {WORKERS}") == []
