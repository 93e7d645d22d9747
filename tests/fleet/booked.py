"""A worker process whose handlers keep books.

There is a row when an attempt begins, and its end in it, whatever becomes of the database.

Called as `booked.py SETTINGS`, a JSON object of what `Settings` has; says on its output which worker it is, and ends by
a graceful stop when its input is closed or on SIGTERM. On SIGUSR1 it logs what it is doing. Where the database cannot
be reached at the start it tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import datetime as dt
import gc
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import uvloop
from psycopg.pq import TransactionStatus
from stopping import told_to_stop

from backfill import BackfillClient, RetryPolicy, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.errors import BackfillError
from backfill.worker.execution.executor import Executor
from backfill.worker.express import mode, proofs

logger = logging.getLogger("booked")

RECORDERS = 4
BEGIN = """
insert into attempts (token, job_id, number, attempt, worker, process, queue, began)
values (%s, %s, %s, %s, %s, %s, %s, %s)
on conflict do nothing
"""
END = """
insert into attempts (token, job_id, number, attempt, worker, process, queue, began, ended, good)
values (%s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, clock_timestamp()), %s)
on conflict (token) do update
set ended = coalesce(attempts.ended, excluded.ended), good = excluded.good and coalesce(attempts.good, true)
"""
"""Its parameters are those of the begin, which it writes too where that was not written, the end's time, and whether it
was good. The time is the server's where none is given. What was not good stays so, whichever statement comes first."""
PATIENCE = 5.0
"""Seconds that a cancelled handler may take to write its end: the server may be away, and a shutdown waits."""
HOUR = timedelta(hours=1)
SOON = RetryPolicy(25, timedelta(milliseconds=100), timedelta(seconds=1), 2.0, 0.1)


class Settings(msgspec.Struct):
    """What a worker process is told.

    Attributes:
        dsn: by which the worker reaches its database.
        records: by which its handlers write their books, which nothing but the server's own faults may disturb.
        process: a name for this process, new for each.
        concurrency: how many jobs run at once.
        dead_after: seconds without a heartbeat.
        heartbeat: seconds between heartbeats.
        pool_size: connections for handlers at most.
        listens: whether it listens for new jobs; else it only polls.
        listen_dsn: by which it listens, round a pooler.
        poll: seconds between its looks for jobs.
        tasks: how many more tasks it has that do the same as `work`: `work0`, `work1` ...
        stale: seconds after which a lock of another program's worker is abandoned; then it looks for such locks, and
            for what others failed for good, every second.
        express: whether `work` is an express task, which is proven after one attempt.
    """

    dsn: str
    records: str
    process: str
    concurrency: int = 8
    dead_after: float = 20.0
    heartbeat: float = 5.0
    pool_size: int = 2
    listens: bool = True
    listen_dsn: str | None = None
    poll: float = 2.0
    tasks: int = 0
    stale: float | None = None
    express: bool = False


class Work(msgspec.Struct):
    """A payload.

    Attributes:
        number: of the job in the books.
        seconds: how long its work takes.
        fails: how many of its first attempts fail.
        again: how long the work of attempts after the first takes, if not as long.
    """

    number: int
    seconds: float = 0.0
    fails: int = 0
    again: float | None = None


class Recorders:
    """A few connections to write the books by; each statement is committed at once, and repeated until it is."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._free: asyncio.Queue[psycopg.AsyncConnection[Any] | None] = asyncio.Queue()
        self._writing = set[asyncio.Task[None]]()
        for _ in range(RECORDERS):
            self._free.put_nowait(None)

    async def write(self, query: str, *parameters: Any) -> None:
        """Carry out a statement that may be repeated without harm."""
        while True:
            connection = await self._free.get()
            try:
                if connection is None or connection.closed:
                    connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True, connect_timeout=5)
                await connection.execute(query, parameters)  # type: ignore[arg-type]
                return
            except (psycopg.Error, OSError):
                await asyncio.sleep(0.1)
            finally:
                if connection is not None and connection.info.transaction_status != TransactionStatus.IDLE:
                    connection.pgconn.finish()  # left in the middle by a cancellation: it would take no other statement
                self._free.put_nowait(connection)

    def write_soon(self, query: str, *parameters: Any) -> None:
        """Have such a statement carried out, whoever is cancelled meanwhile; `close` waits for it."""
        writing = asyncio.ensure_future(self.write(query, *parameters))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Write what is left, and close the connections."""
        await asyncio.gather(*self._writing)
        while not self._free.empty():
            connection = self._free.get_nowait()
            if connection is not None:
                await connection.close()


class LostWindows(logging.Handler):
    """Writes down when this process learns that one of its windows is lost."""

    def __init__(self, recorders: Recorders) -> None:
        super().__init__(logging.INFO)
        self._recorders = recorders

    def emit(self, record: logging.LogRecord) -> None:
        """Look whether the line says so."""
        if record.msg.startswith("a window was lost"):
            query = "insert into lost_windows values (%s, %s) on conflict do nothing"
            self._recorders.write_soon(query, settings.process, dt.datetime.now(dt.UTC))


settings = msgspec.json.decode(sys.argv[1], type=Settings)
if settings.express:
    proofs.NEEDED, proofs.MOST_SLOW = 1, 1.0  # type: ignore[misc]
    mode.REST_SECONDS = 0.1  # type: ignore[misc]
    mode.MOST_WORKERS = 100  # type: ignore[misc] # those that were killed count too, until they are known to be dead


@asynccontextmanager
async def recorders(_: BackfillClient) -> AsyncIterator[Recorders]:
    """The books' connections, for as long as the worker runs."""
    found = Recorders(settings.records)
    windows = LostWindows(found)
    logging.getLogger("backfill.worker.express").addHandler(windows)
    try:
        yield found
    finally:
        logging.getLogger("backfill.worker.express").removeHandler(windows)
        await found.close()


tasks: TaskRegistry[Recorders] = TaskRegistry(lifespan=recorders)


@asynccontextmanager
async def booked(work: Work, ctx: WorkerContext[Recorders]) -> AsyncIterator[None]:
    """Write an attempt down around its work: its begin before, its end behind, and whether it was good."""
    # It has begun now, not when its row is written at last: the server may be away, or this process be stopped in
    # between.
    token, began = uuid.uuid4(), dt.datetime.now(dt.UTC)
    entry = (
        token, ctx.job.id, work.number, ctx.attempt, ctx.worker_id, settings.process, ctx.job.queue_name, began,
    )  # fmt: skip
    try:
        await ctx.deps.write(BEGIN, *entry)
        try:
            yield
        except Exception:
            await ctx.deps.write(END, *entry, None, False)
            raise
        await ctx.deps.write(END, *entry, None, True)
    except asyncio.CancelledError:  # wherever it stood, also in the middle of writing
        if settings.express:
            # Others may run the job of a window that was lost: the handler ends now, and does not wait for the books.
            ctx.deps.write_soon(END, *entry, dt.datetime.now(dt.UTC), False)
            raise
        with contextlib.suppress(TimeoutError):
            # Whoever cancels a job waits for its handler, however long that cleans up; a shutdown does not.
            async with asyncio.timeout(PATIENCE if ctx.cancelled_by is None else None):
                await ctx.deps.write(END, *entry, None, False)
        raise


async def _do(work: Work, ctx: WorkerContext[Recorders]) -> None:
    async with booked(work, ctx):
        await asyncio.sleep(work.seconds if ctx.attempt == 1 or work.again is None else work.again)
        if ctx.attempt <= work.fails:
            raise ValueError("by design")


@tasks.task("work", retry=SOON, express=settings.express)
async def work(work: Work, ctx: WorkerContext[Recorders]) -> None:
    """Takes its time and fails as often as it is told."""
    await _do(work, ctx)


for number in range(settings.tasks):
    tasks.task(f"work{number}", retry=SOON)(_do)


@tasks.task("kept", retry=SOON, keep=HOUR)
async def kept(work: Work, ctx: WorkerContext[Recorders]) -> None:
    """The same, and its end is kept."""
    await _do(work, ctx)


@tasks.task("seize", retry=SOON)
async def seize(work: Work, ctx: WorkerContext[Recorders]) -> None:
    """Holds the interpreter's lock in a C call: no Python runs meanwhile, in no thread of this process."""
    async with booked(work, ctx):
        ctypes.PyDLL(None).usleep(ctypes.c_uint(round(work.seconds * 1_000_000)))


async def main() -> None:
    """Work until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stop = told_to_stop()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell)
    config = WorkerConfig(
        settings.dsn,
        concurrency=settings.concurrency,
        dead_after=timedelta(seconds=settings.dead_after),
        heartbeat_interval=timedelta(seconds=settings.heartbeat),
        pool_size=settings.pool_size,
        listen=settings.listens,
        listen_dsn=settings.listen_dsn,
        poll_interval=timedelta(seconds=settings.poll),
        shutdown_timeout=timedelta(seconds=10),
        **_cleaning(settings.stale),
    )
    runner = WorkerRunner(config, tasks)
    if not await _started(runner, stop):
        return
    try:
        print(runner.worker_id, flush=True)
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({stopped, runner._attended().failed}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        await asyncio.wait([stopped])
    finally:
        await runner.__aexit__(None, None, None)  # raises what a part failed with


def _cleaning(stale: float | None) -> dict[str, Any]:
    """How soon it cleans up behind workers of other programs, of `WorkerConfig`."""
    if stale is None:
        return {}
    age, second = timedelta(seconds=stale), timedelta(seconds=1)
    return {
        "stale_job_lock_timeout": age,
        "stale_queue_lock_timeout": age,
        "stale_lock_cleanup_interval": second,
        "dlq_processor_interval": second,
    }


def _tell() -> None:
    """Log where each task is, down to what it awaits."""
    for task in asyncio.all_tasks():
        places, inner = [], task.get_coro()
        while (frame := getattr(inner, "cr_frame", None)) is not None:
            places.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
            inner = getattr(inner, "cr_await", None)
        logger.info("%s: %s", task.get_name(), " > ".join(places))
    for executor in [one for one in gc.get_objects() if isinstance(one, Executor)]:
        starter = executor._starter
        logger.info(
            "%s claimed, %s started, %s not; %s held, %s running, %s lost; stopped %s, leased %s, swept %s",
            executor.claimed, executor.started, executor._unstarted, len(executor.held), len(executor._running),
            len(executor.stragglers._lost), starter.stopped, executor.is_leased(time.monotonic()),
            executor.worker_cancelled(),
        )  # fmt: skip
        for lane in executor.held.lanes:
            names = ("free", "asked", "holding", "lowered", "shut", "hungry", "limited", "windows", "beside", "behind")
            turn = starter._rounds.get(lane)
            logger.info(
                "lane %s: %s ready, round %s, %s", lane.config.name, len(lane.ready),
                turn and (turn.left, turn.taken), {name: getattr(lane, name) for name in names},
            )  # fmt: skip
    logger.info("told")


async def _started(runner: WorkerRunner, stop: asyncio.Event) -> bool:
    """Start the worker, again and again as a supervisor would; whether it runs."""
    while not stop.is_set():
        try:
            await runner.__aenter__()
        except (BackfillError, psycopg.Error, TimeoutError, OSError) as error:
            logger.warning("not started yet: %s", error)
            await asyncio.sleep(0.2)
        else:
            return True
    return False


if __name__ == "__main__":
    os.environ.pop("DATABASE_URL", None)
    uvloop.run(main())
