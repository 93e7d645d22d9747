"""Both sides of a job's delay: a client and an idle worker, and the bare way of a notification and a claim."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import psycopg
import uvloop

from backfill import BackfillClient, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

from sides.bare import CLAIM, SETTINGS
from sides.ours import Counted, noop
from sides.producers import INSERT

TASK: Final = "noop"
ENQUEUES: Final = 400
_WARMING: Final = 50
_PAUSE: Final = 0.01
"""Seconds between one job's begin and the next one's enqueueing: what the one before it left to do is done by then."""
Started = asyncio.Future[float]


def worker_delays(dsn: str, *, warming: int = 0, express: bool = False) -> list[float]:
    """Seconds from the call of enqueue to the handler's start, each on an idle worker.

    Args:
        dsn: of the queue.
        warming: how many jobs the worker has run before.
        express: how the task is registered.
    """
    logging.disable(logging.WARNING)

    async def run() -> list[float]:
        started: Started = asyncio.get_running_loop().create_future()
        warmed = Counted(noop, warming)
        registry: TaskRegistry[None] = TaskRegistry()

        @registry.task(TASK, express=express)
        async def handler(payload: dict[str, Any]) -> None:
            if not warmed.done.is_set():
                await warmed(payload)
            else:
                started.set_result(time.perf_counter())

        config = WorkerConfig(dsn, queues=[QueueConfig.default_queue(100)])
        async with BackfillClient(dsn) as client, WorkerRunner(config, registry):
            if warming:
                await client.enqueue_bulk(TASK, ({"user": user} for user in range(warming)))
                await warmed.done.wait()
            else:
                warmed.done.set()
            await asyncio.sleep(0.5)  # the listener listens, and what was warmed with is settled

            async def once(user: int) -> float:
                nonlocal started
                started = asyncio.get_running_loop().create_future()
                began = time.perf_counter()
                await client.enqueue(TASK, {"user": user})
                return await started - began

            return await _delays(once)

    return uvloop.run(run())


def bare_delays(dsn: str) -> list[float]:
    """Seconds from the insert to the claim's answer, on three connections that are held."""

    async def run() -> list[float]:
        listener, producer, worker = [
            await psycopg.AsyncConnection.connect(dsn, autocommit=True, cursor_factory=psycopg.AsyncRawCursor)
            for _ in range(3)
        ]
        async with listener, producer, worker:
            for setting in SETTINGS:
                await worker.execute(setting)
            await worker.execute(
                "insert into graphile_worker._private_tasks (identifier) values ($1) on conflict do nothing", [TASK]
            )
            cursor = await worker.execute("select id from graphile_worker._private_tasks where identifier = $1", [TASK])
            [[task]] = await cursor.fetchall()
            await listener.execute('listen "jobs:insert"')
            claim = CLAIM.decode()

            async def claimed() -> float:
                async for _ in listener.notifies(stop_after=1):
                    pass
                answer = await worker.execute(claim, ["bare", [task], 100], prepare=True, binary=True)
                [row] = await answer.fetchall()
                ended = time.perf_counter()
                await worker.execute("delete from graphile_worker._private_jobs where id = $1", [row[0]])
                return ended

            async def once(user: int) -> float:
                waiting = asyncio.ensure_future(claimed())
                await asyncio.sleep(0)  # it listens
                began = time.perf_counter()
                await producer.execute(INSERT, (task, f'{{"user":{user}}}', 8), prepare=True)
                return await waiting - began

            return await _delays(once)

    return uvloop.run(run())


async def _delays(once: Callable[[int], Awaitable[float]]) -> list[float]:
    found = []
    for user in range(_WARMING + ENQUEUES):
        delay = await once(user)
        if user >= _WARMING:
            found.append(delay)
        await asyncio.sleep(_PAUSE)
    return found


def quantile(delays: list[float], share: float) -> float:
    """Of so many delays, the one that a share of them do not exceed; in milliseconds."""
    return sorted(delays)[min(int(len(delays) * share), len(delays) - 1)] * 1000
