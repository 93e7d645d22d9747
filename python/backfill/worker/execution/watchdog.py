"""The watchdog: a thread that says which handler holds the event loop, and at which line it is.

While a handler holds the loop, no other job of the worker goes on, none is claimed and none is settled. The thread only
looks and writes to the log, once for each attempt.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from backfill.logs import fields_of
from backfill.storage.until import in_own_thread
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.service import Service, finish

logger = logging.getLogger(__name__)

_JOIN_SECONDS: Final = 5.0
_OWN: Final = __file__.rpartition("execution")[0]


class Watchdog(Service):
    """Watches the loop that starts it.

    Args:
        limit: how many seconds a handler may hold the loop.
        under_way: returns the attempt whose code the loop runs at this moment; called in the watchdog's thread.
        found: told of each attempt that is named; called in the watchdog's thread.
    """

    def __init__(
        self, *, limit: float, under_way: Callable[[], HeldJob | None], found: Callable[[HeldJob], None]
    ) -> None:
        super().__init__("watchdog")
        self._limit = limit
        self._under_way = under_way
        self._found = found
        self._ended = threading.Event()
        self._turned = 0.0
        self._loop_thread = 0
        self._told: HeldJob | None = None

    async def _run(self) -> None:
        self._turned, self._loop_thread = time.monotonic(), threading.get_ident()
        thread = threading.Thread(target=self._watch, name="backfill-watchdog", daemon=True)
        thread.start()
        try:
            await self._until_stopped(self._turn_again_and_again())
        finally:
            self._ended.set()
            await finish(lambda: _joined(thread))

    async def _turn_again_and_again(self) -> None:
        while True:
            self._turned = time.monotonic()
            await asyncio.sleep(self._limit / 4)

    def _watch(self) -> None:
        while not self._ended.wait(self._limit / 4):
            held = time.monotonic() - self._turned
            if held >= self._limit:
                self._tell(held)

    def _tell(self, held: float) -> None:
        running = self._under_way()
        if running is None or running is self._told:
            return
        self._told = running
        self._found(running)
        frames = _outwards(sys._current_frames().get(self._loop_thread))  # noqa: SLF001 - a documented function
        place = next((frame for frame in frames if not frame.f_code.co_filename.startswith(_OWN)), None)
        where = "" if place is None else f" at {place.f_code.co_filename}:{place.f_lineno} in {place.f_code.co_name}"
        logger.warning(
            "job %d (%s) has held the event loop for %.1f s%s: no other job of this worker goes on meanwhile; make the "
            "handler a plain function, which runs in a thread, or give the work to one",
            running.job.id, running.job.task_identifier, held, where,
            extra=fields_of(running.job),
        )  # fmt: skip


async def _joined(thread: threading.Thread) -> None:
    """Wait until the thread has ended; it ends at once, unless what it writes to the log takes long."""
    await in_own_thread(thread.join, timeout=_JOIN_SECONDS)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
