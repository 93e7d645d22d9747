"""One lifecycle for every part of a worker: start, stop, a deadline, and tasks that are owned and awaited."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from backfill.said import stripped
from backfill.storage.until import until

logger = logging.getLogger(__name__)

_MOST_ROUNDS: Final = 10
"""How often work is begun again whose task was cancelled: each time takes somebody who cancels every task of the loop."""
_CLEAN_UP_SECONDS: Final = 5.0
"""How long a service that somebody cancelled may take to clean up before it is left as it is."""


class Service:
    """A part of a worker that runs until it is stopped.

    Subclasses give `_run`, which returns soon after `self._stopping` is set. Starting and stopping are idempotent; a
    service that was stopped does not start again. A service that ends by itself, or fails, sets `failed` on its owner.
    What must be there once `start` has returned, and may fail, is opened in `_open`; `_close` closes it again.
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
        """Whether somebody else has cancelled its task, as `asyncio.run` does with every task once its main one is over."""
        return self._resumed or (self._task is not None and not self._gave_up and self._task.cancelling() > 0)

    def start(self) -> None:
        """Run in a task of its own. Raises what its `_open` does; nothing of it is left then."""
        if self._task is None and not self._stopping.is_set():
            self._open()
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"backfill-{self.name}")

    async def resume(self) -> None:
        """Run again where somebody else ended its task (cancelled it, or interrupted it by Ctrl-C): a drain needs it still."""
        task = self._task
        if task is None or self._gave_up or not (task.cancelling() or _was_interrupted(task)):
            return
        self._resumed = True
        done, _ = await asyncio.wait([task], timeout=_CLEAN_UP_SECONDS)
        if done:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"backfill-{self.name}")

    async def stop(self, timeout: float | None = None) -> None:
        """Ask it to end and wait until it has; after `timeout` seconds it is cancelled. Raises what it failed with."""
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
        """Wait until the task has ended, and cancel it after so many seconds; raises what it failed with."""
        done, _ = await asyncio.wait([task], timeout=timeout)
        if not done:
            logger.warning("%s did not stop in %s s and is cancelled", self.name, timeout)
            self._gave_up = True
            task.cancel()
            await asyncio.wait([task])
        # The cancellation is taken out of the task: its traceback would hold what `_run` had open until a garbage collection.
        with contextlib.suppress(asyncio.CancelledError):
            task.result()

    def _open(self) -> None:
        """Open what must be there once `start` has returned; whatever it opened before it failed is closed by itself."""

    async def _close(self) -> None:
        """Close what `_open` has opened, once the task has ended. It may be called again."""

    def _on_stop(self) -> None:
        """Wake `_run` where it waits for something else than `_stopping`."""

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry work on until it ends, fails, or the service is to stop."""
        task = await until(self._stopping, work)
        if not task.cancelled():
            task.result()

    async def _run(self) -> None:
        raise NotImplementedError


async def finish(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Carry work through even if the caller is cancelled meanwhile; the cancellation is raised at its end.

    Whoever cancels every task of the loop (`asyncio.run`, once its main task is over) cancels the work's own task as well.
    The work is called again then, so it must be able to go on where it was; also where a Ctrl-C has broken into it.

    Args:
        work: makes the coroutine that does it.
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
        )  # their tracebacks hold this frame and those of the callers with all that they have


def _was_interrupted(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and isinstance(task.exception(), (KeyboardInterrupt, SystemExit))


async def wait_for_event(event: asyncio.Event, timeout: float) -> bool:
    """Wait for an event at most so many seconds; whether it is set."""
    if event.is_set():
        await asyncio.sleep(0)  # a caller that goes on all the same must let the loop turn
        return True
    try:
        async with asyncio.timeout(timeout):
            return await event.wait()
    except TimeoutError:
        return False
