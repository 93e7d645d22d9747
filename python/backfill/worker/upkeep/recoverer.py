"""The recoverer: unlocks the jobs and the queues of dead workers; the jobs run again or become dead letters.

Any worker may do this, whether or not it knows the jobs' tasks, but only one at a time does. The attempt that was cut
off counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import psycopg

from backfill.client import BackfillClient
from backfill.errors import BackfillError
from backfill.hooks.events import ObservedEvent, WorkerRecovered
from backfill.retry import RetryPolicy
from backfill.said import why
from backfill.storage.backoff import Backoff
from backfill.storage.recovery import CutOff, Next
from backfill.tasks import TaskRegistry
from backfill.worker.events import emit
from backfill.worker.execution.policy import next_of
from backfill.worker.service import Service, wait_for_event

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
        client: BackfillClient,
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
        self._wanted = asyncio.Event()

    def dead(self, workers: Mapping[str, int]) -> None:
        """Have workers recovered that are dead or were given up already, each given with its last heartbeat."""
        self._dead.update(workers)
        if self._dead:
            self._wanted.set()

    async def _run(self) -> None:
        await self._until_stopped(self._recover_again_and_again())

    async def _recover_again_and_again(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():  # a cancellation may get lost in a wait for a connection
            is_wanted = await wait_for_event(self._wanted, self._dead_after)
            self._wanted.clear()
            dead, self._dead = self._dead, {}
            troubles = list[str]()
            if not is_wanted:
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
                )
        return tuple(refused)

    async def _recover(self, worker: str, heartbeat: int) -> tuple[str, ...]:
        """Recover a worker; return what the database refused."""
        span = timedelta(seconds=self._dead_after)
        done = await self._client.recover_worker(worker, heartbeat, next_of=self._next_of, dead_after=span)
        if done is not None and done.dead_letters:
            self._buried()
        if done is not None and (done.jobs or done.queues or done.complete):
            emit(
                WorkerRecovered(
                    worker,
                    done.host,
                    done.pid,
                    self._worker,
                    done.jobs,
                    done.queues,
                    done.dead_letters,
                    done.superseded,
                ),
                self._tell,
            )
        return () if done is None else done.refused

    def _next_of(self, job: CutOff) -> Next:
        """What the registry says about a job, as far as it knows the job's task."""
        return next_of(job, self._registry, self._retry)
