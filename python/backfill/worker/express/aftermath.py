"""What a line does after it has lost a window: it deletes the jobs that had completed, as far as they are unchanged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import psycopg

from backfill.said import said
from backfill.storage.backoff import Backoff
from backfill.storage.windows import LARGEST_STEP, complete_lost
from backfill.storage.wire import Wire
from backfill.worker.express.jobs import Unsure
from backfill.worker.express.line import ExpressLine
from backfill.worker.express.state import ExpressState
from backfill.worker.pipeline.hot import QUERY_TIMEOUT, ConnectionLostError

logger = logging.getLogger(__name__)

_REFUSED_PAUSE: Final = 0.1
"""The longest pause after jobs that had completed in a lost window could not be deleted, since they run again else."""
_MOST_TRIES: Final = 20
"""After so many refusals, the jobs of the worker's lanes wait no longer for it."""


class Aftermath:
    """What is left to do after the loss of a line's window; it is false where nothing is.

    Args:
        state: what the express lines of the worker share.
        line: the line.
        number: its number.
        go_on: called where jobs should run the ordinary way for a while.
        over: called when all is done.
    """

    def __init__(
        self,
        state: ExpressState,
        line: ExpressLine,
        number: int,
        *,
        go_on: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        self._state = state
        self._station = state.station
        self._line = line
        self._number = number
        self._go_on = go_on
        self._over = over
        self._unsure = Unsure()
        self._tries = 0
        self._backoff = Backoff()
        self._refusals = Backoff(longest=_REFUSED_PAUSE)

    def __bool__(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._unsure)

    def begin(self, unsure: Unsure) -> None:
        """Take over what nobody knows of a window that was lost."""
        self._unsure = unsure
        if not unsure:
            self._over()
        elif unsure.jobs:
            self._state.unsure.add(self._number)

    def end(self) -> None:
        """Leave it at what is done: the jobs that are not deleted run again."""
        unsure, self._unsure = self._unsure, Unsure()
        self._state.unsure.discard(self._number)
        self._tries = 0
        self._state.stir_all()
        self._over()
        self._state.jobs.found(unsure)

    async def complete(self, wire: Wire) -> None:
        """Delete the jobs that had completed.

        If the window's end took effect although the answer was lost, it has written claims that this worker does not
        hold: they are given back.
        """
        try:
            while self._unsure.rows:
                await self._delete(wire, LARGEST_STEP)
        except (psycopg.Error, TimeoutError, OSError) as error:
            await self._refused(wire, error)
            return
        except BaseException:
            await self._line.hang_up(lost=True)
            raise
        if self._unsure.ending:
            try:
                async with self._station.hot.alone() as first:
                    await self._station.locks.compare(first)
            except (ConnectionLostError, psycopg.Error, TimeoutError, OSError) as error:
                logger.warning("claims that a lost window may have written could not be looked for: %s", said(error))
                await self._backoff.wait(self._station.hot.give_up)
                return
        self._backoff.reset()
        self._refusals.reset()
        self.end()

    async def _delete(self, wire: Wire, count: int) -> None:
        """Delete the first jobs of those that are left."""
        unsure = self._unsure
        unsure.note(*await complete_lost(wire, unsure.rows[:count], schema=self._station.schema, timeout=QUERY_TIMEOUT))
        del unsure.rows[:count]

    async def _refused(self, wire: Wire, error: psycopg.Error | TimeoutError | OSError) -> None:
        """Handle that the jobs could not be deleted: it is tried again later.

        Those of which the database refuses it for good run again. No windows are opened meanwhile.
        """
        logger.log(
            self._refusals.level(), "%d jobs that completed in a lost window could not be deleted: %s",
            len(self._unsure.rows), said(error),
        )  # fmt: skip
        if not isinstance(error, psycopg.Error) or wire.connection.closed:
            self._unsure.unanswered = True
            await self._line.hang_up(lost=True)
        elif self._station.hot.give_up.is_set():
            self._leave()
        elif isinstance(error, psycopg.OperationalError):
            self._tries += 1
            if self._tries >= _MOST_TRIES:
                self._go_on()
            await self._refusals.wait(self._station.hot.give_up)
        else:
            await self._delete_each(wire)

    def _leave(self) -> None:
        if self._unsure.ending:
            self._station.locks.look_soon()
            self._station.stir()
        self.end()

    async def _delete_each(self, wire: Wire) -> None:
        """Delete the jobs one by one, so that one which is refused does not have the others run again."""
        while self._unsure.rows:
            try:
                await self._delete(wire, 1)
            except (psycopg.OperationalError, TimeoutError, OSError):
                return  # what is left is tried again, all together, and told of then
            except psycopg.Error:
                del self._unsure.rows[0]
