"""Tells about new children, before they get their first calls: one telling at a time, and each tells of all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from backfill.worker.processes.calls import OnChildren


class Announcer:
    """Tells about children.

    Args:
        on_children: is told.
        children: gives all children that live.
    """

    def __init__(self, on_children: OnChildren, children: Callable[[], Sequence[tuple[int, int]]]) -> None:
        self._on_children = on_children
        self._children = children
        self._next: asyncio.Task[None] | None = None
        self._current: asyncio.Task[None] | None = None

    async def announce(self) -> None:
        """Have it told that there is a new child; what `on_children` raises is raised here.

        Those who ask while a telling is under way share the next one.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._tell(self._current), name="backfill-children")
        await asyncio.shield(self._next)

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = [task for task in (self._current, self._next) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._current, self._next = self._next, None
        await self._on_children(self._children())
