"""What a worker must know of an attempt whose handler completes the job in a transaction of its own.

Used by the transactions, which set it, by the executor, which ends the attempt, and by the comparison of locks.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from backfill.errors import TransactionUseError
from backfill.logs import fields_of
from backfill.said import named
from backfill.worker.execution.endings import COMMITTED, Ending

if TYPE_CHECKING:
    from backfill.worker.execution.held_job import HeldJob

logger = logging.getLogger(__name__)


class OpenBlock(Protocol):
    """A block of a handler, from its begin to its end."""

    async def abandon(self) -> None:
        """Roll back, and give back what the block has taken; nobody will end it."""
        ...


class OwnEnd:
    """The state of an attempt's own transaction.

    Attributes:
        is_open: whether its handler is within the block.
        quiet: whether the job's lock must not be renewed, since the transaction sees the database as it was at its
            begin, and could not delete a row that was written since.
        completing: whether the transaction has deleted the job, or is about to, and is not over yet.
        ending: how the attempt ends, whatever its handler returns or raises from now on; None where that counts.
        block: the block that its handler has begun last; None before that.
    """

    __slots__ = ("block", "completing", "ending", "is_open", "quiet")

    def __init__(self) -> None:
        self.is_open = False
        self.quiet = False
        self.completing = False
        self.ending: Ending | None = None
        self.block: OpenBlock | None = None

    @property
    def leaves_lock_alone(self) -> bool:
        """Whether the job's lock is the transaction's own matter: nobody looks at it, and nobody renews it."""
        return self.completing or self.ending is not None


async def refuse_open(own: OwnEnd) -> None:
    """Refuse that a handler has returned although its block is open: what it wrote there would be lost.

    Raises:
        TransactionUseError: it is open, and was rolled back.
    """
    if own.is_open and own.ending is None and not own.completing:
        if own.block is not None:
            await own.block.abandon()
        raise TransactionUseError(
            "ctx.transaction(): the handler has returned while its block was open, so the block was rolled back; end "
            "it in the handler, by `async with` or `with`, and await the tasks that it has started within"
        )


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
