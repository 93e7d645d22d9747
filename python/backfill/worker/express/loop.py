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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psycopg

from backfill.said import said
from backfill.storage.backoff import Backoff
from backfill.storage.windows import begin_commands, complete_lost, drop_command
from backfill.storage.wire import Command, Wire
from backfill.worker.express.jobs import Unsure, WindowJobs
from backfill.worker.express.line import ExpressLine, PooledLineError
from backfill.worker.express.looks import WindowLooks
from backfill.worker.express.mode import ExpressMode
from backfill.worker.express.window import Window, WindowEnd
from backfill.worker.pipeline.alarm import Alarm
from backfill.worker.pipeline.asked import Asked
from backfill.worker.pipeline.hot import QUERY_TIMEOUT, ConnectionLostError
from backfill.worker.pipeline.pump import PipelineState
from backfill.worker.service import Service

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 30.0
_REFUSED_PAUSE: Final = 0.1
"""The longest pause after jobs that had completed in a lost window could not be deleted, since they run again else."""
_MOST_TRIES: Final = 20
_NO_END: Final = WindowEnd()


@dataclass(slots=True, eq=False)
class ExpressState:
    """What the express lines of one worker share.

    Attributes:
        station: what the pumps share.
        mode: says which jobs run in windows.
        looks: what windows ask for.
        jobs: moves jobs into windows and out of them.
        length: how long a window is open at most, in seconds.
        idle_seconds: after how many seconds without a statement the server ends a window.
        alarms: the alarms of the lines.
        unsure: the numbers of the lines on which jobs that completed in a lost window are still to be deleted. No other
            window is opened meanwhile, and none of these lanes goes to ordinary claims: this worker itself would take
            the jobs, and run them again.
        rests: whether no more windows are to be opened for a while, once those that are open are seen to.
    """

    station: PipelineState
    mode: ExpressMode
    looks: WindowLooks
    jobs: WindowJobs
    length: float
    idle_seconds: float
    alarms: tuple[Alarm, ...]
    unsure: set[int] = field(default_factory=set)
    rests: bool = False

    def stir(self) -> None:
        """Wake the first line, since lanes may have to look."""
        self.alarms[0].ring()


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
        self._unsure = Unsure()
        self._backoff = Backoff()
        self._refusals = Backoff(longest=_REFUSED_PAUSE)
        self._tries = 0

    def _on_stop(self) -> None:
        self._alarm.ring()

    async def _run(self) -> None:
        while not (self._stopping.is_set() and self._window is None and not self._unsure):
            if self._window is None and not self._unsure and (wait := self._due_in()) > 0:
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
        if self._unsure:
            self._state.jobs.forget(self._take_unsure().jobs)  # they were not deleted, and run again
        await self._line.hang_up(lost=True)

    def _due_in(self) -> float:
        """Seconds until the next window should be opened."""
        if self._stopping.is_set():
            return 0.0
        looks = self._state.looks
        if self._state.unsure or self._state.rests:
            return IDLE_SECONDS  # the other line rings when it is over
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
            logger.log(station.hot.outage.level(), "an express line cannot connect: %s", said(error))
            await self._backoff.wait(station.hot.give_up if self._unsure else self._stopping)
            return False
        self._backoff.reset()
        return True

    def _go_on_without(self) -> None:
        """Have jobs run the ordinary way for a while; they wait no longer for what is still to be deleted."""
        self._state.unsure.discard(self._number)
        self._state.rests = False
        self._state.mode.rest()
        for alarm in self._state.alarms:
            alarm.ring()

    async def _turn(self) -> None:
        """Open a window, or end the one that is open and open the next."""
        wire, window = self._line.wire, self._window
        assert wire is not None  # noqa: S101 - it was opened before
        if self._unsure:
            await self._complete_unsure(wire)
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
        asked = Asked.nothing() if waits else state.looks.ask(time.monotonic())
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
        self._unsure = self._state.jobs.lost(window, ending=ending)
        if not self._unsure:
            self._is_over()
        elif self._unsure.jobs:
            self._state.unsure.add(self._number)

    def _take_unsure(self) -> Unsure:
        unsure, self._unsure = self._unsure, Unsure()
        self._state.unsure.discard(self._number)
        self._tries = 0
        for alarm in self._state.alarms:
            alarm.ring()
        self._is_over()
        return unsure

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

    async def _complete_unsure(self, wire: Wire) -> None:
        """Delete the jobs that had completed in a window that was lost, as far as their rows are unchanged.

        If its end took effect although the answer was lost, it has written claims that this worker does not hold: they
        are given back.
        """
        try:
            await complete_lost(wire, self._unsure.rows, schema=self._station.schema, timeout=QUERY_TIMEOUT)
        except (psycopg.Error, TimeoutError, OSError) as error:
            await self._not_completed(wire, error)
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
        self._state.jobs.found_done(self._take_unsure().jobs)

    async def _not_completed(self, wire: Wire, error: psycopg.Error | TimeoutError | OSError) -> None:
        """Handle that jobs which had completed in a lost window could not be deleted: it is tried again later.

        Where the database refuses it for good, they run again. No windows are opened meanwhile.
        """
        logger.log(
            self._refusals.level(), "%d jobs that completed in a lost window could not be deleted: %s",
            len(self._unsure.jobs), said(error),
        )  # fmt: skip
        if not isinstance(error, psycopg.Error) or wire.connection.closed:
            await self._line.hang_up(lost=True)
        elif isinstance(error, psycopg.OperationalError) and not self._station.hot.give_up.is_set():
            self._tries += 1
            if self._tries >= _MOST_TRIES:
                self._go_on_without()
            await self._refusals.wait(self._station.hot.give_up)
        elif len(self._unsure.jobs) > 1 and not self._station.hot.give_up.is_set():
            await self._complete_each(wire)
        else:
            if self._unsure.ending:
                self._station.locks.look_soon()
                self._station.stir()
            self._state.jobs.forget(self._take_unsure().jobs)

    async def _complete_each(self, wire: Wire) -> None:
        """Delete such jobs one by one, so that one which is refused does not have the others run again."""
        unsure, jobs = self._unsure, self._state.jobs
        while unsure.jobs:
            try:
                await complete_lost(wire, unsure.rows[:1], schema=self._station.schema, timeout=QUERY_TIMEOUT)
            except (psycopg.OperationalError, TimeoutError, OSError):
                return  # what is left is tried again, all together, and told of then
            except psycopg.Error:
                jobs.forget([unsure.jobs.pop(0)])
            else:
                jobs.found_done([unsure.jobs.pop(0)])
            del unsure.rows[0]
        if not unsure.ending:
            self._take_unsure()
