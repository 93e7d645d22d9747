"""The service of a worker that schedules recurring jobs.

It looks when a run is due, when operators may have said something, and at least twice a minute.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import psycopg

from backfill.errors import BackfillError
from backfill.said import why
from backfill.storage.backoff import Backoff
from backfill.storage.ration import Ration
from backfill.worker.scheduling.scheduler import Scheduler
from backfill.worker.service import Service, wait_for_event

logger = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
LOOKS_AT_ONCE: Final = 10
LOOKS_PER_SECOND: Final = 5.0
"""How often what operators say makes it look: any role that may connect can send such notices."""


class SchedulerService(Service):
    """Has a scheduler look again and again, until it is stopped.

    Nothing but a stop ends it: if a look fails, the service looks again after a pause, and what is due then is all that
    was due meanwhile.

    Args:
        scheduler: looks.
        news: set by its owner when operators may have said something of recurring jobs.
    """

    def __init__(self, scheduler: Scheduler, news: asyncio.Event) -> None:
        super().__init__("scheduler")
        self._scheduler = scheduler
        self._news = news
        self._ration = Ration(LOOKS_AT_ONCE, LOOKS_PER_SECOND)

    async def _run(self) -> None:
        await self._until_stopped(self._look_for_ever())

    async def _look_for_ever(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not self._stopping.is_set():  # a cancellation may get lost in a wait for a connection
            self._news.clear()
            try:
                wait = await self._scheduler.look()
            except (BackfillError, psycopg.Error, TimeoutError, OSError) as error:
                logger.log(backoff.level(), "recurring jobs could not be scheduled, and will be: %s", why(error))
                await backoff.wait(self._stopping)
                continue
            if backoff.reset():
                logger.info("recurring jobs are scheduled again")
            if await wait_for_event(self._news, wait):
                await asyncio.sleep(self._ration.wait())
                self._ration.take()
