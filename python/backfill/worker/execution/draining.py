"""Ends attempts that a stopping worker no longer waits for: cancels them, waits a little, and gives the rest back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from backfill.logs import fields_of
from backfill.worker.execution.held_job import HeldJob

logger = logging.getLogger(__name__)

CANCEL_GRACE: Final = 5.0
"""Seconds that a cancelled handler has to end; after that its job is given back although it still runs."""


def cancel(running: HeldJob) -> None:
    """Cancel an attempt, once: a second time would break into its handler's clean-up."""
    given_up, running.given_up = running.given_up, True
    if running.task is not None and not given_up:
        running.task.cancel()


async def wait(attempts: Collection[HeldJob], timeout: float) -> None:
    """Wait until attempts have ended, at most `timeout` seconds."""
    tasks = [running.task for running in attempts if running.task is not None]
    if tasks:
        await asyncio.wait(tasks, timeout=timeout)


async def interrupt(attempts: set[HeldJob], give_back: Callable[[HeldJob], None]) -> None:
    """Cancel the attempts that still run, and give back those that do not end.

    Args:
        attempts: the attempts that run; each leaves the set when it ends.
        give_back: called with each attempt that has not ended, to end it.
    """
    logger.warning("the shutdown's deadline is over: %d jobs are interrupted and given back", len(attempts))
    for running in list(attempts):
        cancel(running)
    await wait(attempts, CANCEL_GRACE)
    for running in list(attempts):
        logger.warning(
            "job %d (%s) does not end when cancelled", running.job.id, running.job.task_identifier,
            extra=fields_of(running.job),
        )  # fmt: skip
        give_back(running)
