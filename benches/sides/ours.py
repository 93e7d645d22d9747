"""Our side: one worker in one process, and what its handlers are."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import psycopg
import uvloop

from backfill import (
    CallNext,
    HookRegistry,
    JobComplete,
    Plugin,
    QueueConfig,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from backfill.middleware import AsyncMiddleware

Handler = Callable[[dict[str, Any]], Awaitable[object]]


async def noop(payload: dict[str, Any]) -> None:
    """Nothing."""


async def echo(payload: dict[str, Any]) -> dict[str, Any]:
    """Its payload is its result."""
    return payload


async def short(payload: dict[str, Any]) -> None:
    """A millisecond of waiting."""
    await asyncio.sleep(0.001)


async def passing(call_next: CallNext, ctx: WorkerContext[None]) -> object:
    """A middleware that does nothing."""
    return await call_next()


class TenthFails:
    """Every tenth job fails the first time."""

    def __init__(self) -> None:
        self._failed: set[int] = set()

    async def __call__(self, payload: dict[str, Any]) -> None:
        """One job."""
        number = payload["user"]
        if number % 10 == 0 and number not in self._failed:
            self._failed.add(number)
            raise ConnectionError("the service is away")


class Observing:
    """A plugin with one sync observer of JobComplete, which counts."""

    def __init__(self) -> None:
        self.count = 0

    def register(self, hooks: HookRegistry) -> None:
        """Register it."""
        hooks.on(JobComplete, self.completed)

    def completed(self, _event: JobComplete) -> None:
        """One job."""
        self.count += 1


class Counted:
    """A handler that counts, and says when the first and the last of so many have begun."""

    def __init__(self, handler: Handler, jobs: int) -> None:
        self._handler = handler
        self._jobs = jobs
        self.count = 0
        self.first = 0.0
        self.done = asyncio.Event()

    async def __call__(self, payload: dict[str, Any]) -> object:
        """One job."""
        if not self.count:
            self.first = time.perf_counter()
        self.count += 1
        try:
            return await self._handler(payload)
        finally:
            if self.count >= self._jobs:
                self.done.set()


def worker_rate(
    dsn: str,
    jobs: int,
    *,
    handler: Handler = noop,
    slots: int = 100,
    task: str = "noop",
    settled: bool = True,
    runs: int | None = None,
    retry: RetryPolicy | None = None,
    keep: timedelta | None = None,
    plugins: Sequence[Plugin] = (),
    middleware: Sequence[AsyncMiddleware[None]] = (),
    beside: str | None = None,
) -> float:
    """Jobs a second that a worker runs, from its first job's begin until the table is empty (or the last one's end).

    `runs` is how many attempts they take, where some fail; `retry` says how long those wait;
    `keep` how long ends are kept; `plugins` are the worker's, and `middleware` runs around the handler;
    `beside` is another task that the worker knows.
    """
    logging.disable(logging.WARNING)
    gc.freeze()  # as the shell's worker does

    async def run() -> float:
        counted = Counted(handler, runs or jobs)
        registry: TaskRegistry[None] = TaskRegistry()
        registry.task(task, retry=retry, keep=keep, middleware=middleware)(counted)
        if beside is not None:
            registry.task(beside)(noop)
        config = WorkerConfig(dsn, queues=[QueueConfig.default_queue(slots)])
        async with (
            await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
            WorkerRunner(config, registry, plugins=plugins),
        ):
            await counted.done.wait()
            ended = time.perf_counter()
            while settled and await _left(connection):  # as often as the server answers
                ended = time.perf_counter()
        return jobs / (ended - counted.first)

    try:
        return uvloop.run(run())
    finally:
        gc.unfreeze()


async def _left(connection: psycopg.AsyncConnection[Any]) -> bool:
    cursor = await connection.execute(
        "select 1 from graphile_worker._private_jobs as jobs join graphile_worker._private_tasks as tasks"
        " on tasks.id = jobs.task_id where tasks.identifier = 'noop' limit 1"
    )
    return bool(await cursor.fetchall())
