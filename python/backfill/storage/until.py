"""Work that is carried on until it ends, or until an event comes first, such as a shutdown or the end of a pool."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def until(event: asyncio.Event, work: Coroutine[Any, Any, T], *, timeout: float | None = None) -> asyncio.Task[T]:
    """Carry work on until it is done, an event is set, or its time is up; work that is not done by then is cancelled.

    Args:
        event: the event that ends the work.
        work: what is carried on, in a task of its own.
        timeout: how many seconds the work may take; None for no limit.

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
    """Cancel tasks and wait until they have ended.

    Where the caller is cancelled meanwhile, the waiting goes on, and the cancellation is raised after it.
    """
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
            del cancelled  # its traceback holds this frame and the callers' frames, with all their values
