"""What the other parts of a session give its executor once they are made: functions to call, and its lease."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from backfill.worker.execution.held_job import HeldJob

LEASE_SECONDS: Final = 0.1
"""The pause between two looks whether the lease is good again; before, nothing is claimed, since it would not start."""


class Wiring:
    """The base of the executor that holds what others set."""

    def __init__(self) -> None:
        self.ended: Callable[[HeldJob], None]
        """Called on the loop, once for each attempt that has ended; it must not block."""
        self.thirsty: Callable[[], None]
        """Called when a lane should be filled up."""
        self.interrupted: Callable[[KeyboardInterrupt], None] = lambda _: None
        """Called with a KeyboardInterrupt that a handler raised, where it may come from a Ctrl-C."""
        self.kept_back: Callable[[], list[HeldJob]] = list
        """Takes out the claimed jobs that may not start yet although a slot may be free, and returns them."""
        self.worker_cancelled: Callable[[], bool] = lambda: False
        """Whether somebody has cancelled the worker's own tasks, as `asyncio.run` does with all tasks at its end."""
        self.batches: frozenset[str] = frozenset()
        """The names of the tasks whose jobs are batches."""
        self.notes_starts = False
        """Whether each attempt notes when its handler began, since somebody wants to know how long handlers take."""
        self.leased_until = math.inf
        """When others may have given this worker up, in monotonic seconds; no job starts later without a renewal."""
        self.renew_lease: Callable[[], float] = lambda: self.leased_until
        """Called when `leased_until` is over; returns its new value."""

    def is_leased(self, now: float) -> bool:
        """Whether the worker still has its jobs for sure, as far as its heartbeats can tell."""
        if now > self.leased_until:
            self.leased_until = self.renew_lease()
        return now <= self.leased_until
