"""The loop of an express line: opens windows, runs their jobs, and ends them.

The end of one window and the look of the next go out in one pipeline. A window that found nothing is ended at once, so
that no transaction stands idle. Where a window is lost, its handlers are cancelled in the same moment, and none of
their ends is written. A job that had completed in it is deleted afterwards, if its row is still the same; else it runs
again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg

from backfill.records import Job
from backfill.said import said
from backfill.storage.backoff import Backoff
from backfill.storage.claim_kinds import IN_ROW
from backfill.storage.windows import (
    RowVersion,
    begin_commands,
    changed,
    complete_lost,
    drop_command,
    end_commands,
    versions,
)
from backfill.storage.wire import Command, Wire
from backfill.worker.execution.endings import COMPLETED
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.express.line import QUERY_TIMEOUT, ExpressLine, PooledLineError
from backfill.worker.express.looks import WindowLooks
from backfill.worker.express.mode import ExpressMode
from backfill.worker.express.window import Window, WindowEnd
from backfill.worker.lanes.lane import Lane
from backfill.worker.pipeline.alarm import Alarm
from backfill.worker.pipeline.asked import Asked
from backfill.worker.pipeline.pump import PipelineState
from backfill.worker.service import Service

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 30.0
_SHORTER: Final = 4
"""A window that has found ordinary jobs too lasts for this part of its length at most, since they wait for its end."""


@dataclass(slots=True, eq=False)
class ExpressState:
    """What the express lines of one worker share.

    Attributes:
        station: what the pumps share.
        mode: says which jobs run in windows.
        looks: what windows ask for.
        length: how long a window is open at most, in seconds.
        idle_seconds: after how many seconds without a statement the server ends a window.
        alarms: the alarms of the lines.
    """

    station: PipelineState
    mode: ExpressMode
    looks: WindowLooks
    length: float
    idle_seconds: float
    alarms: tuple[Alarm, ...]

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
        self._unsure: list[RowVersion] = []
        self._unsure_jobs: list[HeldJob] = []
        self._backoff = Backoff()

    def _on_stop(self) -> None:
        self._alarm.ring()

    async def _run(self) -> None:
        try:
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
        finally:
            if self._window is not None:  # the loop was cancelled in the middle
                self._break()
                await self._line.hang_up(lost=True)
            self._forget_unsure()
            await self._line.hang_up()

    async def _connect(self) -> bool:
        """Open the line; where that fails, the jobs are claimed the ordinary way, and it is tried again later."""
        station = self._station
        try:
            await self._line.ready()
        except PooledLineError as error:
            self._state.mode.refuse(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - whatever keeps it from connecting may pass
            self._state.mode.rest()
            logger.log(station.hot.outage.level(), "an express line cannot connect: %s", said(error))
            await self._backoff.wait(station.hot.give_up if self._unsure else self._stopping)
            return False
        self._backoff.reset()
        return True

    def _forget_unsure(self) -> None:
        """Let go of the jobs of a lost window that could not be deleted: they run again."""
        if self._unsure:
            jobs, self._unsure, self._unsure_jobs = self._unsure_jobs, [], []
            self._station.windows -= 1
            self._station.settler.written(jobs, jobs)

    def _due_in(self) -> float:
        """Seconds until the next window should be opened."""
        if self._stopping.is_set():
            return 0.0
        looks = self._state.looks
        if self._number:
            return 0.0 if looks.backlog() and self._station.executor.held else IDLE_SECONDS
        wait = looks.due_in(time.monotonic())
        return IDLE_SECONDS if wait is None else wait

    async def _turn(self) -> None:
        """Open a window, or end the one that is open and open the next."""
        wire = self._line.wire
        assert wire is not None  # noqa: S101 - it was opened before
        if self._unsure:
            await self._complete_unsure(wire)
            return
        window = self._window
        if window is None:
            await self._next(wire, None, WindowEnd(), [])
            return
        await self._until_over(window)
        if window.is_broken:
            await self._line.hang_up(lost=True)
            return
        end = window.decide()
        self._let_go(end.let_go)
        await self._next(wire, window, end, self._end_commands(window, end))

    def _end_commands(self, window: Window, end: WindowEnd) -> list[Command]:
        claimed = [running.job for running in end.claimed]
        claimed += [running.job for _, some in window.ordinary for running in some]
        station = self._station
        completed = [running.job.id for running in end.completed]
        return end_commands(station.schema, station.worker, completed=completed, claimed=claimed)

    async def _until_over(self, window: Window) -> None:
        """Wait until the window should end; the connection is watched meanwhile."""
        loop, socket = asyncio.get_running_loop(), self._line.socket
        loop.add_reader(socket, self._heard, window)
        try:
            while not window.is_over:
                await self._alarm.sleep(max(window.ends_at - time.monotonic(), 0.0))
        finally:
            loop.remove_reader(socket)

    def _heard(self, window: Window) -> None:
        """Handle that the server has said something of itself: mostly that it ends the connection."""
        if window is self._window and not self._line.alive():
            self._break()
            self._alarm.ring()

    async def _next(self, wire: Wire, window: Window | None, end: WindowEnd, ending: list[Command]) -> None:
        """End a window, if one is open, and open the next, if lanes should look: in one round trip."""
        state, station = self._state, self._station
        apart = self._line.pooled and window is not None
        now = time.monotonic()
        asked = Asked.nothing() if apart or self._stopping.is_set() else state.looks.ask(now)
        commands = list(ending)
        if asked:
            commands += begin_commands(station.schema, idle_seconds=state.idle_seconds, first=self._line.first)
            commands += state.looks.commands(asked)
            if not self._number and state.looks.backlog():
                state.alarms[1].ring()
        if not commands:
            return
        opened = Window(length=state.length, alive=self._line.alive, ring=self._alarm.ring, lost=self._ended_lost)
        station.windows += bool(asked)
        try:
            results, refused = await wire.converse(commands, timeout=QUERY_TIMEOUT)
        except BaseException as error:
            station.windows -= bool(asked)
            state.looks.missed(asked)
            if self._window is not None:
                self._break()
            await self._line.hang_up(lost=True)
            if not isinstance(error, (psycopg.Error, TimeoutError, OSError)):
                raise
            logger.log(station.hot.outage.level(), "the database did not answer an express line: %s", said(error))
            return
        if window is not None:
            if len(results) < len(ending):
                station.windows -= bool(asked)
                state.looks.missed(asked)
                await self._refused(wire, refused)
                return
            self._ended(window, end, results[: len(ending)])
        if not asked:
            return
        if refused is not None:
            station.windows -= 1
            state.looks.missed(asked)
            await self._refused(wire, refused)
            return
        await self._opened(wire, opened, asked, results[len(commands) - len(asked.looks) :])

    async def _opened(self, wire: Wire, window: Window, asked: Asked, results: Sequence[PGresult]) -> None:
        """Start the jobs that a window holds; give the window up at once where it holds none."""
        state, station = self._state, self._station
        window.begin(results)
        found = state.looks.took(asked, results)
        if not any(taken.jobs for _, taken in found):
            try:
                _, refused = await wire.converse([drop_command(station.schema)], timeout=QUERY_TIMEOUT)
            except BaseException as error:
                station.windows -= 1
                await self._line.hang_up(lost=True)
                if not isinstance(error, (psycopg.Error, TimeoutError, OSError)):
                    raise
                return
            station.windows -= 1
            if refused is not None:
                await self._line.hang_up(lost=True)
            return
        self._window = window
        executor, admitted = station.executor, list[tuple[Lane, list[HeldJob]]]()
        before = executor.claimed
        for lane, taken in found:
            if not taken.jobs:
                continue
            express, ordinary = list[Job](), list[Job]()
            for job in taken.jobs:
                (express if state.mode.runs_in_window(job) else ordinary).append(job)
            state.mode.note(lane, express=len(express), ordinary=len(ordinary))
            if ordinary:
                held = self._take_in(ordinary, lane, window)
                window.ordinary.append((lane, held))
                lane.asked += len(held)
                window.shorten(state.length / _SHORTER)
            if express:
                held = self._take_in(express, lane, window)
                window.hold(held)
                admitted.append((lane, held))
        station.claimed(executor.claimed - before)
        for lane, held in admitted:
            executor.admit([running for running in held if running.ending is None], lane)

    def _take_in(self, jobs: list[Job], lane: Lane, window: Window) -> list[HeldJob]:
        """Note the jobs of a window as ours; where the worker stops, they are given back at once."""
        executor = self._station.executor
        return executor.take_in(jobs, lane, window) or [executor.held[job.id] for job in jobs]

    def _let_go(self, unstarted: Sequence[HeldJob]) -> None:
        """Take the jobs that a window lets go out of everything in which they wait for their start."""
        waiting = [running for running in unstarted if running.ending is None]
        for lane in {running.lane for running in waiting}:
            lane.withdraw_all({running for running in waiting if running.lane is lane})
        for running in waiting:
            if running.kept_back is not None:
                running.kept_back.withdraw(running)
        self._station.executor.undo_all(waiting)

    def _ended(self, window: Window, end: WindowEnd, results: Sequence[PGresult]) -> None:
        """Take in that the end of a window has taken effect."""
        station = self._station
        window.close()
        self._window = None
        station.windows -= 1
        if end.completed and (deleted := changed(results[0])) != len(end.completed):
            logger.warning(
                "%d of %d jobs of a window were not deleted", len(end.completed) - deleted, len(end.completed)
            )
        self._state.mode.ran(len(window.express), len(end.let_go))
        if end.completed or end.let_go:
            station.settler.written([*end.completed, *end.let_go])
        for running in end.let_go:
            station.claimer.returned(running)
        for running in end.claimed:
            self._is_ordinary(running)
            if running.ending is not None:
                station.ended(running)
        for lane, some in window.ordinary:
            lane.asked -= len(some)
            for running in some:
                self._is_ordinary(running)
            station.executor.admit([running for running in some if running.ending is None], lane)
            for running in some:
                if running.ending is not None:
                    station.ended(running)
        if end.let_go or end.claimed or window.ordinary:
            station.stir()

    def _is_ordinary(self, running: HeldJob) -> None:
        running.claim, running.window = IN_ROW, None

    async def _refused(self, wire: Wire, error: psycopg.Error | None) -> None:
        """Handle that the database refused a part of a window: nothing of the window took effect."""
        logger.warning(
            "the database refused a window, and express tasks run the ordinary way for a while: %s", said(error)
        )
        self._state.mode.rest()
        if self._window is not None:
            self._break()
        await self._line.hang_up(lost=True)

    def _break(self) -> None:
        """Handle that the open window is lost: cancel its handlers, and write none of their ends."""
        window, self._window = self._window, None
        station = self._station
        assert window is not None  # noqa: S101 - the callers have looked
        if not window.fail():
            return
        station.windows -= 1
        every = [*window.express, *(running for _, some in window.ordinary for running in some)]
        completed = [running for running in window.express if running.ending is COMPLETED]
        if completed:
            rows = versions(window.results)
            self._unsure += [rows[running.job.id] for running in completed]
            self._unsure_jobs += completed
            station.windows += 1
        for lane, some in window.ordinary:
            lane.asked -= len(some)
        over = [running for running in every if running.ending is not None and running.ending is not COMPLETED]
        for running in over:
            self._ended_lost(running)
        self._let_go([running for running in every if running.ending is None and not running.slot_taken_at])
        for running in every:
            if running.ending is None:
                station.executor.held.lose(running)
        for lane in {running.lane for running in every}:
            lane.look_anew()
        station.locks.look_soon()
        logger.info(
            "a window was lost: %d jobs run again, and %d that had completed do so unless their rows are unchanged",
            len(every) - len(completed),
            len(completed),
        )
        station.stir()

    def _ended_lost(self, running: HeldJob) -> None:
        """Let go of an attempt that ended after its window was lost."""
        self._station.settler.written([running], [running])

    async def _complete_unsure(self, wire: Wire) -> None:
        """Delete the jobs that had completed in a window that was lost, as far as their rows are unchanged."""
        station = self._station
        try:
            await complete_lost(wire, self._unsure, schema=station.schema, timeout=QUERY_TIMEOUT)
        except (psycopg.Error, TimeoutError, OSError) as error:
            logger.warning(
                "%d jobs that completed in a lost window could not be deleted: %s", len(self._unsure), said(error)
            )
            await self._line.hang_up(lost=True)
            if isinstance(error, psycopg.OperationalError) or not isinstance(error, psycopg.Error):
                return  # they are tried again
        jobs = self._unsure_jobs
        self._unsure, self._unsure_jobs = [], []
        station.windows -= 1
        station.settler.written(jobs)
