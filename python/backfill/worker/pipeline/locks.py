"""Compares the jobs that a worker holds with its locks in the database, corrects the differences, and renews the locks.

It uses the first line while nothing is under way on either, so that no settlement is sent with an old fence.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

import psycopg

from backfill.logs import fields_of
from backfill.said import said
from backfill.storage.attempts import find_locks, give_back_strays, named, renew
from backfill.storage.claim_kinds import Lock
from backfill.storage.wire import Wire
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.pipeline.hot import PASSING, QUERY_TIMEOUT, HotConnections

logger = logging.getLogger(__name__)

RENEW_AFTER: Final = 120.0
LOOK_SECONDS: Final = 15.0
WHOLE_EVERY: Final = 20
"""One look in this many is for every job that the worker has locked; the others are only for the jobs that it holds.

The look for all locks reads an index entry of every job that the worker ran and that was not vacuumed since, while
neither claims nor settlements go out. It finds one thing that the others do not: the jobs of a claim whose answer was
lost without anybody noticing.
"""
_BATCH: Final = 500


class Locks:
    """Keeps the worker's memory and the database in agreement about which jobs the worker holds.

    Args:
        executor: the executor that holds the jobs.
        schema: the queue's schema.
        worker: the worker's id.
    """

    def __init__(self, executor: Executor, *, schema: str, worker: str) -> None:
        self._executor = executor
        self._schema = schema
        self._worker = worker
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._looks = 0

    def look_soon(self) -> None:
        """Have the next turn look at the locks of all jobs that the worker has locked."""
        self._next_look, self._looks = 0.0, 0

    def look_in(self) -> float:
        """Seconds until the next look at the locks."""
        return self._next_look - time.monotonic()

    async def look(self, hot: HotConnections) -> None:
        """Compare the locks, and renew those that were held for about two minutes. Raises what `alone` raises."""
        now = time.monotonic()
        whole = self._looks % WHOLE_EVERY == 0
        self._looks += 1
        async with hot.alone() as wire:
            await self._compare_if_allowed(wire, whole=whole)
            async with self._executor.held.renewal:
                due = self._due(now)
                for start in range(0, len(due), _BATCH):
                    some = due[start : start + _BATCH]
                    if not await self._renew(wire, some, now):
                        for running in some:
                            await self._renew(wire, [running], now)
        self._next_look = now + LOOK_SECONDS

    async def compare(self, wire: Wire, *, whole: bool = True) -> int:
        """Compare the jobs that are held with those that are locked, and give back those that are locked but not held.

        A lock whose new time was lost with an answer becomes known again. If somebody has unlocked a job, its handler
        is cancelled, since others may run the job.

        Args:
            wire: the line to ask on.
            whole: whether to look at all that the worker has locked; else only the locks of held jobs are looked at,
                and no job goes back.

        Returns:
            How many jobs went back.

        Raises:
            psycopg.Error: the database refused, or the connection is lost.
            TimeoutError: the database did not answer.
        """
        held = self._executor.held
        in_rows = [number for number, running in held.items() if running.claim.in_row]
        asked = None if whole else in_rows
        if asked == []:
            return 0
        locks = await find_locks(wire, schema=self._schema, worker=self._worker, timeout=QUERY_TIMEOUT, held=asked)
        for number in in_rows:
            if (running := held.get(number)) is not None:
                self._mend(running, locks.get(number))
        # What a lost window held is not this worker's, although a handler that was cancelled may not have ended yet.
        kept = [number for number, one in held.items() if one.claim.in_row or one.claim.is_held(one, None)]
        strays = locks.keys() - set(kept)
        if not whole or not strays:
            return 0
        async with asyncio.timeout(QUERY_TIMEOUT):
            returned, superseded = await give_back_strays(
                wire.connection,
                schema=self._schema,
                worker=self._worker,
                held=kept,
                only=strays,
                batches=self._executor.batches,
            )
        if superseded:
            logger.info(
                "deleted %d jobs that were replaced or removed while this worker had them locked (batches that were "
                "replaced are dead letters): %s",
                len(superseded), named(superseded),
            )  # fmt: skip
        return len(returned) + len(superseded)

    def _mend(self, running: HeldJob, lock: Lock | None) -> None:
        if running.own is not None and running.own.leaves_lock_alone:
            return
        held = running.claim.is_held(running, lock)
        if not held and running.ending is None and not running.lost:  # one that has ended may be written already
            logger.warning(
                "job %d (%s): its lock is not this worker's any more; its handler is cancelled",
                running.job.id, running.job.task_identifier, extra=fields_of(running.job),
            )  # fmt: skip
            self._executor.held.lose(running)

    async def _compare_if_allowed(self, wire: Wire, *, whole: bool) -> None:
        try:
            strays = await self.compare(wire, whole=whole)
        except psycopg.Error as error:
            if wire.connection.closed:
                raise
            logger.warning("jobs locked by this worker could not be looked for: %s", said(error))
            return
        if strays:
            logger.warning("gave back %d jobs that this worker had locked without holding them", strays)

    async def _renew(self, wire: Wire, some: Sequence[HeldJob], now: float) -> bool:
        """Renew some locks; return whether the database took it. A lock whose row is held is tried again next time."""
        try:
            await renew(wire, some, schema=self._schema, worker=self._worker, timeout=QUERY_TIMEOUT, patient=False)
        except psycopg.Error as error:
            if wire.connection.closed:
                raise
            if len(some) == 1 and not isinstance(error, PASSING):
                job = some[0].job
                logger.warning("job %d: its lock could not be renewed: %s", job.id, said(error), extra=fields_of(job))
            return False
        for running in some:
            running.renewed = now
        return True

    def _due(self, now: float) -> list[HeldJob]:
        """The jobs that have been held for so long that their locks must be renewed."""
        due = []
        for running in self._executor.held.values():
            if not running.claim.in_row:
                continue
            if (own := running.own) is not None and (own.quiet or own.leaves_lock_alone):
                continue
            if running.renewed is None:
                running.renewed = now
            elif now - running.renewed >= RENEW_AFTER - LOOK_SECONDS:
                due.append(running)
        return due
