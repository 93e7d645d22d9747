"""The cleaner: releases abandoned locks, from the start on, and now and then deletes what nothing uses.

That is serial queues, and the recurring items of code that no worker has run for 30 days. The recoverer takes care of
locks that backfill's own workers left. The cleaner takes care of those that workers of other programs left, of which
nothing is known but the age of their locks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import psycopg

from backfill.client.cleanup import warn_of_short
from backfill.client.lent import ServicesClient
from backfill.errors import CleanupRefusedError
from backfill.said import said
from backfill.storage.schema.functions import tell_of_functions
from backfill.worker.config import WorkerConfig
from backfill.worker.upkeep.periodic import Periodic

logger = logging.getLogger(__name__)

_TIMEOUT: Final = 120.0
QUEUES_SECONDS: Final = 600.0
"""How often the locks of queues are looked at, and whose the functions are that add jobs, in seconds.

It is seldom, since a look reads all queues, and a queue without a locked job is hardly ever locked.
"""
COLLECT_FIRST_SECONDS: Final = 600.0
COLLECT_SECONDS: Final = 3600.0
"""How often one worker of the fleet deletes unused queues and crontabs, in seconds.

It is seldom, since a queue that is made again under the same name takes a new id, and ids end at 2^31.
"""
MOST_COLLECTED: Final = 100_000


class Cleaner(Periodic):
    """Cleans up on a connection of the worker's pool; only one worker at a time does so.

    Args:
        client: the services' client.
        config: says from which age on a lock is abandoned.
        interval: seconds between two looks.
        worker: returns this worker's id.
    """

    def __init__(
        self,
        client: ServicesClient,
        *,
        config: WorkerConfig,
        interval: float,
        worker: Callable[[], str],
    ) -> None:
        super().__init__(
            "cleaner", first=0.0, interval=interval, timeout=_TIMEOUT,
            complaint="stale locks could not be looked for",
        )  # fmt: skip
        self._client = client
        self._config = config
        self._worker = worker
        self._queues_at = time.monotonic()
        self._collect_at = time.monotonic() + COLLECT_FIRST_SECONDS
        warn_of_short(config.stale_queue_lock_timeout, config.stale_job_lock_timeout)

    async def _round(self) -> None:
        config, now = self._config, time.monotonic()
        queues = config.stale_queue_lock_timeout if now >= self._queues_at else None
        released = await self._client.release_foreign_locks(
            queues=queues, jobs=config.stale_job_lock_timeout, gone_for=config.dead_after, alone=True
        )
        if released.job_locks or released.queue_locks:
            logger.warning(
                "unlocked %d jobs and %d serial queues that workers of other programs had locked for over %s and %s",
                released.job_locks, released.queue_locks, config.stale_job_lock_timeout,
                config.stale_queue_lock_timeout,
            )  # fmt: skip
        if queues is not None:
            self._queues_at = now + QUEUES_SECONDS
            await self._look_at_functions()
        if now >= self._collect_at:
            self._collect_at = now + COLLECT_SECONDS
            await self._collect()

    async def _look_at_functions(self) -> None:
        """See whose `add_job` and `add_jobs` are, and say what it costs where they are no longer ours."""
        try:
            tell_of_functions(await self._client.whose_functions(), self._config.schema)
        except psycopg.errors.InsufficientPrivilege as error:
            logger.debug("it is not known whose add_job is: %s", said(error))

    async def _collect(self) -> None:
        if not await self._client.is_first_worker(self._worker()):
            return
        try:
            collected = await self._client.collect_queues(MOST_COLLECTED)
        except (CleanupRefusedError, psycopg.errors.InsufficientPrivilege) as error:
            # The functions are another program's, which `_look_at_functions` says, or the role has older grants. Unused
            # queues cost no more than their rows.
            logger.debug("unused queues stay: %s", said(error))
        else:
            if collected:
                logger.info("deleted %d serial queues that nothing used", collected)
        try:
            swept = await self._client.sweep_crontabs()
        except psycopg.errors.InsufficientPrivilege as error:
            logger.debug("crontabs that no worker declares stay: %s", said(error))
        else:
            if swept:
                logger.info("deleted %d crontabs that no worker has declared for 30 days", swept)
