"""Stops that something holds up: handlers that do not end, a lifespan that hangs, a renewal that is under way."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.errors import HandlersStillRunningError
from backfill.storage import until
from backfill.worker import lifespan, stop
from backfill.worker.execution import draining
from backfill.worker.liveness.beat import Beat
from backfill.worker.pipeline.hot import HotConnections
from backfill.worker.pipeline.locks import Locks
from backfill.worker.session import WorkerSession
from backfill.worker.upkeep.counters import Counters

from plugins.waiting import Eventually
from reading import rows, value

SECOND = timedelta(seconds=1)
LEFT: LiteralString = "select attempts, locked_by from graphile_worker._private_jobs"
WORKERS: LiteralString = "select count(*) from graphile_worker.backfill_workers"
GIVE_UP: LiteralString = "update graphile_worker.backfill_workers set given_up_at = now()"
LOG: LiteralString = """
create table given_back (seq bigint generated always as identity, job_id bigint, workers bigint);
create function note() returns trigger language plpgsql as $$
begin
  insert into public.given_back (job_id, workers)
  values (new.id, (select count(*) from graphile_worker.backfill_workers));
  return null;
end;
$$;
create trigger note after update on graphile_worker._private_jobs
for each row when (old.locked_by is not null and new.locked_by is null) execute function note()
"""
WORST = 60.0
"""Seconds within which each stop here ends: three times what its parts may take together."""


class Handlers:
    """Tasks that do not end when they should.

    Attributes:
        begun: how many attempts have begun.
        cancels: how many cancellations the coroutine has got.
        swallows: how many of them it swallows.
        ends: what ended, in order.
    """

    def __init__(self, lifespan: Callable[[BackfillClient], AbstractAsyncContextManager[None]] | None = None) -> None:
        self.begun = 0
        self.cancels = 0
        self.swallows = 1_000
        self.ends: list[str] = []
        self.released = threading.Event()
        self.let_go = asyncio.Event()
        self.tasks: TaskRegistry[None] = TaskRegistry() if lifespan is None else TaskRegistry(lifespan=lifespan)

        @self.tasks.task("thread")
        def thread() -> None:
            self.begun += 1
            self.released.wait(120)

        @self.tasks.task("clings")
        async def clings() -> None:
            self.begun += 1
            while not self.let_go.is_set():
                try:
                    await self.let_go.wait()
                except asyncio.CancelledError:
                    self.cancels += 1
                    if self.cancels > self.swallows:
                        raise

        @self.tasks.task("cleans")
        async def cleans() -> None:
            self.begun += 1
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                self.ends.append("cleaned")

    async def gone(self) -> None:
        """Let everything go, and wait until no attempt runs any more."""
        self.released.set()
        self.let_go.set()
        left = [task for task in asyncio.all_tasks() if "Executor._attempt" in repr(task)]
        if left:
            await asyncio.wait(left, timeout=WORST)


@pytest.fixture
def handlers() -> Iterator[Handlers]:
    """The tasks; what runs is let go of in the end."""
    found = Handlers()
    yield found
    found.released.set()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "CANCEL_GRACE", 0.3)
    monkeypatch.setattr(draining, "LAST_GRACE", 0.3)
    monkeypatch.setattr(lifespan, "LEAST_SECONDS", 0.3)
    monkeypatch.setattr(stop, "SETTLE_GRACE", 0.5)
    monkeypatch.setattr(until, "AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(until, "FURTHER_SECONDS", 0.1)


def _config(dsn: str, **settings: Any) -> WorkerConfig:
    return WorkerConfig(dsn, shutdown_timeout=SECOND / 5, listen=False, **settings)


@pytest.mark.parametrize("way", ["run", "run_until_cancelled", "async with"])
async def test_a_thread_that_does_not_end_is_an_error_of_the_stop(
    dsn: str, handlers: Handlers, eventually: Eventually, way: str
) -> None:
    """It names the jobs, which went back without cost; the worker has ended otherwise."""
    async with BackfillClient(dsn) as client:
        job = await client.enqueue("thread")
        runner, stopping = WorkerRunner(_config(dsn), handlers.tasks), asyncio.Event()

        async def inside() -> None:
            async with runner:
                await stopping.wait()

        ways = {
            "run": runner.run,
            "run_until_cancelled": lambda: runner.run_until_cancelled(stopping),
            "async with": inside,
        }
        running = asyncio.ensure_future(ways[way]())
        await eventually(lambda: handlers.begun)
        if way == "run":
            running.cancel()
        stopping.set()
        await asyncio.wait([running], timeout=WORST)
        error = running.exception()
        assert isinstance(error, HandlersStillRunningError)
        [(number, task, seconds)] = error.handlers
        assert (number, task) == (job.id, "thread")
        assert 0.0 < seconds < WORST
        assert f"job {job.id} (thread) for " in str(error)
        assert runner.worker_id is None
        assert await rows(dsn, LEFT) == [(0, None)]
        assert await value(dsn, WORKERS) == 0
    await handlers.gone()


async def test_an_error_of_the_block_is_not_hidden(dsn: str, handlers: Handlers, eventually: Eventually) -> None:
    """What the program raises itself comes out, and not that its handlers still run."""
    async with BackfillClient(dsn) as client:
        await client.enqueue("thread")
        with pytest.raises(ValueError, match="mine"):  # noqa: PT012 - the block is what raises
            async with WorkerRunner(_config(dsn), handlers.tasks):
                await eventually(lambda: handlers.begun)
                raise ValueError("mine")
    await handlers.gone()


async def test_what_does_not_end_goes_back_last(dsn: str, eventually: Eventually) -> None:
    """After the ends of all others and after the lifespan's, while the heartbeat's row is still there."""
    ended: list[int] = []

    @asynccontextmanager
    async def manager(_: BackfillClient) -> AsyncIterator[None]:
        yield
        ended.append(await value(dsn, "select count(*) from given_back"))

    handlers = Handlers(manager)
    try:
        await rows(dsn, LOG)
        async with BackfillClient(dsn) as client:
            thread, cleans = await client.enqueue("thread"), await client.enqueue("cleans")
            with pytest.raises(HandlersStillRunningError):
                async with WorkerRunner(_config(dsn), handlers.tasks):
                    await eventually(lambda: handlers.begun == 2)
    finally:
        await handlers.gone()
    assert await rows(dsn, "select job_id, workers from given_back order by seq") == [(cleans.id, 1), (thread.id, 1)]
    assert ended == [1]
    assert handlers.ends == ["cleaned"]


async def test_a_thread_that_ends_late_has_done_its_job(dsn: str, eventually: Eventually) -> None:
    """After the deadline and before its job would go back: its end is written, and nothing is an error."""
    handlers = Handlers()

    @asynccontextmanager
    async def manager(_: BackfillClient) -> AsyncIterator[None]:
        yield
        handlers.released.set()
        await eventually(lambda: all(running.ending is not None for running in held()))

    def held() -> list[Any]:
        assert runner._parts is not None
        return list(runner._parts.one.executor.held.values())

    tasks: TaskRegistry[None] = TaskRegistry(lifespan=manager)
    tasks.include(handlers.tasks)
    async with BackfillClient(dsn) as client:
        await client.enqueue("thread")
        runner = WorkerRunner(_config(dsn), tasks)
        async with runner:
            await eventually(lambda: handlers.begun)
        assert await rows(dsn, LEFT) == []


@pytest.mark.parametrize("ends", [True, False])
async def test_a_stop_waits_for_threads_of_a_lost_lease_too(
    dsn: str, handlers: Handlers, eventually: Eventually, ends: bool
) -> None:
    """Up to its deadline; one that still runs then is an error of the stop, although its job is not this worker's."""
    config = WorkerConfig(
        dsn, shutdown_timeout=(60 if ends else 0.2) * SECOND, listen=False, dead_after=4 * SECOND,
        heartbeat_interval=SECOND / 5,
    )  # fmt: skip
    async with BackfillClient(dsn) as client:
        job = await client.enqueue("thread")
        runner, stopping = WorkerRunner(config, handlers.tasks), asyncio.Event()
        running = asyncio.ensure_future(runner.run_until_cancelled(stopping))
        await eventually(lambda: handlers.begun)
        first = runner.worker_id
        await rows(dsn, GIVE_UP)
        await eventually(lambda: runner.worker_id != first)
        stopping.set()
        if ends:
            await eventually(lambda: "it is stopping" in runner.health().reasons)
            handlers.released.set()
        await asyncio.wait([running], timeout=WORST)
        error = running.exception()
        assert (error is None) == ends
        if isinstance(error, HandlersStillRunningError):
            assert [number for number, *_ in error.handlers] == [job.id]
        await rows(dsn, "update graphile_worker._private_jobs set locked_at = null, locked_by = null")
    await handlers.gone()


@pytest.mark.parametrize("swallows", [1, 1_000])
async def test_a_handler_that_swallows_its_cancellation_gets_another(
    dsn: str, handlers: Handlers, eventually: Eventually, swallows: int
) -> None:
    """At the end; one that swallows that too is an error of the stop, which ends nevertheless."""
    handlers.swallows = swallows
    async with BackfillClient(dsn) as client:
        await client.enqueue("clings")
        runner = WorkerRunner(_config(dsn), handlers.tasks)
        stopping = asyncio.Event()
        running = asyncio.ensure_future(runner.run_until_cancelled(stopping))
        await eventually(lambda: handlers.begun)
        stopping.set()
        await asyncio.wait([running], timeout=WORST)
        assert handlers.cancels == 2
        assert isinstance(running.exception(), HandlersStillRunningError) == (swallows > 1)
        assert await rows(dsn, LEFT) == [(0, None)]
    await handlers.gone()


@pytest.mark.parametrize("swallows", [0, 1_000])
async def test_a_lifespan_that_hangs_at_its_end_does_not_hold_up_the_stop(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture, swallows: int
) -> None:
    """It has what is left of the shutdown's time, and a few seconds at least; then it is cancelled, and left."""
    never, cancels = asyncio.Event(), 0

    @asynccontextmanager
    async def manager(_: BackfillClient) -> AsyncIterator[None]:
        nonlocal cancels
        yield
        while not never.is_set():
            try:
                await never.wait()
            except asyncio.CancelledError:
                cancels += 1
                if cancels > swallows:
                    raise

    tasks: TaskRegistry[None] = TaskRegistry(lifespan=manager)

    @tasks.task("nothing")
    async def nothing() -> None: ...

    runner = WorkerRunner(_config(dsn), tasks)
    async with BackfillClient(dsn):
        with caplog.at_level(logging.ERROR):
            async with asyncio.timeout(WORST):
                async with runner:
                    await eventually(lambda: runner.health().ready)
    assert "the end of the lifespan takes longer" in caplog.text
    assert ("not ended, although cancelled" in caplog.text) == (swallows > 0)
    assert await value(dsn, WORKERS) == 0
    never.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_lifespan_that_ends_in_time_is_not_cut_off(dsn: str, eventually: Eventually) -> None:
    """And what it raises comes out."""
    ended = []

    @asynccontextmanager
    async def manager(_: BackfillClient) -> AsyncIterator[None]:
        yield
        await eventually(lambda: value(dsn, WORKERS), lambda count: count == 0)
        ended.append(True)
        raise ValueError("of the lifespan")

    handlers = Handlers(manager)
    async with BackfillClient(dsn):
        with pytest.raises(ValueError, match="of the lifespan"):
            async with WorkerRunner(_config(dsn), handlers.tasks):
                pass
    assert ended == [True]


POINTS: list[tuple[type, str]] = [
    (WorkerSession, "settle"),
    (Locks, "compare"),
    (HotConnections, "close"),
    (HotConnections, "open"),
    (Beat, "first"),
    (Counters, "learn_clock"),
    (WorkerSession, "start"),
]
"""The steps of a renewal, in their order."""


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes-on", "hangs"])
@pytest.mark.parametrize(("kind", "name"), POINTS, ids=[f"{kind.__name__}.{name}" for kind, name in POINTS])
async def test_a_stop_at_any_point_of_a_renewal_ends(
    dsn: str, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, kind: type, name: str, goes_on: bool
) -> None:
    """The worker was given up and lets go of its jobs, or opens its next session, and is told to stop just then."""
    reached, on, hangs = asyncio.Event(), asyncio.Event(), True
    original = getattr(kind, name)
    began: list[str] = []
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("hold")
    async def hold(ctx: WorkerContext[None]) -> None:
        began.append(ctx.worker_id)
        await asyncio.Event().wait()

    async def paused(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal hangs
        if hangs:
            hangs = False
            reached.set()
            await on.wait()
        return await original(self, *arguments, **named)

    config = _config(dsn, dead_after=4 * SECOND, heartbeat_interval=SECOND / 5)
    async with BackfillClient(dsn) as client:
        await client.enqueue("hold")
        stopping = asyncio.Event()
        runner = WorkerRunner(config, tasks)
        running = asyncio.ensure_future(runner.run_until_cancelled(stopping))
        await eventually(lambda: began)
        monkeypatch.setattr(kind, name, paused)
        await rows(dsn, GIVE_UP)
        async with asyncio.timeout(WORST):
            await reached.wait()
        stopped = time.monotonic()
        stopping.set()
        await asyncio.sleep(0)
        if goes_on:
            on.set()
        await asyncio.wait([running], timeout=WORST)
        assert running.done()
        assert time.monotonic() - stopped < WORST
        running.result()
        assert runner.worker_id is None
