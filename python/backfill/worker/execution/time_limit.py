"""The time limit of an attempt in a process: its timeout counts from when its child begins, its deadline does not."""

from __future__ import annotations

import asyncio
from typing import Final

from backfill.worker.execution.policy import AttemptLimits

LONGEST_PREPARATION: Final = 60.0
"""How many seconds a child may take to import a handler's module and to enter the lifespan."""


class TimeLimit:
    """The time limit of one attempt. Make it in the attempt's task, and await the attempt within `limit`.

    Args:
        limits: how long the attempt may run.

    Attributes:
        limit: the timeout that cancels the attempt's task.
    """

    def __init__(self, limits: AttemptLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        now = self._loop.time()
        self._deadline = None if limits.remaining is None else now + limits.remaining.total_seconds()
        self.limit = asyncio.timeout_at(self._with_timeout(now))

    def hold(self) -> None:
        """Let only the deadline count from now on, since the attempt waits for a child."""
        self._set(self._deadline)

    def prepare(self) -> None:
        """Let the timeout count only after what the child must do first, which may take `LONGEST_PREPARATION`."""
        self._set(self._with_timeout(self._loop.time() + LONGEST_PREPARATION))

    def begin(self) -> None:
        """Let the whole timeout count from now on, since the child begins."""
        self._set(self._with_timeout(self._loop.time()))

    @property
    def reached(self) -> AttemptLimits:
        """The limit that was reached, alone."""
        if self._deadline is not None and self.limit.when() == self._deadline:
            return AttemptLimits(remaining=self._limits.remaining)
        return AttemptLimits(timeout=self._limits.timeout)

    def _with_timeout(self, begins: float) -> float | None:
        ends = [] if self._limits.timeout is None else [begins + self._limits.timeout.total_seconds()]
        if self._deadline is not None:
            ends.append(self._deadline)
        return min(ends, default=None)

    def _set(self, when: float | None) -> None:
        if not self.limit.expired():
            self.limit.reschedule(when)
