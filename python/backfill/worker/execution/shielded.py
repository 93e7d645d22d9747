"""Work that a cancellation must not break off in the middle, such as a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Finish the work even if this task is cancelled meanwhile, and raise the cancellation after that.

    A second cancellation is passed on to the work, for whoever asks twice cannot wait for it.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            if cancelled is not None:
                task.cancel()
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # it was looked at: what it raised matters no more
        raise cancelled
    return task.result()
