"""Keeps what limits of the whole fleet need in order: which limits hold, and their slots.

The database works the limits out itself at each change of what operators say and of the workers that live. It gives up
where it would have to wait too long for other changes, so a worker has it done again now and then. Slots of values that
nobody uses any more, such as those of a customer who has left, are deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import psycopg

from backfill.client.lent import ServicesClient
from backfill.client.verbs.limits import SWEPT_AT_ONCE
from backfill.said import said
from backfill.worker.upkeep.periodic import Periodic

logger = logging.getLogger(__name__)

INTERVAL: Final = 60.0
_TIMEOUT: Final = 60.0
_SWEEPS: Final = 100
"""How often a round sweeps at most."""


class LimitKeeper(Periodic):
    """Does this each minute, on a connection of the worker's pool; of a fleet, the first live worker does.

    Args:
        client: the services' client.
        worker: returns this worker's id.
    """

    def __init__(self, client: ServicesClient, *, worker: Callable[[], str]) -> None:
        super().__init__(
            "limits", first=INTERVAL, interval=INTERVAL, timeout=_TIMEOUT,
            complaint="the limits of the fleet could not be looked after",
        )  # fmt: skip
        self._client = client
        self._worker = worker

    async def _round(self) -> None:
        try:
            await self._client.resolve_limits()
            if not await self._client.is_first_worker(self._worker()):
                return
            for _ in range(_SWEEPS):
                if await self._client.sweep_shares() < SWEPT_AT_ONCE:
                    break
        except psycopg.errors.InsufficientPrivilege as error:
            logger.debug("the limits of the fleet are left to other workers: %s", said(error))
