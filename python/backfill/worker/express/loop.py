"""The loop of an express line: opens windows, runs their jobs, and ends them.

The end of one window and the look of the next go out in one pipeline. A window that found nothing is ended at once, so
that no transaction stands idle. Where a window is lost, its handlers are cancelled in the same moment, and none of
their ends is written. A job that had completed in it is deleted afterwards, if its row is still the same; else it runs
again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import psycopg

from backfill.said import said
from backfill.storage.backoff import Backoff
from backfill.storage.windows import begin_commands, drop_command
from backfill.storage.wire import Command, Wire
from backfill.worker.execution.wiring import LEASE_SECONDS
from backfill.worker.express.aftermath import Aftermath
from backfill.worker.express.line import ExpressLine, PooledLineError
from backfill.worker.express.state import ExpressState
from backfill.worker.express.window import Window, WindowEnd
from backfill.worker.pipeline.asked import Asked
from backfill.worker.pipeline.hot import QUERY_TIMEOUT
from backfill.worker.service import Service

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 30.0
_NO_END: Final = WindowEnd()


class WindowLoop(Service):
    """Opens windows on one express line.

    Args:
        state: what the lines of the worker share.
        line: the line.
        number: 0 for the line that always opens windows, 1 for the one that helps where there is a backlog.
        turned: called after each turn.
    """

    def __init__(self, state: ExpressState, line: ExpressLine, number: int, *, turned: Callable[[], None]) -> None:
        super().__init__(f"express line {number + 1}")
        self._state = state
        self._station = state.station
        self._line = line
        self._number = number
        self._turned = turned
        self._alarm = state.alarms[number]
        self._window: Window | None = None
        self._aftermath = Aftermath(state, line, number, go_on=self._go_on_without, over=self._is_over)
        self._backoff = Backoff()

    def _on_stop(self) -> None:
        self._alarm.ring()

    async def _run(self) -> None:
        while not (self._stopping.is_set() and self._window is None and not self._aftermath):
            if self._window is None and not self._aftermath and (wait := self._due_in()) > 0:
                rung = await self._alarm.sleep(wait)
                if self._number and not rung:
                    await self._line.hang_up()
                continue
            if not self._line.is_open and not await self._connect():
                if self._station.hot.give_up.is_set():
                    return
                continue
            await self._turn()
            self._turned()

    async def _close(self) -> None:
        """Leave nothing behind, also where the loop was cancelled in the middle and did not go on."""
        if self._window is not None:
            self._lose()
        if self._aftermath:
            self._aftermath.end()
        await self._line.hang_up(lost=True)

    def _due_in(self) -> float:
        """Seconds until the next window should be opened."""
        if self._stopping.is_set():
            return 0.0
        looks = self._state.looks
        if self._state.unsure or self._state.rests:
            return IDLE_SECONDS  # the other line rings when it is over
        if not self._station.executor.is_leased(time.monotonic()):
            return LEASE_SECONDS
        if self._number:
            return 0.0 if looks.backlog() and self._station.executor.held else IDLE_SECONDS
        wait = looks.due_in(time.monotonic())
        return IDLE_SECONDS if wait is None else wait

    async def _connect(self) -> bool:
        """Open the line; where that fails, the jobs are claimed the ordinary way, and it is tried again later."""
        station = self._station
        try:
            await self._line.ready()
        except PooledLineError as error:
            self._state.mode.refuse(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - whatever keeps it from connecting may pass
            self._go_on_without()
            logger.log(station.hot.outage.level(), "no connection for the windows of express tasks: %s", said(error))
            await self._backoff.wait(station.hot.give_up if self._aftermath else self._stopping)
            return False
        self._backoff.reset()
        return True

    def _go_on_without(self) -> None:
        """Have jobs run the ordinary way for a while; they wait no longer for what is still to be deleted."""
        self._state.unsure.discard(self._number)
        self._state.rests = False
        self._state.mode.rest()
        self._state.stir_all()

    async def _turn(self) -> None:
        """Open a window, or end the one that is open and open the next."""
        wire, window = self._line.wire, self._window
        assert wire is not None  # noqa: S101 - it was opened before
        if self._aftermath:
            await self._aftermath.complete(wire)
            return
        if window is None:
            await self._next(wire, None, _NO_END, [])
            return
        await self._until_over(window)
        if window.is_broken:
            await self._line.hang_up(lost=True)
            return
        end, ending = self._state.jobs.decide(window)
        await self._next(wire, window, end, ending)

    async def _until_over(self, window: Window) -> None:
        """Wait until a window should end; its connection is watched meanwhile.

        What is watched is a copy of its socket: libpq closes its own as soon as it hears of the end, and the next
        socket of this process, such as one that a cancelled handler opens in its clean-up, gets the number.
        """
        loop = asyncio.get_running_loop()
        try:
            socket = os.dup(self._line.socket)
        except (psycopg.Error, OSError):  # a look at it before a job's start has heard of the end
            self._lose()
            return
        loop.add_reader(socket, self._heard, window)
        try:
            while not window.is_over:
                await self._alarm.sleep(max(window.ends_at - time.monotonic(), 0.0))
        finally:
            loop.remove_reader(socket)
            os.close(socket)

    def _heard(self, window: Window) -> None:
        """Handle that the server has said something of itself: mostly that it ends the connection."""
        if window is self._window and not self._line.alive():
            self._lose()
            self._alarm.ring()

    async def _next(self, wire: Wire, window: Window | None, end: WindowEnd, ending: Sequence[Command]) -> None:
        """End a window, if one is open, and open the next, if lanes should look: in one round trip.

        Args:
            wire: the connection.
            window: the window that is open.
            end: what its end does.
            ending: the statements that end it.
        """
        asked, beginning = self._ask(apart=self._line.pooled and window is not None)
        if not ending and not beginning:
            return
        if not self._number:
            self._state.looks.serve(served=bool(asked))
        self._station.windows += bool(asked)
        try:
            results, refused = await wire.converse([*ending, *beginning], timeout=QUERY_TIMEOUT)
        except (psycopg.Error, TimeoutError, OSError) as error:
            await self._no_answer(asked)
            logger.log(self._station.hot.outage.level(), "the database did not answer an express line: %s", said(error))
            return
        except BaseException:
            await self._no_answer(asked)
            raise
        if window is not None and len(results) >= len(ending):
            self._window = None
            self._is_over()
            self._state.jobs.closed(window, end, results[: len(ending)])
        if refused is not None:
            await self._refused(asked, refused)
        elif asked:
            await self._opened(wire, asked, results[-len(asked.looks) :])

    def _ask(self, *, apart: bool) -> tuple[Asked, list[Command]]:
        """What the next window asks for, and the statements that open it; none where none is to be opened."""
        state = self._state
        waits = apart or self._stopping.is_set() or bool(state.unsure) or state.rests
        now = time.monotonic()
        asked = state.looks.ask(now) if not waits and self._station.executor.is_leased(now) else Asked.nothing()
        if not asked:
            return asked, []
        if not self._number and state.looks.backlog():
            state.alarms[1].ring()
        begin = begin_commands(self._station.schema, idle_seconds=state.idle_seconds, first=self._line.first)
        return asked, [*begin, *state.looks.commands(asked)]

    async def _opened(self, wire: Wire, asked: Asked, results: Sequence[PGresult]) -> None:
        """Start the jobs that a window holds; give the window up at once where it holds none."""
        state = self._state
        found = state.looks.took(asked, results)
        if any(taken.jobs for _, taken in found):
            self._window = Window(
                results, length=state.length, alive=self._line.alive, ring=self._alarm.ring,
                lost=lambda running: state.jobs.forget([running]),
            )  # fmt: skip
            state.jobs.take_in(self._window, found)
            return
        self._is_over()
        self._serves_nobody()
        refused: BaseException | None
        try:
            _, refused = await wire.converse([drop_command(self._station.schema)], timeout=QUERY_TIMEOUT)
        except (psycopg.Error, TimeoutError, OSError) as error:
            refused = error
        except BaseException:
            await self._line.hang_up(lost=True)
            raise
        if refused is not None:
            await self._line.hang_up(lost=True)

    async def _no_answer(self, asked: Asked) -> None:
        """Handle that nobody knows what took effect."""
        self._missed(asked)
        if self._window is not None:
            self._lose()
        await self._line.hang_up(lost=True)

    async def _refused(self, asked: Asked, error: psycopg.Error) -> None:
        """Handle that the database refused a statement: its transaction took no effect."""
        logger.warning("a window was refused, and express tasks run the ordinary way for a while: %s", said(error))
        await self._no_answer(asked)
        self._state.rests = True
        self._rest_if_over()

    def _missed(self, asked: Asked) -> None:
        if asked:
            self._is_over()
            self._serves_nobody()
            self._state.looks.missed(asked)

    def _lose(self) -> None:
        """Handle that the open window is lost. Windows that wait for an answer about their jobs count as open."""
        window, self._window = self._window, None
        assert window is not None  # noqa: S101 - the callers have looked
        ending = window.is_ending
        window.fail()
        self._serves_nobody()
        self._aftermath.begin(self._state.jobs.lost(window, ending=ending))

    def _serves_nobody(self) -> None:
        if not self._number:
            self._state.looks.serve(served=False)

    def _is_over(self) -> None:
        """Take note that a window is seen to; the first pump ends after the last one."""
        self._station.windows -= 1
        self._rest_if_over()
        if self._stopping.is_set():
            self._station.stir()

    def _rest_if_over(self) -> None:
        if self._state.rests and not self._station.windows:
            self._go_on_without()
