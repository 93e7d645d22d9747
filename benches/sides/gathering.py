"""Both sides of single enqueues that arrive together: with gathering and without it, and what the driver does by itself."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Final, LiteralString

import orjson
import psycopg
import uvloop

from backfill import BackfillClient

from sides.producers import TASK, empty_table

CROWD: Final = 64
"""How many coroutines add jobs at once, over one connection."""
_ROUNDS: Final = 40
_ADD_JOBS: LiteralString = """
select jobs.id
from graphile_worker.add_jobs(
  array(
    select cast(row(task, payload::json, null, now(), 8, null, 0, null) as graphile_worker.job_spec)
    from unnest($1::text[], $2::text[]) as given (task, payload)
  )
) as jobs
"""


def crowd_rate(dsn: str, *, gather: bool, crowd: int = CROWD, calls: int = _ROUNDS * CROWD) -> float:
    """Jobs a second that so many coroutines add one by one over one connection."""

    async def run() -> float:
        await empty_table(dsn)
        async with BackfillClient(dsn, max_size=1, gather=gather) as client:
            await _in_turns(client, crowd, 2 * crowd)
            began = time.perf_counter()
            await _in_turns(client, crowd, calls)
            return calls / (time.perf_counter() - began)

    return uvloop.run(run())


def crowd_wait(dsn: str) -> float:
    """The median of how many milliseconds one of the coroutines waits for its call."""

    async def run() -> float:
        await empty_table(dsn)
        async with BackfillClient(dsn, max_size=1) as client:
            await _in_turns(client, CROWD, 2 * CROWD)
            return median(await _in_turns(client, CROWD, _ROUNDS * CROWD)) * 1000

    return uvloop.run(run())


def bare_wait(dsn: str) -> float:
    """The median of how many milliseconds one call of add_jobs takes for as many rows, with its commit, by the driver."""

    async def run() -> float:
        await empty_table(dsn)
        waits = []
        async with await psycopg.AsyncConnection.connect(
            dsn, autocommit=True, cursor_factory=psycopg.AsyncRawCursor
        ) as connection:
            for number in range(_ROUNDS):
                began = time.perf_counter()
                payloads = [orjson.dumps({"user": number + user}).decode() for user in range(CROWD)]
                cursor = await connection.execute(_ADD_JOBS, ([TASK] * CROWD, payloads), prepare=True)
                await cursor.fetchall()
                waits.append(time.perf_counter() - began)
        return median(waits) * 1000

    return uvloop.run(run())


async def _in_turns(client: BackfillClient, crowd: int, calls: int) -> list[float]:
    waits: list[float] = []

    async def one() -> None:
        for number in range(calls // crowd):
            began = time.perf_counter()
            await client.enqueue(TASK, {"user": number})
            waits.append(time.perf_counter() - began)

    await asyncio.gather(*(one() for _ in range(crowd)))
    return waits


def lone_rate(dsn: str, *, gather: bool, calls: int = 1_000) -> float:
    """Jobs a second that one coroutine adds one by one."""
    return crowd_rate(dsn, gather=gather, crowd=1, calls=calls)
