"""The signals of a worker process: the first drains it, the second hurries it, the third ends it in any case.

After the first signal the process has a deadline, too, which it keeps whatever holds it up.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

from backfill.cli.common import ExitCode
from backfill.worker.execution.forks import release_in_children

GAP_SECONDS: Final = 0.25
"""A signal within this time after a counted one is not counted: process groups, `timeout` and supervisors send two."""
LAST: Final = 3
"""The number of signals at which the process ends at once."""
LATE_SECONDS: Final = 60.0
"""How many seconds after the shutdown timeout the process is ended, if it still runs; all that follows is over then."""
DEAF_SECONDS: Final = 5.0
"""How many seconds after the shutdown timeout the process is ended whose event loop has not turned since the signal."""


class Signals:
    """Counts this process's signals from now on; it is made once, in the main thread.

    A native thread counts, and it ends the process at the third signal, or when the process still runs long after the
    first. It can do so even when no Python code of ours could run: while a handler holds the event loop, or a C call
    holds the interpreter's lock.

    Args:
        shutdown_timeout: how many seconds running jobs have to end after the first signal.
        last: the number of signals at which the process ends at once.
    """

    def __init__(self, shutdown_timeout: float, *, last: int = LAST) -> None:
        self._tell: Callable[[int], None] = lambda _: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = 0
        self._last, self._came, self._limit = float("-inf"), 0, last
        if sys.platform == "win32":
            signal.signal(signal.SIGINT, self._count_here)
            return
        from backfill._native import SignalCounter

        numbers = [
            number
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN  # ignored ones stay so, as SIGHUP does under nohup
        ]
        # Python's own handler of SIGINT would raise KeyboardInterrupt at whatever point the main thread is.
        for number in numbers:
            signal.signal(number, _do_nothing)
        release_in_children(_do_nothing)
        self._counter = SignalCounter(
            numbers, GAP_SECONDS, last, ExitCode.INTERRUPTED, shutdown_timeout + LATE_SECONDS,
            shutdown_timeout + DEAF_SECONDS, ExitCode.STILL_RUNNING,
        )  # fmt: skip

    def watch(self, tell: Callable[[int], None]) -> None:
        """Call `tell` on this loop with 1 at the first signal and with 2 at the second; at once for earlier signals."""
        self._tell, self._loop = tell, asyncio.get_running_loop()
        if sys.platform != "win32":
            self._loop.add_reader(self._counter.fileno(), self._look)
            self._look()

    def leave(self) -> None:
        """Stop watching, since the loop ends; the third signal still ends the process."""
        if self._loop is not None and sys.platform != "win32":
            self._loop.remove_reader(self._counter.fileno())
        self._loop = None

    def _look(self) -> None:
        self._catch_up(self._counter.count())

    def _catch_up(self, count: int) -> None:
        while self._told < count:
            self._told += 1
            self._tell(self._told)

    def _count_here(self, _number: int, _frame: FrameType | None) -> None:
        """Count a signal where there is no native counter."""
        now = time.monotonic()
        if now - self._last < GAP_SECONDS:
            return
        self._last, self._came = now, self._came + 1
        if self._came >= self._limit:
            raise SystemExit(ExitCode.INTERRUPTED)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._catch_up, self._came)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal by doing nothing, since the native thread has counted it."""
