"""Tells whether a KeyboardInterrupt that a handler raised may come from a Ctrl-C, or was the handler's own."""

from __future__ import annotations

import asyncio
import signal
import threading

from backfill.worker.execution.verdict import interrupt_in


def may_be_ctrl_c() -> bool:
    """Whether a KeyboardInterrupt that was raised in this thread may come from a Ctrl-C.

    On a Ctrl-C, Python raises it in the main thread only, and only where SIGINT has Python's own handler or that of
    `asyncio.run`. In a program that handles SIGINT itself, as the shell does, no Ctrl-C raises one.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler or _runner() is not None


def ctrl_c_came() -> bool:
    """Whether a Ctrl-C has come while `asyncio.run` runs this program; it cancels the program's main task."""
    return getattr(_runner(), "_interrupt_count", 0) > 0  # there is no public way to know


def _runner() -> asyncio.Runner | None:
    """The runner that handles SIGINT, as that of `asyncio.run` does."""
    handler = signal.getsignal(signal.SIGINT)
    owner = getattr(getattr(handler, "func", None), "__self__", None)  # the handler is a partial of a runner's method
    return owner if isinstance(owner, asyncio.Runner) else None


def ctrl_c_in(error: BaseException) -> KeyboardInterrupt | None:
    """The KeyboardInterrupt that an error is or, as a group, holds; None where there is none that may be a Ctrl-C."""
    found = interrupt_in(error)
    return found if found is not None and may_be_ctrl_c() else None


def raise_again(error: KeyboardInterrupt) -> None:
    """Raise a KeyboardInterrupt that came from a handler; as a callback of the loop, this ends the loop."""
    raise error
