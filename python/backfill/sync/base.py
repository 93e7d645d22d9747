"""The bases of the groups of verbs that tools/sync_verbs.py writes, and how a verb is run to its end.

A verb of the synchronous client runs the coroutine of the asynchronous verb. On a synchronous connection none of its
steps ever waits for an event loop, so it is run to its end in the caller's thread, without one.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from backfill.client.carrier import at_once

T = TypeVar("T")


class Verbs:
    """The base of the client's groups of verbs.

    Attributes:
        _verbs: the object whose verbs are coroutines.
    """

    _verbs: Any

    def _run(self, verb: Coroutine[Any, Any, Any]) -> Any:
        """Run a verb to its end."""
        return at_once(verb)


class Group(Verbs):
    """The base of a group of verbs that is an object of its own, such as `client.schedules`.

    Args:
        verbs: the object whose verbs are coroutines.
    """

    __slots__ = ("_verbs",)

    def __init__(self, verbs: Any) -> None:
        self._verbs = verbs


def in_a_loop(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine that needs an event loop to its end, in a loop of its own.

    The loop runs in the caller's thread; if that has a running loop already, it runs in another thread, and the caller
    waits. Context variables are those of the caller.

    Args:
        make: makes the coroutine.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(make())
    with ThreadPoolExecutor(1, "backfill-sync") as thread:
        return thread.submit(contextvars.copy_context().run, lambda: asyncio.run(make())).result()


def rest(seconds: float) -> None:
    """Make the caller's thread wait."""
    time.sleep(seconds)  # noqa: TID251 - what is waited for is another process, which gives no sign
