"""One post of a fleet: it has a worker process at all times, restarts one that dies, and recycles one that is due."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from backfill.cli.supervise.child import WorkerChild
from backfill.cli.supervise.deaths import WELL_SECONDS, Restarts
from backfill.cli.supervise.report import Report
from backfill.worker.service import wait_for_event

logger = logging.getLogger("backfill.cli.supervise")

FIRST_SECONDS: Final = 10.0
"""How long the first process may take to start until the others are started beside it."""
_NO_ROOM: Final = 127
"""The exit code that stands for a process that the system did not start."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker process is replaced by a new one.

    Attributes:
        jobs: after so many attempts; None for no limit.
        rss: when it has more bytes of memory than this; None for no limit.
    """

    jobs: int | None = None
    rss: int | None = None

    def of_one(self) -> Limits:
        """The limits of one process: up to a tenth fewer attempts, so that not all processes are due at once."""
        if self.jobs is None:
            return self
        return Limits(self.jobs - random.randint(0, self.jobs // 10), self.rss)  # noqa: S311 - spreads, guards nothing

    def reached(self, report: Report) -> str | None:
        """Why a process that reports this has run enough attempts; None if it has not."""
        if self.jobs is None or report.attempts < self.jobs:
            return None
        return f"it has run {report.attempts} attempts"

    def outgrown(self, report: Report) -> str | None:
        """Why a process that reports this has too much memory; None if it has not."""
        if self.rss is None or report.rss <= self.rss:
            return None
        return f"it has {report.rss / 2**20:.0f} MB of memory"


class Fleet(Protocol):
    """What a post needs of the fleet."""

    stopping: asyncio.Event
    """Set when the fleet stops."""
    first: asyncio.Event
    """Set when a worker of the fleet has started for the first time."""
    turn: Post | None
    """The post whose process is being recycled; only one is at a time."""

    def begin(self, number: int, changed: Callable[[], None]) -> WorkerChild:
        """Make a process for a post; it is not started yet."""
        ...

    def see_off(self, child: WorkerChild) -> None:
        """Tell a process to stop, and see to its end."""
        ...

    def mourn(self, child: WorkerChild, code: int, pause: float) -> None:
        """See to what a process that died has left."""
        ...


class Post:
    """Keeps one worker process running.

    Args:
        number: its number, from 1 on.
        fleet: the fleet that it belongs to.
        limits: when a process is replaced.

    Attributes:
        number: its number.
        child: its process; None before the first one, and while it waits for the next.
        restarts: how often a process had to be started again.
        recycled: how often a process was replaced because of the limits.
    """

    def __init__(self, number: int, fleet: Fleet, limits: Limits) -> None:
        self.number = number
        self.child: WorkerChild | None = None
        self.restarts = 0
        self.recycled = 0
        self._fleet = fleet
        self._limits = limits
        self._died, self._grown = Restarts(), Restarts()
        self._patience = 0.0
        self._news = asyncio.Event()

    def look(self) -> None:
        """Look at what there is to do, since something has changed."""
        self._news.set()

    async def keep(self) -> None:
        """Keep a process running until the fleet stops; the last one is seen off then."""
        if self.number > 1:
            await self._wait_for_first()
        while not self._fleet.stopping.is_set():
            child = self.child = self._fleet.begin(self.number, self.look)
            try:
                await child.start()
                logger.info(
                    "worker process %d starts: pid %d", self.number, child.pid,
                    extra={"process_number": self.number, "pid": child.pid},
                )  # fmt: skip
            except OSError as error:
                logger.error(
                    "worker process %d cannot be started: %s", self.number, error, extra={"process_number": self.number}
                )
                child.ended.set_result(_NO_ROOM)
            why = await self._attend(child, self._limits.of_one())
            if child.ended.done() and not self._fleet.stopping.is_set():
                await self._bury(child)
                continue
            if why is not None:
                logger.info(
                    "worker process %d (pid %d) is replaced, since %s", self.number, child.pid, why,
                    extra={"process_number": self.number, "pid": child.pid},
                )  # fmt: skip
                self.recycled += 1
            self.child = None
            self._fleet.see_off(child)

    async def _wait_for_first(self) -> None:
        """Wait until the fleet's first process has started, so that an error of the program is shown once only."""
        deadline = asyncio.ensure_future(self._fleet.first.wait())
        stopping = asyncio.ensure_future(self._fleet.stopping.wait())
        try:
            await asyncio.wait([deadline, stopping], timeout=FIRST_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            deadline.cancel()
            stopping.cancel()

    async def _attend(self, child: WorkerChild, limits: Limits) -> str | None:
        """Wait until the process has ended, the fleet stops, or the process is due; then say why it is due."""
        fleet = self._fleet
        while True:
            self._news.clear()
            if child.started:
                fleet.first.set()
            if fleet.turn is self and (child.started or child.ended.done()):
                fleet.turn = None
            if child.ended.done() or fleet.stopping.is_set():
                return None
            why = self._due(child, limits) if fleet.turn is None else None
            if why is not None:
                fleet.turn = self
                return why
            await self._news.wait()

    def _due(self, child: WorkerChild, limits: Limits) -> str | None:
        """Why a process is to be replaced now; None if it is not.

        If each new process is too large soon after its start, because the limit is too small for the program, the
        pauses between replacements grow, as those between restarts do.
        """
        why = limits.reached(child.report)
        if why is not None or child.seconds < self._patience:
            return why
        why = limits.outgrown(child.report)
        if why is not None:
            lived = child.seconds
            self._patience = self._grown.pause(lived, was_well=False)
            if lived < WELL_SECONDS:
                why += f" only {lived:.1f} s after its start; --max-rss may be too small for this program"
        return why

    async def _bury(self, child: WorkerChild) -> None:
        """See to what a process that died has left, and wait until the next is to be started."""
        code, lived = child.ended.result(), child.seconds
        if child.pid:
            await child.wait()
        pause = self._died.pause(lived, was_well=child.started)
        self.child = None
        self._fleet.mourn(child, code, pause)
        if not await wait_for_event(self._fleet.stopping, pause):
            self.restarts += 1
