"""A portion: the shares that one lane of this worker has of one limit, and the claimed jobs that wait for one."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from backfill.worker.execution.endings import GIVEN_BACK
from backfill.worker.lanes.lane import AHEAD_SECONDS
from backfill.worker.limits.share import Share

if TYPE_CHECKING:
    from backfill.worker.execution.held_job import HeldJob
    from backfill.worker.limits.ask_again import AskAgain
    from backfill.worker.limits.pace import Pace

_STALL_SECONDS: Final = 5 * AHEAD_SECONDS


class Portion:
    """What one lane of this worker has of one limit, or of one value of a limit that counts by a payload's field.

    Args:
        pace: how long attempts of the task take.
        again: when its source may ask for shares; a share that falls free is a reason to ask at once.
    """

    __slots__ = ("_idle", "_moved_at", "_pace", "_reserved", "_shares", "_waiting", "again")

    def __init__(self, pace: Pace, again: AskAgain) -> None:
        self.again = again
        self._pace = pace
        self._shares: set[Share] = set()
        self._idle: deque[Share] = deque()
        self._waiting: deque[HeldJob] = deque()
        self._reserved: dict[HeldJob, asyncio.TimerHandle] = {}
        self._moved_at = 0.0

    @property
    def used(self) -> int:
        """How many shares jobs of this worker use or are about to use."""
        return len(self._shares) - len(self._idle)

    @property
    def has_idle(self) -> bool:
        """Whether a share is free for another job: its own has ended, and that end is not being written yet."""
        return bool(self._idle)

    @property
    def waiting(self) -> int:
        """How many claimed jobs wait for a share."""
        return len(self._waiting)

    @property
    def reserved(self) -> int:
        """How many claimed jobs wait for the time at which they may start."""
        return len(self._reserved)

    @property
    def empty(self) -> bool:
        """Whether it has nothing, so that it may be forgotten."""
        return not (self._shares or self._waiting or self._reserved)

    def ahead(self, most: int) -> int:
        """How many more jobs to claim that wait for a share: as many as start within about 50 ms.

        None are asked for while more than half of them wait, and none where attempts are long.

        Args:
            most: the most that may wait.
        """
        if not self.used or time.monotonic() - self._moved_at > _STALL_SECONDS:
            return 0
        target = self._pace.ahead(self.used, most)
        return target - len(self._waiting) if len(self._waiting) <= target // 2 else 0

    def take(self, running: HeldJob, slot: int) -> None:
        """Note a claimed job for which the database has given a share."""
        self._moved_at = time.monotonic()
        self._shares.add(Share(self, running, slot))

    def wait(self, claimed: Iterable[HeldJob]) -> list[HeldJob]:
        """Take in claimed jobs without a share; return those that can start, since shares fell free meanwhile."""
        start = []
        for running in claimed:
            if self._idle:
                self._idle.popleft().pass_on(running)
                start.append(running)
            else:
                running.kept_back = self
                self._waiting.append(running)
        return start

    def ended(self, running: HeldJob, share: Share) -> HeldJob | None:
        """Take note that a job with a share has ended; return the waiting job that starts with it now, if there is one.

        A job that goes back before it has started hands its share to nobody: its lane has no slot, or the worker stops.
        Nor does a job that was lost or that its handler's own transaction has completed: its share ended with its lock.
        """
        started = running.slot_taken_at > 0.0
        self._moved_at = time.monotonic()
        if started:
            self._pace.note(running.ended - running.slot_taken_at)
        if running.lost or running.has_committed or share.over or (not started and running.ending is GIVEN_BACK):
            self.close(share)
            return None
        if not self._waiting:
            self._idle.append(share)
            return None
        following = self._waiting.popleft()
        following.kept_back = None
        share.pass_on(following)
        return following

    def close(self, share: Share) -> None:
        """Take note that no other job may take a share any more."""
        share.over = True
        if share in self._shares:
            self._shares.discard(share)
            if share in self._idle:
                self._idle.remove(share)

    def tighten(self, most: int) -> list[HeldJob]:
        """Let the shares beyond a lowered limit end with their jobs; return the jobs that wait for nothing now."""
        for share in [share for share in self._shares if share.slot > most]:
            self.close(share)
        return [] if self.used else self.withdraw_waiting()

    def reserve(self, running: HeldJob, seconds: float, start: Callable[[HeldJob], None]) -> None:
        """Keep a job back until the time that was reserved for its start."""
        running.kept_back = self
        self._reserved[running] = asyncio.get_running_loop().call_later(seconds, self._due, running, start)

    def withdraw(self, running: HeldJob) -> None:
        """Take out a job that is kept back."""
        running.kept_back = None
        if (timer := self._reserved.pop(running, None)) is not None:
            timer.cancel()
        else:
            self._waiting.remove(running)

    def withdraw_waiting(self) -> list[HeldJob]:
        """Take out the jobs that wait for a share."""
        taken = list(self._waiting)
        for running in taken:
            self.withdraw(running)
        return taken

    def withdraw_all(self) -> list[HeldJob]:
        """Take out all the jobs that are kept back."""
        taken = [*self._waiting, *self._reserved]
        for running in taken:
            self.withdraw(running)
        return taken

    def stalls_at(self) -> float | None:
        """When its jobs will have waited too long for a share, in monotonic seconds; None where none waits.

        They have if no share was given, passed or ended for a while. None are claimed ahead then until one is.
        """
        return self._moved_at + _STALL_SECONDS if self._waiting else None

    def _due(self, running: HeldJob, start: Callable[[HeldJob], None]) -> None:
        del self._reserved[running]
        running.kept_back = None
        start(running)
