"""The sentinel: a task that only waits; when somebody cancels all tasks, it notes which job did so.

`asyncio.run` cancels every task of its loop once the main one is over, and does so outside of any job. A handler may
also cancel every task; the sentinel tells the two apart, so that the handler's attempt counts. It recognizes a task or
a callback that the handler has started too, since these inherit the handler's context.
"""

from __future__ import annotations

import asyncio
from typing import Any

from backfill.logs import CURRENT
from backfill.records import Job
from backfill.worker.service import Service


class Sentinel(Service):
    """Waits until it is stopped.

    Attributes:
        cancelled_by: the job in whose context this service's task was cancelled; None where it was not cancelled, or
            was cancelled outside of any job.
    """

    def __init__(self) -> None:
        super().__init__("sentinel")
        self.cancelled_by: Job | None = None
        self._wire = _Wire(self)

    def _on_stop(self) -> None:
        if not self._wire.done():
            self._wire.set_result(None)

    async def _run(self) -> None:
        await self._wire


class _Wire(asyncio.Future[None]):
    """The future that the sentinel waits for: cancelling the sentinel's task calls `cancel` here, in that context."""

    def __init__(self, sentinel: Sentinel) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._sentinel = sentinel

    def cancel(self, msg: Any | None = None) -> bool:
        self._sentinel.cancelled_by = CURRENT.get()
        return super().cancel(msg)
