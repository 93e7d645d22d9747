"""Threads for synchronous handlers: as many as such handlers run at once, and none that can hold up an exit.

The standard pool joins its threads when the interpreter ends, so one handler that hangs would keep a stopped worker's
process alive for ever. These threads are daemons, which the interpreter does not join.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import queue
import threading
from collections.abc import Callable
from typing import Any

from backfill.worker.execution.forks import ForkGuard
from backfill.worker.execution.held_job import HeldJob

_Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", contextvars.Context, Callable[[], Any]]


class HandlerThreads:
    """A pool that grows with need, without a limit of its own: it has as many threads as its callers run calls at once.

    Threads stay for further calls, except for those that are more than the worker's lanes have slots: where operators
    have lowered a lane's concurrency, these end.

    Args:
        name: the beginning of the threads' names.
        guard: tells whether this process is the worker's own.
    """

    def __init__(self, name: str, guard: ForkGuard) -> None:
        self._name = name
        self._guard = guard
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._idle = 0
        self._size = 0
        self._made = 0
        self._most = math.inf
        self._lock = threading.Lock()
        self.under_way: set[HeldJob] = set()
        """The attempts whose handlers run in threads at this moment, which nothing can end."""

    async def run(self, running: HeldJob, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a thread, in a copy of this context, and await its result.

        A cancellation cannot stop a thread, so it does not end the waiting either, unless the worker itself has given
        the attempt up.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            else:
                self._size += 1
                self._made += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._made}", daemon=True).start()
        self._calls.put((loop, future, contextvars.copy_context(), lambda: function(*arguments)))
        self.under_way.add(running)
        try:
            while True:
                try:
                    return await asyncio.shield(future)
                except asyncio.CancelledError:
                    if running.given_up:
                        raise
                    _uncancel()
                    if future.done():
                        return future.result()
        finally:
            if future.done():
                self.under_way.discard(running)
            else:  # it was given up, and the thread goes on
                future.add_done_callback(lambda _: self.under_way.discard(running))

    def keep(self, most: int) -> None:
        """Keep at most so many threads from now on: idle ones beyond them end now, others after their calls."""
        with self._lock:
            self._most = most
            ending = min(self._idle, max(self._size - most, 0))
            self._idle -= ending
            self._size -= ending
        for _ in range(ending):
            self._calls.put(None)

    def close(self) -> None:
        """Let idle threads end now, and each other thread when its call has ended."""
        for _ in range(self._size):
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            loop, future, context, function = call
            result, error = None, None
            try:
                result = context.run(function)
            except BaseException as raised:  # noqa: BLE001 - whatever a handler raises is its attempt's failure
                error = raised
            if self._guard.forked:
                self._guard.leave(error)
            with self._lock:
                ends = self._size > self._most
                if ends:
                    self._size -= 1
                else:
                    self._idle += 1
            try:
                loop.call_soon_threadsafe(_deliver, future, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            if ends:
                return
            del call, loop, future, context, function, result, error


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _deliver(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
        return
    try:
        if isinstance(error, StopIteration):  # a future refuses it
            error = RuntimeError(f"the handler raised StopIteration: {error}")
        future.set_exception(error)
    except BaseException as broken:  # noqa: BLE001 - an error's own code may fail; somebody waits
        kinds = f"{type(error).__qualname__} cannot be looked at ({type(broken).__qualname__})"
        future.set_exception(RuntimeError(kinds))
