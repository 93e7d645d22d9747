"""Ends attempts that a stopping worker does not wait for any longer: asks them to end, and cancels what it can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Final

from backfill.logs import fields_of
from backfill.worker.execution.held_job import HeldJob

logger = logging.getLogger(__name__)

CANCEL_GRACE: Final = 5.0
"""Seconds that a cancelled handler has to end; after that it is cancelled again."""
LAST_GRACE: Final = 1.0
"""Seconds that a handler has to end which was cancelled again; after that its job is given back although it runs."""


def cancel(running: HeldJob) -> None:
    """Cancel an attempt, once: a second time would break into its handler's clean-up."""
    given_up, running.given_up = running.given_up, True
    if running.task is not None and not given_up:
        running.task.cancel()


async def drain(attempts: Collection[HeldJob], in_threads: Collection[HeldJob], timeout: float) -> None:
    """Ask attempts to end, wait for them, and interrupt those that still run when the time is up.

    Args:
        attempts: the attempts that run; each leaves the collection when it ends.
        in_threads: the attempts whose handlers run in threads at this moment.
        timeout: how many seconds to wait.
    """
    for running in list(attempts):
        running.ask_to_stop()
        if not running.handler_started:
            cancel(running)
    await wait(attempts, timeout)
    if attempts:
        await interrupt(attempts, in_threads)


async def wait(attempts: Collection[HeldJob], timeout: float) -> None:
    """Wait until attempts have ended, at most `timeout` seconds."""
    tasks = [running.task for running in attempts if running.task is not None]
    if tasks:
        await asyncio.wait(tasks, timeout=timeout)


async def interrupt(attempts: Collection[HeldJob], in_threads: Collection[HeldJob]) -> None:
    """Cancel the attempts that still run, and once more those that do not end.

    A thread cannot be cancelled: it was asked to end, and nobody waits for it any longer.

    Args:
        attempts: the attempts that run.
        in_threads: the attempts whose handlers run in threads at this moment.
    """
    logger.warning("%d jobs still run when their time to end is over, and are interrupted", len(attempts))
    threads, others = list[HeldJob](), list[HeldJob]()
    for running in list(attempts):
        if running in in_threads:
            running.given_up = True
            threads.append(running)
        else:
            cancel(running)
            others.append(running)
    await wait(others, CANCEL_GRACE)
    if clinging := [running for running in others if running.task is not None and not running.task.done()]:
        for running in clinging:
            assert running.task is not None  # noqa: S101 - see above
            running.task.cancel()
        await wait(clinging, LAST_GRACE)
    for running in [*threads, *clinging]:
        if running.task is not None and not running.task.done():
            logger.warning(
                "job %d (%s) does not end when %s", running.job.id, running.job.task_identifier,
                "asked to, and its thread cannot be cancelled" if running in threads else "cancelled",
                extra=fields_of(running.job),
            )  # fmt: skip
