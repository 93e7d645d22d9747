"""Keeps a process that a handler forks from acting as a second worker.

A forked child has a copy of the whole worker: the event loop with its tasks, the signal handlers, which wake that loop
through a descriptor that both processes share, and the connections. So the child is cut off from the loop and from the
signals. It may do what the handler wants until the handler returns, raises or awaits; then the child ends, and only the
worker's own process goes on with the attempt.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NoReturn
from weakref import WeakSet

_CAME_BACK: Final = (
    "backfill: a forked process came back to the event loop of the worker that it was forked from, and ends"
)
_released: Final[set[Callable[..., Any]]] = set()
_masks: Final = threading.local()


class ForkGuard:
    """Tells whether the process that runs a worker's code is the worker's own.

    Make it on the worker's loop.

    Attributes:
        forked: whether this process is a child that was forked from the worker's process.
    """

    def __init__(self) -> None:
        self.forked = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        _register()
        _guards.add(self)

    def close(self) -> None:
        """Stop guarding, since the worker has ended: processes forked from now on are not cut off."""
        _guards.discard(self)

    def leave(self, error: BaseException | None = None) -> NoReturn:
        """End the child like a program whose main function has returned or raised.

        Args:
            error: what was raised; None where the handler has returned.
        """
        code = 0 if error is None else 1
        if isinstance(error, SystemExit):
            if isinstance(error.code, int) or error.code is None:
                code = error.code or 0
            else:
                _say(error.code)
        elif error is not None:
            with contextlib.suppress(Exception):
                traceback.print_exception(error)
        _end(code & 0xFF)

    def returned(self, error: BaseException | None) -> None:
        """End this process if it is such a child, since its handler has returned or raised; else do nothing."""
        if self.forked:
            self.leave(error)

    def come_back(self) -> NoReturn:
        """End the child, which has left its handler by awaiting something."""
        _end(1, _CAME_BACK)

    def cut_off(self) -> None:
        """Cut the child off from the worker's loop: it ends if it hands anything to the loop or lets the loop go on."""
        self.forked = True
        self._loop.call_soon_threadsafe = self._hand_over  # type: ignore[method-assign, assignment]
        if threading.get_ident() == self._thread:
            _fill(self._loop, self.come_back)

    def _hand_over(self, *arguments: Any, **_: Any) -> NoReturn:
        """End the child, since its thread hands something to the loop, as executors do with their results."""
        for found in arguments:
            if isinstance(found, concurrent.futures.Future) and found.done() and not found.cancelled():
                self.leave(found.exception())
        self.come_back()


_guards: Final[WeakSet[ForkGuard]] = WeakSet()


def release_in_children(handler: Callable[..., Any]) -> None:
    """Have a signal handler of the worker replaced by the default one in each process that a job's handler forks."""
    _released.add(handler)


@functools.cache
def _register() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_parent=_unblock, after_in_child=_in_child)


def _before() -> None:
    """Block signals, so that one that reaches the child before it is cut off waits until then."""
    if _guards:
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _unblock() -> None:
    before = getattr(_masks, "before", None)
    if before is not None:
        _masks.before = None
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_child() -> None:
    guards = list(_guards)
    _guards.clear()
    try:
        if guards:
            signal.set_wakeup_fd(-1)
            _release_signals()
        for guard in guards:
            guard.cut_off()
    finally:
        _unblock()


def _release_signals() -> None:
    """Give the child the default signal handlers in place of those that speak to the worker's loop."""
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if callable(handler) and _is_the_workers(handler):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _is_the_workers(handler: Callable[..., Any]) -> bool:
    """Whether a signal handler belongs to an event loop, to `asyncio.run`, or to the shell."""
    owner = getattr(getattr(handler, "func", handler), "__self__", None)
    asyncios = getattr(handler, "__module__", None) == "asyncio.unix_events"  # a function that does nothing
    return asyncios or isinstance(owner, (asyncio.AbstractEventLoop, asyncio.Runner)) or handler in _released


def _fill(loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> None:
    """Replace everything that a loop is about to run by a call.

    Loops have no method for that. Those of asyncio and of uvloop both keep ready handles in a deque, and take them from
    it one by one.
    """
    handle = loop.call_soon(call)
    for found in [*gc.get_referents(loop), *gc.get_referents(vars(loop))]:
        if type(found) is deque and handle in found:
            waiting = len(found)
            found.clear()
            found.extend([handle] * waiting)


def _end(code: int, message: str | None = None) -> NoReturn:
    try:
        if message is not None:
            _say(message)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    finally:
        os._exit(code)


def _say(text: object) -> None:
    with contextlib.suppress(Exception):
        sys.stderr.write(f"{text}\n")
