"""The settler: gathers the ends of attempts and writes them in batches, until the database has answered.

It also renews the locks of what runs for long, in turn with its settlements, so that neither sees the other's half.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import psycopg

from backfill.storage.attempts import Attempt, Failure, Settlement, give_back_strays, renew, settle
from backfill.storage.connection import Connection
from backfill.worker.executor import Completed, Ending, Executor, Failed, GivenBack, Running, as_failure
from backfill.worker.failures import describe
from backfill.worker.hot import Backoff, ConnectionLostError, HotConnection
from backfill.worker.service import Service, wait_for_event

logger = logging.getLogger(__name__)

LARGEST_BATCH: Final = 500
RENEW_AFTER: Final = 120.0
RENEW_LOOK: Final = 15.0
_Ended = tuple[Running, Ending]


class Settler(Service):
    """Writes how attempts ended.

    Args:
        hot: the hot connection.
        schema: the queue's schema.
        worker: the worker's id.
        settled: called after each batch, with whether other jobs may be free to run now.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        hot: HotConnection,
        *,
        schema: str,
        worker: str,
        settled: Callable[[bool], None],
        clock: Callable[[], float],
    ) -> None:
        super().__init__("settler")
        self.executor: Executor | None = None
        self._hot = hot
        self._schema = schema
        self._worker = worker
        self._settled = settled
        self._clock = clock
        self._pending: list[_Ended] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._renewed: dict[int, float] = {}
        self._next_look = clock() + RENEW_LOOK

    def add(self, running: Running, ending: Ending) -> None:
        """Take in how an attempt ended."""
        self._pending.append((running, ending))
        self._idle.clear()
        self._wake.set()

    async def idle(self) -> None:
        """Wait until everything taken in so far is written."""
        await self._idle.wait()

    def _on_stop(self) -> None:
        self._wake.set()

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            await wait_for_event(self._wake, max(self._next_look - self._clock(), 0.01))
            self._wake.clear()
            try:
                await self._write()
                await self._renew()
            except ConnectionLostError as error:
                if self._hot.give_up.is_set():
                    logger.error("%d attempts could not be settled before the deadline: %s", len(self._pending), error)
                    return
                await backoff.wait(self._hot.give_up)
                self._wake.set()
            else:
                backoff.reset()
            if self._stopping.is_set() and not self._pending:
                return

    async def _write(self) -> None:
        while self._pending:
            batch = self._pending[:LARGEST_BATCH]
            await self._write_batch(batch)
            del self._pending[: len(batch)]
        self._idle.set()

    async def _write_batch(self, batch: Sequence[_Ended]) -> None:
        try:
            found = await self._settle(batch)
        except psycopg.Error as error:
            # One row that the database refuses must not keep the others from being settled.
            found = set()
            for ended in batch:
                found |= await self._write_one(ended, error)
        self._release(batch, found)

    async def _write_one(self, ended: _Ended, reason: Exception) -> set[int]:
        running, _ = ended
        try:
            return await self._settle([ended])
        except psycopg.Error as error:
            reason = error
        logger.error(
            "job %d (%s): its end is refused by the database and written as a failure: %s",
            running.job.id, running.job.task_identifier, reason,
        )  # fmt: skip
        try:
            return await self._settle([(running, Failed(f"its end was refused by the database\n{describe(reason)}"))])
        except psycopg.Error:
            logger.exception("job %d (%s) cannot be settled", running.job.id, running.job.task_identifier)
            return {running.job.id}

    async def _settle(self, batch: Sequence[_Ended]) -> set[int]:
        settlement = _settlement(batch)
        return await self._hot.run(lambda c: settle(c, settlement, schema=self._schema, worker=self._worker))

    def _release(self, batch: Sequence[_Ended], found: set[int]) -> None:
        frees = False
        for running, ending in batch:
            if self.executor is not None and self.executor.held.get(running.job.id) is running:
                del self.executor.held[running.job.id]
            self._renewed.pop(running.job.id, None)
            if running.job.id not in found:
                logger.warning(
                    "job %d (%s): attempt %d was not this worker's any more when it ended",
                    running.job.id, running.job.task_identifier, running.job.attempts,
                )  # fmt: skip
            frees = frees or running.job.job_queue_id is not None or not isinstance(ending, Completed)
        self._settled(frees)

    async def _renew(self) -> None:
        """Renew what has been held for two minutes, and look for rows that we have locked without knowing."""
        now = self._clock()
        if now < self._next_look or self.executor is None:
            return
        held = self.executor.held
        due = [r for r in held.values() if now - self._renewed.setdefault(r.job.id, now) >= RENEW_AFTER - RENEW_LOOK]
        for start in range(0, len(due), LARGEST_BATCH):
            attempts = [running.attempt for running in due[start : start + LARGEST_BATCH]]
            lost = await self._hot.run(partial(self._renew_these, attempts))
            for attempt in attempts:
                self._renewed[attempt.id] = now
            for attempt in lost:
                logger.warning("job %d: its lock is not this worker's any more", attempt.id)
        strays = await self._hot.run(
            lambda c: give_back_strays(c, schema=self._schema, worker=self._worker, held=list(held))
        )
        if strays:
            logger.warning("gave back %d jobs that this worker had locked without holding them", len(strays))
        self._next_look = now + RENEW_LOOK

    async def _renew_these(self, attempts: list[Attempt], connection: Connection) -> list[Attempt]:
        return await renew(connection, attempts, schema=self._schema, worker=self._worker)


def _settlement(batch: Sequence[_Ended]) -> Settlement:
    failed: list[Failure] = [as_failure(running, ending) for running, ending in batch if isinstance(ending, Failed)]
    return Settlement(
        completed=[running.attempt for running, ending in batch if isinstance(ending, Completed)],
        failed=failed,
        given_back=[running.attempt for running, ending in batch if isinstance(ending, GivenBack)],
    )
