"""A window: the claim of short jobs that one open transaction holds by the locks of their rows alone.

It knows which of its jobs run, have ended, or have not begun, and so what its end has to write. It does not talk to the
database: the express line that opened it does that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NoReturn

from backfill.storage.claim_kinds import LostClaimError
from backfill.worker.execution.endings import COMPLETED
from backfill.worker.execution.held_job import HeldJob

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from backfill.storage.attempts import Attempt
    from backfill.storage.claim_kinds import Lock
    from backfill.storage.wire import Parameter
    from backfill.worker.lanes.lane import Lane

OLDEST: Final = 4
"""Nothing starts in a window that is open for more than this many times its length."""


class _State(Enum):
    OPEN = auto()
    CLOSING = auto()
    """What it has to write is decided, and may be under way."""
    CLOSED = auto()
    BROKEN = auto()
    """Its transaction is lost, and others may run its jobs."""


@dataclass(slots=True)
class WindowEnd:
    """What the end of a window does with its jobs.

    Attributes:
        completed: those whose handlers returned: their rows are deleted.
        claimed: those that run on, or have ended otherwise: they are claimed, and go on after the window.
        let_go: those that have not run, or go back as they were: nothing is written of them.
    """

    completed: list[HeldJob] = field(default_factory=list)
    claimed: list[HeldJob] = field(default_factory=list)
    let_go: list[HeldJob] = field(default_factory=list)


class Window:
    """One open window.

    Args:
        results: what its looks gave.
        length: after how many seconds it is to end, whatever still runs.
        alive: says whether the connection of its transaction is still open, as far as the socket can tell.
        ring: called when it should be ended now.
        lost: called with each attempt that ends after the window was broken.

    Attributes:
        opened: when its jobs were found, in monotonic seconds.
        express: the jobs that run within it.
        fresh_until: until when its jobs may start without a question, in monotonic seconds.
        ordinary: jobs that its look has found and that do not belong into a window: they are claimed with its end, and
            start after it.
        results: what its looks gave.
    """

    def __init__(
        self,
        results: Sequence[PGresult],
        *,
        length: float,
        alive: Callable[[], bool],
        ring: Callable[[], None],
        lost: Callable[[HeldJob], None],
    ) -> None:
        self.opened = time.monotonic()
        self.fresh_until = self.opened + length
        self.express: list[HeldJob] = []
        self.ordinary: list[tuple[Lane, list[HeldJob]]] = []
        self.results = results
        self._length = length
        self._alive = alive
        self._ring = ring
        self._lost = lost
        self._left = 0
        self._state = _State.OPEN
        self._asked = False
        self._closed: asyncio.Future[None] | None = None

    @property
    def in_row(self) -> bool:
        """False: the rows of its jobs say nothing of the claim."""
        return False

    @property
    def ends_at(self) -> float:
        """When it is to end, in monotonic seconds."""
        return self.opened + self._length

    @property
    def share(self) -> float:
        """Which share of its time has passed."""
        return (time.monotonic() - self.opened) / self._length

    @property
    def is_over(self) -> bool:
        """Whether it should be ended now: all of its jobs have ended, or somebody asked, or the time is over."""
        return self._left <= 0 or self._asked or self.is_broken or time.monotonic() >= self.ends_at

    @property
    def is_ending(self) -> bool:
        """Whether its end is under way, so that it may take effect whatever becomes of the connection."""
        return self._state is _State.CLOSING

    @property
    def is_broken(self) -> bool:
        """Whether its transaction is lost."""
        return self._state is _State.BROKEN

    def shorten(self, length: float) -> None:
        """End it after fewer seconds, since jobs wait for its end."""
        self._length = min(self._length, length)

    def hold(self, claimed: list[HeldJob]) -> None:
        """Take in jobs that run within it."""
        self.express += claimed
        self._left += sum(running.ending is None for running in claimed)

    def may_start(self) -> bool:
        """Whether a job of it may start now.

        A process that was stopped may hold nothing any more. So it looks at the socket before it starts anything in an
        old window, and in one that is much older it starts nothing.
        """
        if self._state is not _State.OPEN:
            return False
        age = time.monotonic() - self.opened
        return age <= self._length or (age <= OLDEST * self._length and self._alive())

    def ended(self, running: HeldJob) -> None:
        """Take note that the attempt of one of its jobs has ended."""
        self._left -= 1
        if self._state is _State.BROKEN:
            self._lost(running)
        elif self._left <= 0 and self._state is _State.OPEN:
            self._ring()

    def ask_for_row(self) -> None:
        """End the window soon: then the claims of all jobs that still run are in their rows."""
        if not self._asked:
            self._asked = True
            self._ring()

    async def enter_row(self) -> None:
        """End the window, and wait until the claims of all jobs that still run are in their rows.

        Raises:
            LostClaimError: the window is lost, and others may run its jobs.
        """
        self.ask_for_row()
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
            if self._state in {_State.CLOSED, _State.BROKEN}:
                self._closed.set_result(None)
        await asyncio.shield(self._closed)
        if self._state is _State.BROKEN:
            raise LostClaimError("the job's claim was lost before it was written into the job's row")

    def decide(self) -> WindowEnd:
        """Decide what the end does with each job; those that have not begun never will, within this window."""
        self._state, self.fresh_until = _State.CLOSING, 0.0
        end = WindowEnd()
        for running in self.express:
            ending = running.ending
            if ending is COMPLETED:
                end.completed.append(running)
            elif (ending is None and not running.slot_taken_at) or (ending is not None and ending.goes_back):
                end.let_go.append(running)
            else:
                end.claimed.append(running)
        return end

    def close(self) -> None:
        """Take note that its end is written."""
        self._state = _State.CLOSED
        self._tell()

    def fail(self) -> None:
        """Take note that its transaction is lost."""
        self._state, self.fresh_until = _State.BROKEN, 0.0
        self._tell()

    def forget(self) -> None:
        """Let go of its jobs, which know it: a ring of references would be left to the garbage collector."""
        self.express, self.ordinary, self.results = [], [], ()

    def _tell(self) -> None:
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def statement(self, name: str) -> str:
        """Raise: no statement ends an attempt while its window holds it."""
        self._refuse(name)

    def fences(self, attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
        """Raise: see `statement`."""
        self._refuse(f"the fence of {len(attempts)} attempts")

    def compared(self, attempts: Sequence[Attempt]) -> tuple[Parameter, ...]:
        """Raise: see `statement`."""
        self._refuse(f"the comparison of {len(attempts)} attempts")

    def claimed_at(self, attempt: Attempt) -> int | None:
        """The time of the look that found the job."""
        return attempt.job.locked_at_micros

    def is_held(self, attempt: Attempt, lock: Lock | None) -> bool:  # noqa: ARG002 - its row says nothing
        """Whether its transaction is not lost."""
        return self._state is not _State.BROKEN

    def _refuse(self, what: str) -> NoReturn:
        raise AssertionError(f"{what}: the claim of an open window is not in any row")
