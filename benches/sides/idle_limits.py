"""A worker that knows many limited tasks beside its own: how fast it runs jobs of the one that has no limit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final, LiteralString

import psycopg
import uvloop

from backfill import BackfillClient, Limit, TaskRegistry, WorkerConfig, WorkerRunner

from sides.backlog import OWN, Round
from sides.ours import Counted, noop
from sides.queue import Queue

LIMITED: Final = "limited"
_OPEN: LiteralString = """
select graphile_worker.backfill_say(
  'breaker', 'task:' || %s || n, jsonb_build_object('until', now() + interval '1 hour', 'trips', 1)
)
from generate_series(0, %s::integer - 1) as n
"""


def open_breakers(dsn: str, number: int) -> None:
    """Open the circuit breakers of so many tasks."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_OPEN, [LIMITED, number])


def _registry(own: Callable[..., Any], number: int, *, limit: bool) -> TaskRegistry[None]:
    registry: TaskRegistry[None] = TaskRegistry()
    registry.task(OWN)(own)
    for index in range(number):
        registry.task(f"{LIMITED}{index}", limit=Limit(4) if limit else None)(noop)
    return registry


def bulk_round(dsn: str, number: int, jobs: int, *, limit: bool = True) -> Round:
    """A side that adds jobs without a limit, and runs them beside so many other tasks; what the start costs counts."""

    async def run() -> float:
        counted = Counted(noop, jobs)
        async with WorkerRunner(WorkerConfig(dsn, concurrency=100), _registry(counted, number, limit=limit)):
            began = time.perf_counter()
            await counted.done.wait()
            return jobs / (time.perf_counter() - began)

    def measure() -> float:
        logging.disable(logging.WARNING)
        Queue(dsn).parallel(OWN, jobs)
        Queue(dsn).settle()
        return uvloop.run(run())

    return measure


def trickle_round(dsn: str, number: int, jobs: int, *, limit: bool = True) -> Round:
    """The same where each job is added when the one before it has begun."""

    async def run() -> float:
        begun = asyncio.Event()

        async def own(payload: Any) -> None:
            del payload
            begun.set()

        config = WorkerConfig(dsn, concurrency=10)
        async with BackfillClient(dsn) as client, WorkerRunner(config, _registry(own, number, limit=limit)):
            began = 0.0
            for index in range(-20, jobs):  # the first twenty are not counted
                if index == 0:
                    began = time.perf_counter()
                begun.clear()
                await client.enqueue(OWN, {})
                await begun.wait()
            return jobs / (time.perf_counter() - began)

    def measure() -> float:
        logging.disable(logging.WARNING)
        return uvloop.run(run())

    return measure
