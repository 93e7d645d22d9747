"""Reads which serial queues are paused."""

from __future__ import annotations

from backfill.client.lent import ServicesClient
from backfill.worker.execution.paused_queues import PausedQueues


class PausedQueuesDuty:
    """Tells a worker which serial queues are paused.

    Args:
        client: the services' client.
        queues: what the worker knows of paused queues.
    """

    name = "paused queues"
    before_claims = True

    def __init__(self, client: ServicesClient, *, queues: PausedQueues) -> None:
        self._client = client
        self._queues = queues

    async def look(self, *, news: bool) -> None:  # noqa: ARG002 - it looks in either case, since it asked for that look
        """Read which serial queues are paused.

        Args:
            news: whether something may have been said since the last look.
        """
        self._queues.know(await self._client.find_paused_queues())
