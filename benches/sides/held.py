"""Steady work before and under an old snapshot: how long jobs wait, while the rows of all that ran stay where they were."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import psycopg

from backfill import BackfillClient, NewJob

from sides.held_worker import TASK

RATE = 800
SLOTS = 32
READERS = 4
_TURN = 0.025
_MOST = 128
_WARM_UP = 10.0
_PADDING = "x" * 190
_BENCHES = Path(__file__).parent.parent


@dataclass(slots=True)
class Waits:
    """How long each job waited from its sending to its start.

    Attributes:
        seen: when it was sent (Unix time), and the seconds.
    """

    seen: list[tuple[float, float]] = field(default_factory=list)

    def between(self, since: float, until: float) -> tuple[float, float]:
        """The median and the 99th percentile of the jobs that were sent in a part of the time, in milliseconds."""
        cuts = quantiles([wait for sent, wait in self.seen if since <= sent < until], n=100)
        return cuts[49] * 1000, cuts[98] * 1000


async def before_and_under(
    dsn: str, *, processes: int, part: float, under: float, readers: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The waits of the part before the snapshot is taken, and of the last part under it: median and 99th percentile.

    Args:
        dsn: of a database with the schema.
        processes: how many workers.
        part: seconds of each of the two parts.
        under: seconds under the snapshot, the last part included.
        readers: whether four transactions that have counted the jobs stay open, else one that has written.
    """
    waits = Waits()
    async with _workers(dsn, processes, waits), BackfillClient(dsn) as client:
        producing = asyncio.create_task(_produce(client))
        await asyncio.wait([producing], timeout=_WARM_UP)
        began = time.time()
        await asyncio.wait([producing], timeout=part)
        taken = time.time()
        async with _old(dsn, readers=readers):
            await asyncio.wait([producing], timeout=under)
            ended = time.time()
        producing.cancel()
        await asyncio.wait([producing])
        if not producing.cancelled():
            producing.result()
    return waits.between(began, taken), waits.between(ended - part, ended)


@asynccontextmanager
async def _old(dsn: str, *, readers: bool) -> AsyncIterator[None]:
    """Transactions that stay open."""
    async with AsyncExitStack() as stack:
        for _ in range(READERS if readers else 1):
            connection = await stack.enter_async_context(await psycopg.AsyncConnection.connect(dsn))
            if readers:
                await connection.execute("set transaction isolation level repeatable read")
                await connection.execute("select count(*) from graphile_worker._private_jobs")
            else:
                await connection.execute("select pg_current_xact_id()")
        yield


@asynccontextmanager
async def _workers(dsn: str, processes: int, waits: Waits) -> AsyncIterator[None]:
    """Workers in processes of their own; what is left at the end is deleted."""
    command = (sys.executable, "-m", "sides.held_worker", dsn, str(SLOTS))
    pipe = asyncio.subprocess.PIPE
    started = [
        await asyncio.create_subprocess_exec(*command, cwd=_BENCHES, stdin=pipe, stdout=pipe, limit=2**24)
        for _ in range(processes)
    ]
    reading = [asyncio.create_task(_read(process, waits)) for process in started]
    try:
        yield
    finally:
        for process in started:
            if process.stdin is not None:
                process.stdin.close()
        await asyncio.wait(reading, timeout=30)
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute("delete from graphile_worker._private_jobs where locked_at is null")
    for task in reading:
        task.result()


async def _read(process: asyncio.subprocess.Process, waits: Waits) -> None:
    """Take in what a worker prints."""
    assert process.stdout is not None
    while line := await process.stdout.readline():
        waits.seen += json.loads(line)
    if await process.wait():
        raise ChildProcessError(f"a worker ended with {process.returncode}")


async def _produce(client: BackfillClient) -> None:
    """Enqueue so many jobs a second, forty times a second."""
    credit, last, number = 0.0, time.monotonic(), 0
    while True:
        now = time.monotonic()
        credit, last = credit + RATE * (now - last), now
        count = min(_MOST, int(credit))
        credit -= count
        if count:
            sent = time.time()
            payloads = [{"id": f"x.{number + place}", "sent": sent, "pad": _PADDING} for place in range(count)]
            number += count
            await client.enqueue_bulk([NewJob(TASK, payload) for payload in payloads])
        await asyncio.sleep(max(_TURN - (time.monotonic() - now), 0.0))
