"""Pools of children under test: they are closed at the end, and have left nothing then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import psutil

from backfill.worker.processes.calls import Call, Outcome
from backfill.worker.processes.pool import ChildPool

HANDLER = "child_deeds:Deeds"


def call(name: str, *arguments: Any) -> Call:
    """A call that asks for a deed."""
    return Call(json.dumps([name, *arguments]).encode())


async def do(pool: ChildPool, name: str, *arguments: Any) -> Any:
    """Have a deed done, and give what it returned."""
    return json.loads((await pool.run(call(name, *arguments), ignore)).data)


def ignore(kind: str, data: bytes) -> None:
    """Hear nothing."""


class Begun:
    """A call that was started, and hears what it says.

    Args:
        pool: where it runs.
        name: the deed.
        arguments: what the deed is given.
    """

    def __init__(self, pool: ChildPool, name: str, *arguments: Any) -> None:
        self.call = call(name, *arguments)
        self.messages: list[tuple[str, bytes]] = []
        self.said = asyncio.Event()
        self.task: asyncio.Task[Outcome] = asyncio.create_task(pool.run(self.call, self._hear))

    async def began(self) -> bytes:
        """Wait until the deed says that it began; what it says with that."""
        async with asyncio.timeout(60):
            while not any(kind == "began" for kind, _ in self.messages):
                if self.task.done():
                    raise AssertionError(f"it ended before it began: {self.task}")
                self.said.clear()
                await asyncio.wait(
                    [asyncio.ensure_future(self.said.wait()), self.task], return_when=asyncio.FIRST_COMPLETED
                )
        return next(data for kind, data in self.messages if kind == "began")

    async def cancelled(self) -> None:
        """Cancel it, and wait for its end."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        assert self.task.cancelled()

    def _hear(self, kind: str, data: bytes) -> None:
        self.messages.append((kind, data))
        self.said.set()


@contextlib.asynccontextmanager
async def pool_of(size: int, setup: bytes = b"", **options: Any) -> AsyncIterator[ChildPool]:
    """A pool; at its end neither a child nor a descriptor of it is left."""
    descriptors, children = len(os.listdir("/proc/self/fd")), child_pids()
    pool = ChildPool(size, HANDLER, setup, **options)
    try:
        yield pool
    finally:
        await pool.close()
    assert list(pool.children) == []
    assert child_pids() - children == set()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def child_pids() -> set[int]:
    """The children of this process, those too that have ended and that nobody has waited for."""
    return {child.pid for child in psutil.Process().children()}
