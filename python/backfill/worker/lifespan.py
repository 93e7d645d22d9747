"""The registry's lifespan in a worker: entered at its start, and left at its end, which has a deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from backfill.storage.until import end_all, ended_in_time

logger = logging.getLogger(__name__)

LEAST_SECONDS: Final = 5.0
"""How many seconds the end of a lifespan may take, where less than that is left of the shutdown's time."""


class Lifespan:
    """What a registry's lifespan has made, for one start of a worker."""

    def __init__(self) -> None:
        self._manager: AbstractAsyncContextManager[Any] | None = None
        self._leaving: asyncio.Task[Any] | None = None

    async def enter(self, manager: AbstractAsyncContextManager[Any]) -> Any:
        """Enter the lifespan, and return what it yields. Raises what the lifespan raises."""
        deps = await manager.__aenter__()
        self._manager = manager
        return deps

    async def leave(self, until: float | None, hurry: asyncio.Event) -> None:
        """Leave the lifespan, if it was entered; a second call waits for the end that the first one began.

        An end that takes too long is cancelled. One that goes on although it was cancelled is named in the log and
        left, so that it cannot hold up the worker's end.

        Args:
            until: when the shutdown's time is over, in monotonic seconds; the end has `LEAST_SECONDS` in any case. None
                where there is no shutdown, since the worker did not start.
            hurry: set when a shutdown must not wait any more: then the end has `LEAST_SECONDS` from now on.

        Raises:
            BaseException: what the lifespan raises.
        """
        if self._manager is None:
            return
        if self._leaving is None:
            self._leaving = asyncio.create_task(_left(self._manager), name="the end of the lifespan")
        leaving = self._leaving
        patience = max(0.0 if until is None else until - time.monotonic(), LEAST_SECONDS)
        if not await ended_in_time(leaving, timeout=patience, hurry=hurry, least=LEAST_SECONDS):
            logger.error("the end of the lifespan takes longer than the shutdown may take, and is cancelled")
            await end_all(leaving)
        self._manager = None
        if leaving.done() and not leaving.cancelled():
            leaving.result()


async def _left(manager: AbstractAsyncContextManager[Any]) -> None:
    await manager.__aexit__(None, None, None)
