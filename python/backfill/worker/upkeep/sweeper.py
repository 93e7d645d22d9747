"""The sweeper: moves jobs that other programs failed for good to the dead letters, at the start and now and then."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from backfill.client import BackfillClient
from backfill.worker.upkeep.periodic import Periodic

logger = logging.getLogger(__name__)

SWEEP_TIMEOUT: Final = 600.0


class Sweeper(Periodic):
    """Sweeps on a connection of the worker's pool.

    Args:
        client: the services' client.
        interval: seconds between sweeps.
        buried: called when jobs have become dead letters.
    """

    def __init__(self, client: BackfillClient, *, interval: float, buried: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            "sweeper", first=0.0, interval=interval, timeout=SWEEP_TIMEOUT,
            complaint="dead letters could not be swept up",
        )  # fmt: skip
        self._client = client
        self._buried = buried

    async def _round(self) -> None:
        moved = await self._client.process_failed_jobs()
        if moved:
            self._buried()
            logger.info("moved %d jobs to the dead letters that other programs had failed for good", moved)
