"""Listeners that are told of attempts whose ends are written: the counters today, others if they are added.

The settler tells its listeners once for each batch that it has written, not once for each attempt, so that a listener
costs the hot path one call for some hundreds of jobs.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from backfill.said import stripped
from backfill.storage.attempts import Attempt
from backfill.worker.execution.held_job import HeldJob

logger = logging.getLogger(__name__)


class SettledListener(Protocol):
    """Something that is told of settled attempts."""

    def settled(self, batch: Sequence[HeldJob], missing: Collection[Attempt]) -> None:
        """Take note that the ends of these attempts are written. It is called on the event loop and must not block.

        Args:
            batch: the attempts, each with its ending; they must not be changed.
            missing: the attempts of the batch that were not this worker's any more, so that their ends were not
                written.
        """
        ...


def tell(listeners: Iterable[SettledListener], batch: Sequence[HeldJob], missing: Collection[Attempt]) -> None:
    """Tell all listeners of a batch. One that fails is named in the log; it stops neither the others nor the settler.

    Args:
        listeners: the listeners, in the order in which they are told.
        batch: the attempts whose ends are written.
        missing: the attempts of the batch that were not this worker's any more.
    """
    for listener in listeners:
        try:
            listener.settled(batch, missing)
        except Exception as error:
            stripped(error, context=True)
            logger.exception("%s failed when it was told of %d settled attempts", type(listener).__name__, len(batch))
