"""The reader of control: when operators have said something to the fleet, it looks at what concerns this worker.

What is said stands in tables. A notification, or else the answer to a heartbeat, only says that there is something new.
Any role that may connect can send such a notification, so the looks that follow are limited in their rate. A look that
fails is repeated. To have more looked at, add a `ControlDuty` to the list that the session gives the reader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

import psycopg

from backfill.errors import BackfillError
from backfill.said import why
from backfill.storage.backoff import Backoff
from backfill.storage.ration import Ration
from backfill.worker.service import Service

logger = logging.getLogger(__name__)

LOOKS_AT_ONCE: Final = 10
LOOKS_PER_SECOND: Final = 5.0
"""How often the reader may look."""
_TIMEOUT: Final = 30.0


class ControlDuty(Protocol):
    """Something that a worker does when operators have said something."""

    @property
    def name(self) -> str:
        """What it looks at, for the log."""
        ...

    @property
    def before_claims(self) -> bool:
        """Whether it must have looked once before the worker claims its first job."""
        ...

    async def look(self, *, news: bool) -> None:
        """Look at what is said now, and do it. It may be called although nothing is new.

        It reads all that concerns it, since the reader does not know what was said, and several things may have been.

        Args:
            news: whether something may have been said since the last look; False if the look was asked for by a duty
                that had not seen all at its last look.
        """
        ...


class ControlReader(Service):
    """Has its duties look whenever there may be something new since the worker's row was written.

    Args:
        duties: what looks, in this order; one that fails does not keep the others from looking.
    """

    def __init__(self, duties: Sequence[ControlDuty]) -> None:
        super().__init__("control reader")
        self._duties = tuple(duties)
        self._wanted = asyncio.Event()
        self._news = False
        self._ration = Ration(LOOKS_AT_ONCE, LOOKS_PER_SECOND)

    def look(self) -> None:
        """Look soon, since there may be something new."""
        self._news = True
        self._wanted.set()

    def look_again(self) -> None:
        """Look soon, although nothing may be new: a duty could not see all when it looked."""
        self._wanted.set()

    async def look_first(self) -> None:
        """Have those duties look that must have looked before the first claim.

        Raises:
            DatabaseConnectionError: the server cannot be reached.
            psycopg.Error: the server refused.
            TimeoutError: the server did not answer in time.
        """
        for duty in self._duties:
            if duty.before_claims:
                async with asyncio.timeout(_TIMEOUT):
                    await duty.look(news=True)

    async def _run(self) -> None:
        await self._until_stopped(self._look_for_ever())

    async def _look_for_ever(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():  # a cancellation may get lost in a wait for a connection
            await self._wanted.wait()
            await asyncio.sleep(self._ration.wait())
            self._ration.take()
            self._wanted.clear()
            news, self._news = self._news, False
            troubles = [trouble for duty in self._duties if (trouble := await self._tried(duty, news=news))]
            if not troubles:
                if backoff.reset():
                    logger.info("what operators say can be read again")
                continue
            self._news = self._news or news
            self._wanted.set()
            logger.log(backoff.level(), "what operators say could not be read: %s", "; ".join(troubles))
            await backoff.wait(self._stopping)

    async def _tried(self, duty: ControlDuty, *, news: bool) -> str:
        """Have a duty look; return what failed, and an empty text if nothing did."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                await duty.look(news=news)
        except (BackfillError, psycopg.Error, TimeoutError, OSError) as error:
            return f"{duty.name}: {why(error)}"
        return ""
