"""A worker with something in its way: how fast it runs its own jobs beside those that it cannot run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, LiteralString

import psycopg
import uvloop

from backfill import QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

from sides.ours import Counted, noop
from sides.queue import SERIAL, Queue

OWN: Final = "noop"
OTHER: Final = "other"
FREE: Final = "free-"
BLOCKED: Final = "blocked-"
PAUSED: Final = "paused-"
_QUEUES: LiteralString = """
insert into graphile_worker._private_job_queues (queue_name)
select %s || n from generate_series(0, %s::integer - 1) as n
on conflict do nothing
"""
_PAUSES: LiteralString = """
select graphile_worker.backfill_say('pause', 'queue:' || %s || n, '{}') from generate_series(0, %s::integer - 1) as n
"""
Round = Callable[[], float]


def own_rate(dsn: str, jobs: int, *, lanes: Sequence[QueueConfig] = (), stuck: bool = False) -> float:
    """Jobs a second from the moment at which the worker is there until its last job begins.

    What the first look costs counts. The table is not asked what is left in it, since that would cost more than the worker.

    Args:
        dsn: of the queue.
        jobs: how many of the worker's own there are.
        lanes: one of 100 slots if not given.
        stuck: whether it knows the other task, too, whose handler ends no sooner than all else.
    """
    logging.disable(logging.WARNING)

    async def run() -> float:
        counted = Counted(noop, jobs)
        registry: TaskRegistry[None] = TaskRegistry()
        registry.task(OWN)(counted)
        if stuck:

            @registry.task(OTHER)
            async def wait(payload: dict[str, Any]) -> None:
                del payload
                await counted.done.wait()

        config = WorkerConfig(dsn, queues=list(lanes) or [QueueConfig.default_queue(100)])
        async with WorkerRunner(config, registry):
            began = time.perf_counter()
            await counted.done.wait()
            return jobs / (time.perf_counter() - began)

    return uvloop.run(run())


def parallel_round(dsn: str, jobs: int, *, lanes: Sequence[QueueConfig] = (), stuck: bool = False) -> Round:
    """A side that adds its own parallel jobs behind whatever there is, and runs them."""

    def measure() -> float:
        queue = Queue(dsn)
        queue.parallel(OWN, jobs)
        queue.settle()
        return own_rate(dsn, jobs, lanes=lanes, stuck=stuck)

    return measure


def serial_round(dsn: str, queues: int, each: int) -> Round:
    """The same with jobs in free queues."""

    def measure() -> float:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(_QUEUES, [FREE, queues])
            connection.execute(SERIAL, [0, queues, each, FREE, queues, OWN])
        Queue(dsn).settle()
        return own_rate(dsn, queues * each)

    return measure


def block(dsn: str, queues: int, each: int) -> None:
    """Jobs in queues that somebody else has locked, of a better priority than any other."""
    Queue(dsn).serial(OWN, queues, each, name=BLOCKED, locked=True, priority=-5)


def pause(dsn: str, queues: int, each: int) -> None:
    """Jobs in queues that an operator has paused, of a better priority than any other."""
    Queue(dsn).serial(OWN, queues, each, name=PAUSED, priority=-5)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_PAUSES, [PAUSED, queues])


def name_queues(dsn: str, names: int) -> None:
    """So many names in the queues' table, without jobs."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_QUEUES, ["user-", names])


async def _migrated(dsn: str) -> None:
    from backfill.storage.connection import connect
    from backfill.storage.schema.migrate import migrate

    async with await connect(dsn) as connection:
        await migrate(connection, schema="graphile_worker")


def migrated(dsn: str) -> str:
    """A database with the queue's schema, beside the one that the fixture gives."""
    asyncio.run(_migrated(dsn))
    return dsn
