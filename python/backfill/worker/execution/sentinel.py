"""The sentinel: a task that does nothing but be cancelled with all others, and notes which job did that.

`asyncio.run` cancels every task of its loop once the main one is over, from outside of any job. A handler that does the same
is told from that, so that its attempt counts; so is a task or a callback that it has started, which inherits its context.
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
        cancelled_by: the job in whose context this one's task was cancelled; None where it was not, or by no job.
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
    """What the sentinel waits for: whoever cancels its task cancels this first, and in the same breath."""

    def __init__(self, sentinel: Sentinel) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._sentinel = sentinel

    def cancel(self, msg: Any | None = None) -> bool:
        self._sentinel.cancelled_by = CURRENT.get()
        return super().cancel(msg)
