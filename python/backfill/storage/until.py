"""Work that is carried on until it ends or until an event comes first: a shutdown, or a pool that is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def until(event: asyncio.Event, work: Coroutine[Any, Any, T], *, timeout: float | None = None) -> asyncio.Task[T]:
    """Carry work on until it is done, an event is set, or its time is up; what is not done by then is cancelled.

    Args:
        event: the event that ends it.
        work: what is carried on, in a task of its own.
        timeout: how many seconds it may take; as long as it takes if not given.

    Returns:
        The task, which is over: it has a result or an error, or was cancelled since the work was not done.
    """
    task = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([task, waiting], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        waiting.cancel()
        await asyncio.wait([task, waiting])
    return task
