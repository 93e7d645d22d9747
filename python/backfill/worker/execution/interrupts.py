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
    handler = signal.getsignal(signal.SIGINT)
    owner = getattr(getattr(handler, "func", None), "__self__", None)  # asyncio.run's is a partial of a Runner's method
    return handler is signal.default_int_handler or isinstance(owner, asyncio.Runner)


def ctrl_c_in(error: BaseException) -> KeyboardInterrupt | None:
    """The KeyboardInterrupt that an error is or, as a group, holds; None where there is none that may be a Ctrl-C."""
    found = interrupt_in(error)
    return found if found is not None and may_be_ctrl_c() else None
