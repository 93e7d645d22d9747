"""The claimer: takes jobs for lanes with free slots, when it is woken, when something falls due, and now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import psycopg

from backfill.storage.connection import Connection
from backfill.storage.workers import find_tasks, next_due
from backfill.worker.executor import Executor, Running
from backfill.worker.hot import Backoff, ConnectionLostError, HotConnection
from backfill.worker.lane import Lane
from backfill.worker.service import Service, wait_for_event

logger = logging.getLogger(__name__)

LARGEST_CLAIM: Final = 500
_SHORTEST_WAIT: Final = 0.001


class Claimer(Service):
    """Claims jobs and starts them.

    Args:
        hot: the hot connection.
        executor: what runs them.
        lanes: in the order in which they are served.
        schema: the queue's schema.
        worker: the worker's id.
        tasks: the names of the tasks that the worker knows.
        poll_interval: seconds between looks that nothing asked for.
        claimed: called with each job that was started.
    """

    def __init__(
        self,
        hot: HotConnection,
        executor: Executor,
        lanes: list[Lane],
        *,
        schema: str,
        worker: str,
        tasks: tuple[str, ...],
        poll_interval: float,
        claimed: Callable[[Running], None] | None = None,
    ) -> None:
        super().__init__("claimer")
        self._hot = hot
        self._executor = executor
        self._lanes = lanes
        self._schema = schema
        self._worker = worker
        self._tasks = tasks
        self._task_ids: dict[str, int] = {}
        self._poll_interval = poll_interval
        self._claimed = claimed
        self._event = asyncio.Event()
        self._wakes = 0

    def wake(self) -> None:
        """There may be jobs for any lane."""
        self._wakes += 1
        for lane in self._lanes:
            lane.hungry = True
        self._event.set()

    def slot_freed(self, lane: Lane) -> None:
        """A slot is free; it matters where jobs are known to wait."""
        if lane.hungry:
            self._event.set()

    async def claim_available(self) -> int:
        """One look for every lane with free slots; how many jobs were started.

        Raises:
            ConnectionLostError: the database did not answer.
            psycopg.Error: it refused.
        """
        if not self._task_ids:
            await self._look_up_tasks()
        return sum([await self._fill(lane) for lane in self._lanes])

    async def _look_up_tasks(self) -> None:
        self._task_ids = await self._hot.run(lambda c: find_tasks(c, self._tasks, schema=self._schema))

    def _on_stop(self) -> None:
        self._event.set()

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            self._event.clear()
            try:
                await self.claim_available()
                wait = await self._pause()
            except ConnectionLostError:
                logger.warning("a claim got no answer; what it took is looked for first", exc_info=True)
                self.wake()
                await backoff.wait(self._stopping)
                continue
            except psycopg.Error as error:
                logger.error("a claim was refused: %s", " ".join(str(error).split()))
                self.wake()
                self._task_ids = {}
                await backoff.wait(self._stopping)
                continue
            backoff.reset()
            if not await wait_for_event(self._event, wait) and wait >= self._poll_interval:
                self._task_ids = {}
                self.wake()
            elif not self._event.is_set():
                self.wake()

    async def _fill(self, lane: Lane) -> int:
        started = 0
        while lane.hungry and lane.free > 0 and not self._stopping.is_set():
            wanted = min(lane.free, LARGEST_CLAIM)
            wakes = self._wakes
            taken = await self._hot.run(partial(self._take, lane, wanted))
            for running in taken:
                self._executor.start(running)
                if self._claimed is not None:
                    self._claimed(running)
            started += len(taken)
            if len(taken) < wanted and wakes == self._wakes:
                lane.hungry = False
        return started

    async def _take(self, lane: Lane, wanted: int, connection: Connection) -> list[Running]:
        jobs = await lane.claim.take(connection, worker=self._worker, wanted=wanted, task_ids=self._task_ids)
        return [self._executor.hold(job, lane) for job in jobs]

    async def _pause(self) -> float:
        """How long to wait where nothing wakes us: until the next job is due, at most the poll's interval."""
        if not any(lane.free > 0 and not lane.hungry for lane in self._lanes):
            return self._poll_interval
        due = await self._hot.run(lambda c: next_due(c, schema=self._schema))
        return self._poll_interval if due is None else min(max(due, _SHORTEST_WAIT), self._poll_interval)
