"""The lifecycle that every part of a worker has: start, stop, a deadline, and a task that is owned and awaited."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from backfill.said import stripped
from backfill.storage.until import end_all, until

logger = logging.getLogger(__name__)

_MOST_ROUNDS: Final = 10
"""How often `finish` calls its work at most; it calls it again only if somebody cancelled every task of the loop."""
_CLEAN_UP_SECONDS: Final = 5.0
"""How long a service that somebody cancelled may take to clean up before it is left as it is."""


class Service:
    """A part of a worker that runs until it is stopped.

    Subclasses define `_run`, which returns soon after `self._stopping` is set. Starting and stopping are idempotent; a
    service that was stopped does not start again. When a service ends by itself or fails, its owner's `failed` is set.
    A resource that must be there once `start` has returned, and whose opening may fail, is opened in `_open` and closed
    in `_close`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._gave_up = False
        self._resumed = False

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The running task, or None before the start."""
        return self._task

    @property
    def was_cancelled(self) -> bool:
        """Whether somebody else has cancelled its task, as `asyncio.run` does with all tasks at its end."""
        return self._resumed or (self._task is not None and not self._gave_up and self._task.cancelling() > 0)

    def start(self) -> None:
        """Run in a task of its own. Raises what `_open` raises; then nothing of the service is left."""
        if self._task is None and not self._stopping.is_set():
            self._open()
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"backfill-{self.name}")

    async def resume(self) -> None:
        """Run again, since a drain still needs it, where somebody else has ended its task.

        The task may have been cancelled, or interrupted by a Ctrl-C.
        """
        task = self._task
        if task is None or self._gave_up or not (task.cancelling() or _was_interrupted(task)):
            return
        self._resumed = True
        done, _ = await asyncio.wait([task], timeout=_CLEAN_UP_SECONDS)
        if done:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"backfill-{self.name}")

    async def stop(self, timeout: float | None = None) -> None:
        """Ask the service to end and wait until it has; cancel it after `timeout` seconds. Raises its failure.

        A service that goes on although it was cancelled several times is named in the log and left.
        """
        self._stopping.set()
        self._on_stop()
        if self._task is None:
            return
        try:
            await self._end_task(self._task, timeout)
        finally:
            if self._task.done():
                await self._close()

    async def _end_task(self, task: asyncio.Task[None], timeout: float | None) -> None:
        """Wait until the task has ended, and cancel it after `timeout` seconds. Raises what it failed with.

        A task that does not end although it was cancelled several times is left as it is.
        """
        done, _ = await asyncio.wait([task], timeout=timeout)
        if not done:
            logger.warning("%s did not stop in %s s and is cancelled", self.name, timeout)
            self._gave_up = True
            await end_all(task)
            if not task.done():
                return
        # This takes the cancellation out of the task. Its traceback would hold what `_run` had open until a garbage
        # collection.
        with contextlib.suppress(asyncio.CancelledError):
            task.result()

    def _open(self) -> None:
        """Open what must be there once `start` has returned. Where it fails, it closes itself what it has opened."""

    async def _close(self) -> None:
        """Close what `_open` has opened, once the task has ended. It may be called again."""

    def _on_stop(self) -> None:
        """Wake `_run` where it waits for something other than `_stopping`."""

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work until it ends, it fails, or the service is asked to stop."""
        task = await until(self._stopping, work)
        if not task.cancelled():
            task.result()

    async def _run(self) -> None:
        raise NotImplementedError


async def finish(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Carry work through even if the caller is cancelled meanwhile; the cancellation is raised at the end of the work.

    If somebody cancels every task of the loop (`asyncio.run` does, once its main task is over), the work's own task is
    cancelled as well. Then `work` is called again, and also after a Ctrl-C has broken into it, so it must be able to go
    on where it stopped.

    Args:
        work: makes the coroutine that does the work.
    """
    cancelled: asyncio.CancelledError | None = None
    interrupted: BaseException | None = None
    rounds = 0
    while True:
        rounds += 1
        task = asyncio.ensure_future(work())
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if _was_interrupted(task):
            interrupted = interrupted or task.exception()
        elif not task.cancelled():
            break
        if rounds == _MOST_ROUNDS:
            break
    try:
        if interrupted is not None:
            raise interrupted
        if cancelled is not None:
            failure = None if task.cancelled() else task.exception()
            if failure is not None:
                stripped(failure, context=True)
                logger.error("a shutdown failed", exc_info=failure)
            raise cancelled
        task.result()
    finally:
        del (
            cancelled,
            interrupted,
            task,
        )  # their tracebacks hold this frame and the callers' frames, with all local variables


def _was_interrupted(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and isinstance(task.exception(), (KeyboardInterrupt, SystemExit))


async def wait_for_event(event: asyncio.Event, timeout: float) -> bool:
    """Wait for an event, at most `timeout` seconds; return whether it is set."""
    if event.is_set():
        await asyncio.sleep(0)  # a caller that goes on although the event is set must let the loop turn
        return True
    try:
        async with asyncio.timeout(timeout):
            return await event.wait()
    except TimeoutError:
        return False
