"""Waiting for a thing: the only place in the tests that may sleep, in short steps, up to a deadline."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import pytest

T = TypeVar("T")


class Eventually(Protocol):
    """Polls a probe until its value is right, and returns that value."""

    def __call__(
        self,
        probe: Callable[[], Awaitable[Any] | Any],
        right: Callable[[Any], bool] = ...,
        timeout: float = ...,
        moving: bool = ...,
    ) -> Awaitable[Any]:
        """See `eventually`."""
        ...


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a probe (async or not) gives a right value; a failure shows the last one."""
    return wait_until


async def wait_until(
    probe: Callable[[], Awaitable[Any] | Any],
    right: Callable[[Any], bool] = bool,
    timeout: float = 30.0,
    moving: bool = False,
) -> Any:
    """Poll `probe` every 20 ms until `right` says so.

    Args:
        probe: gives the value.
        right: whether the value is right.
        timeout: after so many seconds the test fails.
        moving: whether the time begins anew each time the value changes. Much work takes long on a busy machine, and it
            is no fault while it goes on.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    last = None
    while True:
        value = probe()
        if inspect.isawaitable(value):
            value = await value
        if right(value):
            return value
        if moving and value != last:
            last, deadline = value, loop.time() + timeout
        if loop.time() > deadline:
            pytest.fail(f"still not so after {timeout} s; the last value was {value!r}")
        await asyncio.sleep(0.02)
