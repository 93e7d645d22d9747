"""Work that is carried on until it ends, or until an event comes first, such as a shutdown or the end of a pool."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")
AGAIN_SECONDS: Final = 6.0
"""Seconds after which a task that has not ended is cancelled again; the driver's clean-up may take five of them."""
FURTHER_SECONDS: Final = 1.0
"""Seconds between further cancellations."""
MOST_CANCELS: Final = 5
"""How often a task is cancelled before nobody waits for it any longer."""


async def until(event: asyncio.Event, work: Coroutine[Any, Any, T], *, timeout: float | None = None) -> asyncio.Task[T]:
    """Carry work on until it is done, an event is set, or its time is up; work that is not done by then is cancelled.

    Args:
        event: the event that ends the work.
        work: what is carried on, in a task of its own.
        timeout: how many seconds the work may take; None for no limit.

    Returns:
        The task, which is over: it has a result or an error, or was cancelled since the work was not done.

    Raises:
        TimeoutError: the work did not end although it was cancelled several times; it is left as it is.
    """
    task = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([task, waiting], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end_all(task, waiting)
    if not task.done():
        raise TimeoutError(f"{task.get_name()} does not end, although it was cancelled {MOST_CANCELS} times")
    return task


async def done_unless(event: asyncio.Event, work: Coroutine[Any, Any, None], *, timeout: float) -> bool:
    """Carry work on until it is done or an event is set, and return whether it was done.

    Args:
        event: the event that ends the work.
        work: what is carried on, in a task of its own.
        timeout: how many seconds the work may take.

    Raises:
        BaseException: what the work raises.
        TimeoutError: the work was not done in its time, and the event was not set.
    """
    task = await until(event, work, timeout=timeout)
    if not task.cancelled():
        task.result()
        return True
    if event.is_set():
        return False
    raise TimeoutError


async def ended_in_time(task: asyncio.Future[Any], *, timeout: float, hurry: asyncio.Event, least: float) -> bool:
    """Wait until a task has ended, and return whether it has; its result is not looked at, and it is not cancelled.

    Args:
        task: what is waited for.
        timeout: how many seconds to wait.
        hurry: an event from which on there are only `least` seconds left.
        least: see `hurry`.
    """
    hurrying = asyncio.ensure_future(hurry.wait())
    try:
        await asyncio.wait([task, hurrying], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and hurrying.done():
            await asyncio.wait([task], timeout=least)
    finally:
        hurrying.cancel()
    return task.done()


async def end_all(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended, for ten seconds at most.

    A cancellation may get lost: before Python 3.12 `asyncio.wait_for`, by which connection pools wait, drops one that
    comes at the moment in which the wait ends; and code may catch one. So a task that has not ended is cancelled again
    after a while. One that goes on all the same is named in the log and left.

    Where the caller is cancelled meanwhile, the waiting goes on, and the cancellation is raised after it.
    """
    loop = asyncio.get_running_loop()
    cancelled: asyncio.CancelledError | None = None
    left: list[asyncio.Future[Any]] = list(tasks)
    for count in range(MOST_CANCELS):
        for task in left:
            task.cancel()
        enough = loop.time() + (FURTHER_SECONDS if count else AGAIN_SECONDS)
        while (left := [task for task in left if not task.done()]) and (patience := enough - loop.time()) > 0:
            try:
                await asyncio.wait(left, timeout=patience)
            except asyncio.CancelledError as error:
                cancelled = error
        if not left:
            break
    else:
        logger.error("not ended, although cancelled %d times: %s", MOST_CANCELS, ", ".join(map(_named, left)))
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled  # its traceback holds this frame and the callers' frames, with all their values


async def within(seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do work that must not hold up what follows it: it is cancelled when its time is up, and that is logged.

    Args:
        seconds: how long the work may take.
        work: makes the coroutine that does the work.

    Raises:
        BaseException: what the work raises.
    """
    task = await until(asyncio.Event(), work(), timeout=seconds)
    if task.cancelled():
        logger.warning("%s took longer than %g s and was cancelled", getattr(work, "__qualname__", work), seconds)
    else:
        task.result()


async def in_own_thread(function: Callable[[], object], *, timeout: float) -> bool:
    """Call a function that may block in a daemon thread of its own; return whether it has ended in time.

    `asyncio.to_thread` would not do at a shutdown: its pool may be full of calls of handlers that never end, and then
    the function would never be called. The interpreter does not wait for a daemon thread either.

    Args:
        function: what is called; it handles its errors itself.
        timeout: how many seconds to wait for it.
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def work() -> None:
        try:
            function()
        finally:
            with suppress(RuntimeError):  # raised where the loop is closed, and then nobody waits any more
                loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=work, name="backfill-end", daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await ended.wait()
    return ended.is_set()


def _named(task: asyncio.Future[Any]) -> str:
    return task.get_name() if isinstance(task, asyncio.Task) else type(task).__name__
