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

from sides.left import Left

Handler = Callable[[dict[str, Any]], Awaitable[object]]


async def noop(payload: dict[str, Any]) -> None:
    """Nothing."""


async def echo(payload: dict[str, Any]) -> dict[str, Any]:
    """Its payload is its result."""
    return payload


async def short(payload: dict[str, Any]) -> None:
    """A millisecond of waiting."""
    await asyncio.sleep(0.001)


async def mixed(payload: dict[str, Any]) -> None:
    """Nothing, but for one job of twenty a tenth of a second of waiting."""
    if payload["user"] % 20 == 0:
        await asyncio.sleep(0.1)


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
    """A handler that counts, and says when the first and the last of so many have begun; `warming` come before the first."""

    def __init__(self, handler: Handler, jobs: int, warming: int = 0) -> None:
        self._handler = handler
        self._warming = warming
        self._all = warming + jobs
        self.count = 0
        self.first = 0.0
        self.warm = asyncio.Event()
        self.done = asyncio.Event()

    async def __call__(self, payload: dict[str, Any]) -> object:
        """One job."""
        if self.count == self._warming:
            self.first = time.perf_counter()
            self.warm.set()
        self.count += 1
        try:
            return await self._handler(payload)
        finally:
            if self.count >= self._all:
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
    warming: int = 0,
    express: bool = False,
) -> float:
    """Jobs a second that a worker runs, from its first job's begin until the table is empty (or the last one's end).

    `runs` is how many attempts they take, where some fail; `retry` says how long those wait;
    `keep` how long ends are kept; `plugins` are the worker's, and `middleware` runs around the handler;
    `beside` is another task that the worker knows; `warming` jobs more are there, which run before the clock starts;
    `express` is how the task is registered.
    """
    logging.disable(logging.WARNING)
    gc.freeze()  # as the shell's worker does

    async def run() -> float:
        counted = Counted(handler, runs or jobs, warming)
        registry: TaskRegistry[None] = TaskRegistry()
        registry.task(task, retry=retry, keep=keep, middleware=middleware, express=express)(counted)
        if beside is not None:
            registry.task(beside)(noop)
        config = WorkerConfig(dsn, queues=[QueueConfig.default_queue(slots)])
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            left = await Left.of(connection)
            async with WorkerRunner(config, registry, plugins=plugins):
                await counted.done.wait()
                ended = await left.ended() if settled else time.perf_counter()
        return jobs / (ended - counted.first)

    try:
        return uvloop.run(run())
    finally:
        gc.unfreeze()
