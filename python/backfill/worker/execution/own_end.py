"""What a worker must know of an attempt whose handler completes the job in a transaction of its own.

Used by the transactions, which set it, by the executor, which ends the attempt, and by the comparison of locks.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from backfill.logs import fields_of
from backfill.said import named
from backfill.worker.execution.endings import COMMITTED, Ending

if TYPE_CHECKING:
    from backfill.worker.execution.held_job import HeldJob

logger = logging.getLogger(__name__)


class OwnEnd:
    """The state of an attempt's own transaction.

    Attributes:
        is_open: whether its handler is within the block.
        quiet: whether the job's lock must not be renewed, since the transaction sees the database as it was at its
            begin, and could not delete a row that was written since.
        completing: whether the transaction has deleted the job, or is about to, and is not over yet.
        ending: how the attempt ends, whatever its handler returns or raises from now on; None where that counts.
    """

    __slots__ = ("completing", "ending", "is_open", "quiet")

    def __init__(self) -> None:
        self.is_open = False
        self.quiet = False
        self.completing = False
        self.ending: Ending | None = None

    @property
    def leaves_lock_alone(self) -> bool:
        """Whether the job's lock is the transaction's own matter: nobody looks at it, and nobody renews it."""
        return self.completing or self.ending is not None


def ending_after(running: HeldJob, error: BaseException) -> Ending | None:
    """The ending of an attempt that its handler's own transaction has decided; None where the error decides it.

    The error was raised after that, so it is only logged.
    """
    if running.own is None or running.own.ending is None:
        return None
    if running.own.ending is COMMITTED:
        cut_off = isinstance(error, asyncio.CancelledError)
        with suppress(Exception):  # a log handler or the error's own code may fail; the attempt must still end
            logger.log(
                logging.INFO if cut_off else logging.ERROR,
                "job %d (%s) is completed, since its own transaction is committed; its handler raised after that: %s",
                running.job.id, running.job.task_identifier, named(error),
                exc_info=None if cut_off else error, extra=fields_of(running.job),
            )  # fmt: skip
    return running.own.ending
