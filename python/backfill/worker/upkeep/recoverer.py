"""The recoverer: unlocks the jobs and the queues of dead workers; the jobs run again or become dead letters.

Any worker may do this, whether or not it knows the jobs' tasks, but only one at a time does. The attempt that was cut
off counts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

import psycopg

from backfill.client.lent import ServicesClient
from backfill.client.verbs.recovery import Recovered
from backfill.errors import BackfillError
from backfill.hooks.events import ObservedEvent, WorkerRecovered
from backfill.retry import RetryPolicy
from backfill.said import why
from backfill.storage.backoff import Backoff
from backfill.storage.recovery import CutOff, Next
from backfill.tasks import TaskRegistry
from backfill.worker.events import emit
from backfill.worker.execution.policy import next_of
from backfill.worker.liveness.places import Place, Process
from backfill.worker.service import Service, wait_for_event
from backfill.worker.upkeep.gone import LATE_SECONDS, unlock_gone, unlock_late

logger = logging.getLogger(__name__)

_TIMEOUT: Final = 120.0
_MOST_TOLD: Final = 5


class Recoverer(Service):
    """Recovers dead workers on a connection of the worker's pool.

    Args:
        client: the services' client.
        worker: this worker's id.
        registry: the tasks that this worker knows.
        retry: the retry policy of jobs that have none of their own and whose task has none.
        dead_after: seconds without a heartbeat after which a worker is dead; it is also the interval at which the
            recoverer looks for locks of workers that have no row at all.
        tell: tells the observers of plugins of each worker that was recovered.
        buried: called when jobs have become dead letters.
    """

    def __init__(
        self,
        client: ServicesClient,
        *,
        worker: str,
        registry: TaskRegistry[Any],
        retry: RetryPolicy | None,
        dead_after: float,
        tell: Callable[[ObservedEvent], None] | None = None,
        buried: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__("recoverer")
        self._client = client
        self._worker = worker
        self._registry = registry
        self._retry = retry
        self._dead_after = dead_after
        self._tell = tell
        self._buried = buried
        self._dead: dict[str, int] = {}
        self._gone: dict[Process, Place] = {}
        self._late: dict[str, tuple[float, Recovered]] = {}
        self._wanted = asyncio.Event()

    def dead(self, workers: Mapping[str, int]) -> None:
        """Have workers recovered that are dead or were given up already, each given with its last heartbeat."""
        self._dead.update(workers)
        if self._dead:
            self._wanted.set()

    def gone(self, places: Iterable[Place]) -> None:
        """Have what processes held recovered that are gone for certain."""
        self._gone.update({(place.pid, place.started): place for place in places})
        if self._gone:
            self._wanted.set()

    async def _run(self) -> None:
        await self._until_stopped(self._recover_again_and_again())

    async def _recover_again_and_again(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():  # a cancellation may get lost in a wait for a connection
            is_wanted = await wait_for_event(self._wanted, self._next_in())
            self._wanted.clear()
            dead, self._dead = self._dead, {}
            gone, self._gone = self._gone, {}
            troubles = list[str]()
            for place in gone.values():  # first, since their jobs wait for nothing else
                troubles += await self._tried(self._recover_gone(place))
            late = self._due_late()
            if late:
                troubles += await self._tried(self._recover_late(late))
            elif not is_wanted:
                troubles += await self._tried(self._recover_abandoned())
            for worker, heartbeat in dead.items():  # one that cannot be recovered must not hold up the others
                troubles += await self._tried(self._recover(worker, heartbeat))
            if not troubles:
                backoff.reset()
                continue
            logger.log(
                backoff.level(), "what dead workers held could not all be recovered, and stays locked: %s%s",
                "; "
                "".join(troubles[:_MOST_TOLD]), f" and {more} more" if (more := len(troubles) - _MOST_TOLD) > 0 else "",
            )  # fmt: skip
            await backoff.wait(self._stopping)

    async def _tried(self, recovery: Awaitable[tuple[str, ...]]) -> tuple[str, ...]:
        """Carry out a recovery; return what failed. A worker that is still dead is found again by the next looks."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await recovery
        except (BackfillError, psycopg.Error, TimeoutError, OSError) as error:
            return (why(error),)

    async def _recover_abandoned(self) -> tuple[str, ...]:
        """Recover what workers without a row have locked; return what the database refused.

        Such a worker may have been paused and recovered, and then have gone on, claimed jobs and died.
        """
        refused = list[str]()
        span = timedelta(seconds=self._dead_after)
        for gone in await self._client.recover_abandoned(gone_for=span, next_of=self._next_of):
            refused += gone.refused
            if gone.dead_letters:
                self._buried()
            if gone.jobs or gone.queues:
                emit(
                    WorkerRecovered(
                        gone.worker_id,
                        "unknown",
                        0,
                        self._worker,
                        gone.jobs,
                        gone.queues,
                        gone.dead_letters,
                        gone.superseded,
                    ),
                    self._tell,
                    complete=False,  # the worker was recovered before, with its row
                )
        return tuple(refused)

    async def _recover_gone(self, place: Place) -> tuple[str, ...]:
        """Recover the workers of a process that is gone; return what the database refused."""
        span = timedelta(seconds=self._dead_after)
        done, _ = await unlock_gone(self._client, place, next_of=self._next_of, dead_after=span)
        due = time.monotonic() + LATE_SECONDS
        self._late.update({worker: (due, one) for worker, one in done.items()})
        return self._took(done)

    async def _recover_late(self, late: Mapping[str, Recovered]) -> tuple[str, ...]:
        """Recover what the last claims of workers have locked that are gone; return what the database refused."""
        span = timedelta(seconds=self._dead_after)
        return self._took(await unlock_late(self._client, late, next_of=self._next_of, dead_after=span))

    def _next_in(self) -> float:
        """Seconds until there is something to do that nobody asks for."""
        if not self._late:
            return self._dead_after
        return max(min(due for due, _ in self._late.values()) - time.monotonic(), 0.0)

    def _due_late(self) -> dict[str, Recovered]:
        """The workers whose last claims are carried out by now, each with what was recovered before."""
        now = time.monotonic()
        due = {worker: one for worker, (at, one) in self._late.items() if at <= now}
        for worker in due:
            del self._late[worker]
        return due

    def _took(self, done: Mapping[str, Recovered]) -> tuple[str, ...]:
        """Tell of workers that were recovered; return what the database refused."""
        for worker, one in done.items():
            if one.dead_letters:
                self._buried()
            if one.jobs or one.queues or one.complete:
                emit(
                    WorkerRecovered(
                        worker,
                        one.host,
                        one.pid,
                        self._worker,
                        one.jobs,
                        one.queues,
                        one.dead_letters,
                        one.superseded,
                    ),
                    self._tell,
                    complete=one.complete,
                )
        return tuple(text for one in done.values() for text in one.refused)

    async def _recover(self, worker: str, heartbeat: int) -> tuple[str, ...]:
        """Recover a worker; return what the database refused."""
        span = timedelta(seconds=self._dead_after)
        done = await self._client.recover_worker(worker, heartbeat, next_of=self._next_of, dead_after=span)
        return () if done is None else self._took({worker: done})

    def _next_of(self, job: CutOff) -> Next:
        """What the registry says about a job, as far as it knows the job's task."""
        return next_of(job, self._registry, self._retry)
