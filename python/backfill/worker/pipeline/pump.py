"""The two pumps: each turn of a pump is one round trip that writes the ends of attempts and claims new jobs.

The first pump always works. The second has a line of its own and works where there is a backlog, so that the server is
busy with one pump's turn while the worker starts the jobs of the other's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import psycopg

from backfill.said import said
from backfill.storage.backoff import Backoff
from backfill.storage.wire import Wire
from backfill.storage.workers import find_tasks
from backfill.worker.execution.endings import COMPLETED
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.wiring import LEASE_SECONDS
from backfill.worker.limits.sources import Sources
from backfill.worker.pipeline.alarm import Alarm
from backfill.worker.pipeline.asked import Asked
from backfill.worker.pipeline.claimer import BACKLOG, Claimer
from backfill.worker.pipeline.hot import QUERY_TIMEOUT, ConnectionLostError, HotConnections
from backfill.worker.pipeline.locks import Locks
from backfill.worker.pipeline.settler import LARGEST_BATCH, Settler
from backfill.worker.pipeline.stalls import Stalls
from backfill.worker.service import Service

logger = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.016
"""How long ends are gathered, from one turn to the next, while other jobs run.

After a crash the jobs whose ends were gathered run again.
"""
GATHER_MOST: Final = LARGEST_BATCH
IDLE_SECONDS: Final = 30.0
_FIRST_PAUSE: Final = 0.01
"""The first pause after a lost connection; it is short, since connecting has its own pauses if the server is away."""
_OTHERS_LOCKS: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
_SHORTEST_SLEEP: Final = 0.001
"""The pause after a turn that found nothing to do, so that a wrong guess cannot keep the event loop busy."""


@dataclass(slots=True, eq=False)
class PipelineState:
    """What the two pumps of a worker share: the worker's parts, and the alarms that wake the pumps.

    Attributes:
        schema: the queue's schema.
        worker: the worker's id.
        tasks: the names of the tasks that the worker knows.
        hot: the lines to the database.
        executor: runs the jobs.
        settler: gathers the ends of attempts.
        locks: looks after the locks of the jobs that are held.
        claimer: decides about looks for jobs.
        limits: the sources of limited tasks, which know who has which share.
        stalls: gives back claimed jobs that wait too long.
        urgent: whether an end waits that other jobs wait for.
        apart: whether a settlement and a claim go out apart, since the two together were refused.
        last_turn: when the last turn began, in monotonic seconds.
        claimed: told how many jobs a turn has brought.
        windows: how many windows are open, or must still be seen to.
        holds_loop: told of an attempt whose handler holds the event loop; called in the watchdog's thread.
    """

    schema: str
    worker: str
    tasks: tuple[str, ...]
    hot: HotConnections
    executor: Executor
    settler: Settler
    locks: Locks
    claimer: Claimer
    limits: Sources
    stalls: Stalls
    alarms: tuple[Alarm, Alarm] = field(default_factory=lambda: (Alarm(), Alarm()))
    urgent: bool = False
    apart: bool = False
    last_turn: float = 0.0
    claimed: Callable[[int], None] = lambda _: None
    windows: int = 0
    holds_loop: Callable[[HeldJob], None] = lambda _: None

    @property
    def is_settled(self) -> bool:
        """Whether the ends of all attempts are written that have ended, but for those that the database refuses.

        What has ended in a window is written when the window ends.
        """
        return self.settler.idle and not self.windows

    def stir(self) -> None:
        """Wake the first pump: there is something to do now."""
        self.alarms[0].ring()

    def ended(self, running: HeldJob) -> None:
        """Take in an attempt that ended: have its end written soon, and together with others where many end."""
        if running.window is not None:
            running.window.ended(running)
            return
        pending = self.settler.add(running)
        lane = running.lane
        if running.share is not None and not self.limits.ended(running):
            self.urgent = True  # others may take the share once the end is written
        if running.is_serial:
            self.claimer.freed_queue()
            self.urgent = True
            lane.holding = lane.ordered
        if _goes_back(running):
            self.claimer.returned(running)
        if self.urgent or pending >= GATHER_MOST or (not lane.ready and self.executor.idle):
            self.alarms[0].ring()
            if pending >= BACKLOG:
                self.alarms[1].ring()
        elif pending == 1:
            self.alarms[0].ring_in(self.last_turn + GATHER_SECONDS - time.monotonic())

    @property
    def has_backlog(self) -> bool:
        """Whether there is work for the second pump."""
        return not self.apart and (self.settler.pending >= BACKLOG or self.claimer.backlog())

    @property
    def must_look_behind(self) -> bool:
        """Whether the second pump should look for jobs before the floors, a look that would hold up the first."""
        wait = self.claimer.behind_in(now := time.monotonic())
        return wait is not None and wait <= 0 and self.executor.is_leased(now)


class PipelineLoop(Service):
    """Takes turns on one line.

    Args:
        station: what this pump shares with the other.
        line: 0 for the first pump, which also looks at locks and at the clock; 1 for the second.
        turned: called after each turn.
    """

    def __init__(self, station: PipelineState, line: int, *, turned: Callable[[], None]) -> None:
        super().__init__(f"pump {line + 1}")
        self._station = station
        self._line = line
        self._turned = turned
        self._alarm = station.alarms[line]
        self._backoff = Backoff(first=_FIRST_PAUSE)
        self._refusals = Backoff()

    def _on_stop(self) -> None:
        self._alarm.ring()

    async def _run(self) -> None:
        settler, hot = self._station.settler, self._station.hot
        station = self._station
        while not (self._stopping.is_set() and (self._line or (station.is_settled and not hot.in_doubt))):
            wait = self._due_in()
            if wait > 0:
                rung = await self._alarm.sleep(wait)
                if self._line and not rung:
                    await hot.rest(self._line)
                continue
            try:
                if not await self._turn():
                    await self._alarm.sleep(_SHORTEST_SLEEP)
            except ConnectionLostError as error:
                if hot.give_up.is_set():
                    if not self._line:
                        logger.error(
                            "%d attempts could not be settled before the deadline: %s", settler.pending, said(error)
                        )
                    return
                logger.log(hot.outage.level(), "the database did not answer: %s", said(error))
                await self._backoff.wait(hot.give_up)
            else:
                self._backoff.reset()
                if hot.outage.reset():
                    logger.info("the database answers again")
            if self._line:
                # The first pump keeps the time for both. It may sleep until long after what this turn has made due.
                self._station.stir()
            self._turned()
        if settler.refused and not self._line:
            logger.error("%d jobs stay locked by this worker: the database refused their ends", settler.refused)

    def _due_in(self) -> float:
        """Seconds until the next turn; 0 where one is due now."""
        station, now = self._station, time.monotonic()
        if self._line:
            return 0.0 if station.has_backlog or station.must_look_behind else IDLE_SECONDS
        if self._stopping.is_set() and station.hot.in_doubt:
            return 0.0  # what a lost claim took must go back before this worker ends
        waits = [station.locks.look_in()]
        if station.settler.pending:
            now_due = station.urgent or station.settler.pending >= GATHER_MOST or station.executor.idle
            waits.append(0.0 if now_due or self._stopping.is_set() else station.last_turn + GATHER_SECONDS - now)
        claims_in = station.claimer.due_in(now) if station.executor.is_leased(now) else LEASE_SECONDS
        others = (claims_in, station.stalls.due_in(now), station.settler.blocked_in())
        waits += [wait for wait in others if wait is not None]
        return max(min(waits), 0.0)

    async def _turn(self) -> bool:
        """Take one turn; return whether there was anything to do."""
        station = self._station
        if not self._line:
            station.stalls.give_way(time.monotonic())
        batch, asked = list[HeldJob](), Asked.nothing()
        try:
            if not self._line and station.locks.look_in() <= 0:
                await station.locks.look(station.hot)
            async with station.hot.line(self._line) as wire:
                if not self._line and (station.settler.blocked_in() or 1.0) <= 0:
                    await station.settler.write_blocked(wire)
                if self._line and station.must_look_behind:
                    asked = station.claimer.ask_behind(time.monotonic())
                    await self._exchange(wire, batch, asked)
                    return True
                batch = station.settler.take()
                freed = [number for running in batch if (number := running.job.job_queue_id) is not None]
                # Jobs that were claimed without a lease would not start here, and would go back at once.
                alone = (station.apart and batch) or not station.executor.is_leased(time.monotonic())
                asked = Asked.nothing(freed) if alone else station.claimer.ask(time.monotonic(), freed)
                if batch or asked:
                    await self._exchange(wire, batch, asked)
        except ConnectionLostError:
            raise
        except psycopg.Error as error:
            await self._refused(error, batch, asked)
        return bool(batch or asked)

    async def _exchange(self, wire: Wire, batch: list[HeldJob], asked: Asked) -> None:
        """Make one round trip, of which all or nothing takes effect."""
        station = self._station
        if batch or not self._line:
            station.urgent, station.last_turn = False, time.monotonic()
        if not self._line and (station.has_backlog or station.must_look_behind):
            station.alarms[1].ring()
        try:
            settlement = station.settler.settlement(batch)
            commands = settlement.commands(schema=station.schema, worker=station.worker)
            results = await wire.send([*commands, *station.claimer.commands(asked)], timeout=QUERY_TIMEOUT)
        except BaseException as error:
            station.claimer.missed(asked)
            station.settler.put_back(batch, in_doubt=wire.connection.closed or not isinstance(error, psycopg.Error))
            station.urgent = station.urgent or any(running.is_serial for running in batch)
            if self._line:
                station.stir()  # the first pump may be asleep, and this one may have no backlog any more
            raise
        settled, claimed = results[: len(commands)], results[len(commands) :]
        del results  # only `claimed` still holds the claims' results, and each is taken out of it
        if batch:
            station.settler.release(batch, station.settler.answered(settlement, settled))
            for running in batch:
                if _goes_back(running):
                    # `ended` has done this already, but a look may have passed the job before its end was written.
                    station.claimer.returned(running)
            if settlement.returns:
                station.claimer.wake()  # some jobs of the batch wait again, due now or later
        if asked:
            station.apart = False
            self._refusals.reset()
        before = station.executor.claimed
        station.claimer.took(asked, claimed)
        station.claimed(station.executor.claimed - before)
        if asked and not station.claimer.knows_tasks:
            async with asyncio.timeout(QUERY_TIMEOUT):
                known = await find_tasks(wire.connection, station.tasks, schema=station.schema)
            station.claimer.know_tasks(known)

    async def _refused(self, error: psycopg.Error, batch: list[HeldJob], asked: Asked) -> None:
        """Find out which part of a turn the database refused, one part at a time; nothing of the turn took effect."""
        station = self._station
        if batch and asked:
            station.apart = True
            return
        station.apart = False
        if batch:
            try:
                async with station.hot.line(self._line) as wire:
                    await station.settler.write_one_by_one(wire, station.settler.take())
            except ConnectionLostError:
                raise
            except (
                psycopg.Error
            ) as again:  # refused was what `line` does before it gives the line out, such as to look for strays
                await self._pause("what must come before a settlement was refused", again)
            else:
                station.claimer.wake()
            return
        if not isinstance(error, _OTHERS_LOCKS):
            station.claimer.forget()
        await self._pause("a claim was refused", error)

    async def _pause(self, what: str, error: psycopg.Error) -> None:
        """Wait after a refusal, longer each time. Refusals are logged now and then, except those by others' locks."""
        if not isinstance(error, _OTHERS_LOCKS):
            level = logging.ERROR if self._refusals.level() == logging.WARNING else logging.DEBUG
            logger.log(level, "%s: %s", what, said(error))
        # A stop is no reason to ask again at once: after a lost answer, the worker stops only once it has another.
        await self._refusals.wait(self._station.hot.give_up if self._stopping.is_set() else self._stopping)


def _goes_back(running: HeldJob) -> bool:
    """Whether a job waits again as before its attempt, so that looks must not pass it by."""
    ending = running.ending
    return ending is not COMPLETED and ending is not None and ending.goes_back
