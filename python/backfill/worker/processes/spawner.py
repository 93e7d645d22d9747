"""The thread that starts children.

Linux ends a child with the thread that has started it, where the child asks for its parent's death as a signal. So one
thread starts all children and lives as long as they may.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import signal
import threading
from typing import TypeAlias

from backfill.worker.processes.deaths import ChildNotStarted
from backfill.worker.processes.launch import Launched, launch

_Order: TypeAlias = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Launched]", str]


class Spawner:
    """Starts children in one thread, which begins with the first of them."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def start(self, handler: str) -> Launched:
        """Start a child; a cancellation waits until it is known whether it was started, and then ends it.

        Raises:
            ChildNotStarted: the system refuses it.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="backfill-children", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise ChildNotStarted(f"no child process could be started: {error}") from error
            self._thread = thread
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Launched] = loop.create_future()
        self._orders.put((loop, future, handler))
        return await future

    def close(self) -> None:
        """Let the thread end; the kernel then ends the children that still live."""
        if self._thread is not None:
            self._orders.put(None)

    def _work(self) -> None:
        # A child has this thread's mask until it can ignore the signals, so none of them ends it while it begins.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        while (order := self._orders.get()) is not None:
            loop, future, handler = order
            launched: Launched | None = None
            error: BaseException | None = None
            try:
                launched = launch(handler)
            except BaseException as raised:  # noqa: BLE001 - whoever waits is told
                error = raised
            try:
                loop.call_soon_threadsafe(_deliver, future, launched, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                if launched is not None:
                    _abandon(launched)
            del order, loop, future, launched, error


def _deliver(future: asyncio.Future[Launched], launched: Launched | None, error: BaseException | None) -> None:
    if future.done():
        if launched is not None:
            _abandon(launched)
    elif launched is not None:
        future.set_result(launched)
    elif error is not None:
        future.set_exception(error)


def _abandon(launched: Launched) -> None:
    """End a child that nobody waits for any more."""
    launched.close()
    with contextlib.suppress(OSError):
        launched.process.kill()
    launched.process.wait()
