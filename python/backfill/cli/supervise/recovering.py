"""Recovers the jobs of worker processes that died, in the moment of their death, for the supervisor.

A supervisor knows for certain that its process is gone, since it has waited for it. If the recovery fails, for example
because the database is away, the other workers do it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import psycopg

from backfill.cli.supervise.child import WorkerChild
from backfill.cli.supervise.policies import Policies
from backfill.client.lent import ServicesClient
from backfill.errors import BackfillError
from backfill.hooks.events import WorkerRecovered
from backfill.said import why
from backfill.worker.config import WorkerConfig
from backfill.worker.events import emit
from backfill.worker.liveness.places import Place
from backfill.worker.upkeep.gone import recover_gone

logger = logging.getLogger("backfill.cli.supervise")

SECONDS: Final = 30.0
"""How long a recovery may take."""
LAST_SECONDS: Final = 5.0
"""How long a recovery that is under way may hold up the supervisor's end."""
SUPERVISOR: Final = "supervisor"
"""Who has recovered the jobs, in the log."""


class Recovering:
    """Recovers the jobs of processes that died.

    Args:
        config: the settings of the workers.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._tasks = set[asyncio.Task[None]]()

    def take(self, child: WorkerChild) -> None:
        """Recover the jobs of a process that has died, in a task of its own."""
        task = asyncio.ensure_future(self._recover(child))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for the recoveries that are under way, for some seconds."""
        if not self._tasks:
            return
        _, left = await asyncio.wait(self._tasks, timeout=LAST_SECONDS)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def _recover(self, child: WorkerChild) -> None:
        place, policies = child.place, child.policies or Policies()
        if place is None:  # this system does not tell it; the other workers go by the heartbeat
            return
        try:
            async with asyncio.timeout(SECONDS):
                await self._recover_all(place, policies)
        except (BackfillError, psycopg.Error, TimeoutError, OSError) as error:
            logger.warning(
                "the jobs of worker process %d (pid %d) could not be recovered here, so another worker does it: %s",
                child.number, child.pid, why(error), extra={"process_number": child.number, "pid": child.pid},
            )  # fmt: skip

    async def _recover_all(self, place: Place, policies: Policies) -> None:
        config = self._config
        client = ServicesClient(config.required_dsn(), schema=config.schema, min_size=1, max_size=1)
        async with client:
            found = await recover_gone(client, place, next_of=policies.next_of)
        for worker, done in found.items():
            if not (done.jobs or done.queues or done.complete):
                continue  # another worker was recovering it, and tells of it
            emit(
                WorkerRecovered(
                    worker, done.host, done.pid, SUPERVISOR, done.jobs, done.queues, done.dead_letters, done.superseded
                ),
                complete=done.complete,
            )
