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
        self, probe: Callable[[], Awaitable[Any] | Any], right: Callable[[Any], bool] = ..., timeout: float = ...
    ) -> Awaitable[Any]:
        """See `eventually`."""
        ...


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a probe (async or not) gives a right value; a failure shows the last one."""
    return wait_until


async def wait_until(
    probe: Callable[[], Awaitable[Any] | Any], right: Callable[[Any], bool] = bool, timeout: float = 30.0
) -> Any:
    """Poll `probe` every 20 ms until `right` says so, at most `timeout` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        value = probe()
        if inspect.isawaitable(value):
            value = await value
        if right(value):
            return value
        if loop.time() > deadline:
            pytest.fail(f"still not so after {timeout} s; the last value was {value!r}")
        await asyncio.sleep(0.02)
