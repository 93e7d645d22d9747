"""One lifecycle for every part of a worker: start, stop, a deadline, and tasks that are owned and awaited."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from backfill.said import stripped

logger = logging.getLogger(__name__)


class Service:
    """A part of a worker that runs until it is stopped.

    Subclasses give `_run`, which returns soon after `self._stopping` is set. Starting and stopping are idempotent; a
    service that was stopped does not start again. A service that ends by itself, or fails, sets `failed` on its owner.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The running task, or None before the start."""
        return self._task

    def start(self) -> None:
        """Run in a task of its own."""
        if self._task is None and not self._stopping.is_set():
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"backfill-{self.name}")

    async def stop(self, timeout: float | None = None) -> None:
        """Ask it to end and wait until it has; after `timeout` seconds it is cancelled. Raises what it failed with."""
        self._stopping.set()
        self._on_stop()
        if self._task is None:
            return
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if not done:
            logger.warning("%s did not stop in %s s and is cancelled", self.name, timeout)
            self._task.cancel()
            await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    def _on_stop(self) -> None:
        """Wake `_run` where it waits for something else than `_stopping`."""

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry work on until it ends, fails, or the service is to stop."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in (task, stopping):
                waiting.cancel()
            await asyncio.wait([task, stopping])
        if not task.cancelled():
            task.result()

    async def _run(self) -> None:
        raise NotImplementedError


async def finish(work: Coroutine[Any, Any, None]) -> None:
    """Carry work through even if the caller is cancelled meanwhile; the cancellation is raised at its end."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: BLE001 - raised again by result(), once it is sure that the task is done
            break
    if cancelled is not None:
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            stripped(failure, context=True)
            logger.error("a shutdown failed", exc_info=failure)
        raise cancelled
    task.result()


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
