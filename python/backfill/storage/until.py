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
        await end_all(task, waiting)
    return task


async def end_all(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended even if the caller is cancelled meanwhile; that is raised at the end."""
    for task in tasks:
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled  # with its traceback, which holds this frame and those of the callers with all that they have
