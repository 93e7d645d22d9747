"""The event loop of a child process: it runs in a thread of its own, for the lifespan and the client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from backfill.worker.in_child.records import LOOP_THREAD

T = TypeVar("T")


class OwnLoop:
    """An event loop in a thread, which is started when it is first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the loop and return its result.

        Raises:
            TimeoutError: it takes longer than `timeout` seconds.
        """
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name=LOOP_THREAD, daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def close(self, timeout: float) -> None:
        """End the loop and its thread, and close the loop if it ends in time."""
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self._loop.close()
