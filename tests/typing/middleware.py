"""Middleware: which functions a registry and a task take, and what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from backfill import CallNext, SyncCallNext, TaskRegistry, WorkerContext
from backfill.testing import run_job


@dataclass
class Deps:
    name: str


tasks = TaskRegistry(deps=Deps)
plain = TaskRegistry()


@tasks.middleware
async def loop(call_next: CallNext, ctx: WorkerContext[Deps]) -> Any:
    ctx.deps.name
    ctx.is_last_attempt
    return await call_next()


@tasks.middleware
def thread(call_next: SyncCallNext, ctx: WorkerContext[Deps]) -> Any:
    return call_next()


@tasks.middleware
async def spelt_out(call_next: Callable[[], Awaitable[object]], ctx: WorkerContext[Any]) -> object:
    return await call_next()


@tasks.middleware
def spelt_out_in_thread(call_next: Callable[[], object], ctx: WorkerContext[Any]) -> object:
    return call_next()


@tasks.middleware
async def exact(call_next: Callable[[], Awaitable[int]], ctx: WorkerContext[Any]) -> int:
    return 2 * await call_next()


class Counting:
    async def __call__(self, call_next: CallNext, ctx: WorkerContext[Any]) -> Any:
        return await call_next()


tasks.middleware(Counting())


async def one(call_next: CallNext) -> Any:
    return await call_next()


async def swapped(ctx: WorkerContext[Any], call_next: CallNext) -> Any:
    return await call_next()


async def unawaited(call_next: Callable[[], int], ctx: WorkerContext[Any]) -> int:
    return call_next()


def awaits_in_thread(call_next: CallNext, ctx: WorkerContext[Any]) -> None:
    call_next().close()


tasks.middleware(one)  # error: middleware
tasks.middleware(swapped)  # error: middleware
tasks.middleware(unawaited)  # error: middleware
tasks.middleware(awaits_in_thread)  # error: middleware
tasks.middleware(3)  # error: middleware
plain.middleware(loop)  # error: middleware


@tasks.task("send", middleware=[loop, spelt_out, Counting()])
async def send(to: str) -> int:
    return len(to)


@tasks.task("blocks", middleware=(loop, thread, spelt_out_in_thread))
def blocks(to: str) -> int:
    return len(to)


tasks.task("a", middleware=[one])  # error: Middleware[Deps]
tasks.task("b", middleware=[swapped])  # error: Middleware[Deps]
tasks.task("c", middleware=[unawaited])  # error: Middleware[Deps]
tasks.task("d", middleware=loop)  # error: middleware
plain.task("e", middleware=[loop])  # error: Middleware[None]


async def run() -> None:
    print(await run_job(send, "a", registry=tasks) + 1)
