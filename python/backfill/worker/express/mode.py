"""Decides which lanes give their parallel jobs to windows, how many jobs a window takes, and which jobs run in one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from backfill.flags import OWN_PREFIX
from backfill.records import Job
from backfill.worker.lanes.lane import Lane

if TYPE_CHECKING:
    from backfill.worker.express.proofs import Proofs

logger = logging.getLogger(__name__)

LARGEST_WINDOW: Final = 500
MOST_WORKERS: Final = 4
"""In a larger fleet no windows are opened: a claim passes over all rows that others hold, which costs it more than an
ordinary claim writes."""
_SMALLEST: Final = 8
_EASY: Final = 0.4
"""The next windows take twice as many jobs after one that took less than this share of its time."""
REST_SECONDS: Final = 5.0
"""For how many seconds no window is opened after the database refused one."""
_OTHERS_SHARE: Final = 0.5
_OTHERS_REST: Final = 1.0
_WEIGHT: Final = 1 / 4


class ExpressMode:
    """Says for each lane of a worker whether windows take its parallel jobs.

    Args:
        lanes: the lanes.
        proofs: which tasks are proven in this process.
        fleet: returns how many live workers know a task that this worker knows, this worker included.
        changed: called when a lane begins or ceases to give its jobs to windows.
        allowed: called with whether the worker may open windows at all.

    Attributes:
        opens: whether windows take the jobs of any lane now.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        proofs: Proofs,
        *,
        fleet: Callable[[], int],
        changed: Callable[[], None],
        allowed: Callable[[bool], None],
    ) -> None:
        self._lanes = lanes
        self._proofs = proofs
        self._fleet = fleet
        self._changed = changed
        self._allowed = allowed
        self.opens = False
        self._size = LARGEST_WINDOW
        self._refused = False
        self._rests_until = 0.0
        self._others: dict[Lane, float] = {}
        self._others_until: dict[Lane, float] = {}

    @property
    def most(self) -> int:
        """How many jobs a window takes at most: fewer in a larger fleet, since others pass over those that it holds."""
        return max(min(self._size, LARGEST_WINDOW // max(self._fleet() - 1, 1)), 1)

    def ran(self, held: int, let_go: int, *, share: float) -> None:
        """Take note of how a window ended: if jobs did not begin before its end, the next ones take fewer.

        Args:
            held: how many jobs ran within it, or were to run.
            let_go: how many of them did not begin.
            share: which share of its time it took.
        """
        if let_go:
            self._size = max((held - let_go) // 2, _SMALLEST)
        elif held >= self._size and share < _EASY:
            self._size = min(2 * self._size, LARGEST_WINDOW)

    def refuse(self, why: str) -> None:
        """Open no windows any more."""
        if not self._refused:
            self._refused = True
            logger.info("express tasks run the ordinary way: %s", why)
        self.look()

    def rest(self) -> None:
        """Open no windows for a while, since the database refused one."""
        self._rests_until = time.monotonic() + REST_SECONDS
        self.look()

    def look(self) -> None:
        """Find out for each lane whether windows take its jobs now."""
        now = time.monotonic()
        allowed = not self._refused and self._fleet() <= MOST_WORKERS
        self._allowed(allowed)
        on = allowed and now >= self._rests_until
        for lane in self._lanes:
            windows = on and self._suits(lane, now)
            if windows is not lane.windows:
                lane.windows = windows
                lane.hungry = lane.serial_hungry = True
                self._changed()
        self.opens = any(lane.windows for lane in self._lanes)

    def _suits(self, lane: Lane, now: float) -> bool:
        if lane.ordered or not lane.claim.takes_parallel or now < self._others_until.get(lane, 0.0):
            return False
        return not self._proofs.proven.isdisjoint(lane.claim.tasks)

    def runs_in_window(self, job: Job) -> bool:
        """Whether a job that a window holds runs within it; the others are claimed with the window's end."""
        return (
            job.task_identifier in self._proofs.proven
            and job.attempts == 1
            and job.key is None
            and job.readable
            and (not job.has_orders or not any(flag.startswith(OWN_PREFIX) for flag in job.flags))
        )

    def note(self, lane: Lane, *, express: int, ordinary: int) -> None:
        """Take note of what a look has found. Where most jobs are ordinary ones, windows only hold these up."""
        share = self._others.get(lane, 0.0)
        share += (ordinary / (express + ordinary) - share) * _WEIGHT
        self._others[lane] = share
        if share > _OTHERS_SHARE:
            self._others[lane] = 0.0
            self._others_until[lane] = time.monotonic() + _OTHERS_REST
            self.look()
