"""Pauses that are what a test is about, by what they are for. Whoever waits for a thing uses the fixture `eventually`.

`tests/unit/test_house.py` refuses every other pause in the tests.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any


async def work_for(seconds: float) -> None:
    """What a handler does takes so long."""
    await asyncio.sleep(seconds)


def block_for(seconds: float) -> None:
    """What a handler does takes so long, and its thread can do nothing else.

    That thread may be the event loop's.
    """
    threading.Event().wait(seconds)


async def let_pass(seconds: float) -> None:
    """Let a period pass that the test is about: something is away for so long, or nothing may happen in it."""
    await asyncio.sleep(seconds)


async def let_pass_until(moment: float) -> None:
    """Let a period pass up to a moment of the event loop's clock, at once if that is over."""
    await asyncio.sleep(max(moment - asyncio.get_running_loop().time(), 0.0))


async def keeps_waiting(one: asyncio.Future[Any], seconds: float) -> None:
    """Assert that a task does not end in so many seconds."""
    await asyncio.wait([one], timeout=seconds)
    assert not one.done()


def between_looks() -> None:
    """Pause between two looks of a loop that can await nothing: a fixture's, or a synchronous handler's."""
    threading.Event().wait(0.02)
