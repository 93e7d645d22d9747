"""The sentinel: a task that does nothing but be cancelled with all others, and notes who did that.

`asyncio.run` cancels every task of its loop once the main one is over, from outside of any task. A handler that does the same
is told from that, so that its attempt counts.
"""

from __future__ import annotations

import asyncio
from typing import Any

from backfill.worker.service import Service


class Sentinel(Service):
    """Waits until it is stopped.

    Attributes:
        cancelled_by: the task that has cancelled this one; None where nobody has, or no task.
    """

    def __init__(self) -> None:
        super().__init__("sentinel")
        self.cancelled_by: asyncio.Task[Any] | None = None
        self._wire = _Wire(self)

    def _on_stop(self) -> None:
        if not self._wire.done():
            self._wire.set_result(None)

    async def _run(self) -> None:
        await self._wire


class _Wire(asyncio.Future[None]):
    """What the sentinel waits for: whoever cancels its task cancels this first, and in the same breath."""

    def __init__(self, sentinel: Sentinel) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._sentinel = sentinel

    def cancel(self, msg: Any | None = None) -> bool:
        self._sentinel.cancelled_by = asyncio.current_task(self.get_loop())
        return super().cancel(msg)
