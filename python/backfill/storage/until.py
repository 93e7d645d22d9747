"""Work that is carried on until it ends, or until an event comes first, such as a shutdown or the end of a pool."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

AGAIN_SECONDS: Final = 6.0
"""Seconds after which a task that has not ended is cancelled again; the driver's clean-up may take five of them."""


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

    A cancellation may get lost: before Python 3.12 `asyncio.wait_for`, by which connection pools wait, drops one that
    comes at the moment in which the wait ends. So a task that has not ended is cancelled again after a while.

    Where the caller is cancelled meanwhile, the waiting goes on, and the cancellation is raised after it.
    """
    cancelled: asyncio.CancelledError | None = None
    loop = asyncio.get_running_loop()
    again = loop.time()
    while not all(task.done() for task in tasks):
        if loop.time() >= again:
            for task in tasks:
                task.cancel()
            again = loop.time() + AGAIN_SECONDS
        try:
            await asyncio.wait(tasks, timeout=again - loop.time())
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled  # its traceback holds this frame and the callers' frames, with all their values
