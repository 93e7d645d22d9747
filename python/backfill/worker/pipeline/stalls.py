"""Gives back claimed jobs that wait here for too long, for a slot or for a share, so that other workers have them."""

from __future__ import annotations

from collections.abc import Sequence

from backfill.worker.execution.executor import Executor
from backfill.worker.lanes.lane import Lane
from backfill.worker.limits.sources import Sources


class Stalls:
    """Looks after the claimed jobs of one worker that have not started.

    Args:
        executor: runs the jobs.
        lanes: the lanes, whose ready jobs wait for slots.
        limits: the sources of limited tasks, whose jobs wait for shares.
    """

    def __init__(self, executor: Executor, lanes: Sequence[Lane], limits: Sources) -> None:
        self._executor = executor
        self._lanes = lanes
        self._limits = limits

    def give_way(self, now: float) -> None:
        """Give back the jobs for which no slot or share falls free for too long."""
        for lane in self._lanes:
            if lane.stalled(now):
                lane.slow_down()
                self._executor.undo_all(lane.take_ready())
        if self._limits:
            self._limits.give_way(now)

    def due_in(self, now: float) -> float | None:
        """Seconds until jobs will have waited too long; None where none wait."""
        waits = [lane.stalls_at() - now for lane in self._lanes if lane.ready]
        if self._limits and (wait := self._limits.stall_in(now)) is not None:
            waits.append(wait)
        return min(waits) if waits else None
