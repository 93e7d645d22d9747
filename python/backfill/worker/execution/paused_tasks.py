"""Keeps the jobs of paused tasks from starting, also those that a worker has claimed already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backfill.worker.execution.draining import cancel
from backfill.worker.execution.held_job import HeldJob

if TYPE_CHECKING:
    from backfill.worker.execution.executor import Executor


class PausedTasks:
    """Gives back held jobs of paused tasks whose handlers have not begun; handlers that run, run on.

    Args:
        executor: holds the jobs.
        undo: gives back a job that never took a slot.

    Attributes:
        names: the paused tasks.
    """

    def __init__(self, executor: Executor, undo: Callable[[HeldJob], None]) -> None:
        self._executor = executor
        self._undo = undo
        self.names = frozenset[str]()

    def replace(self, names: frozenset[str]) -> None:
        """Let these tasks be paused, and no others.

        Their jobs that are ready, or kept back for an earlier handler, go back. So does an attempt whose handler has
        not begun, such as one that waits for an interceptor.
        """
        self.names = names
        if not names:
            return
        held = self._executor.held
        for lane in held.lanes:
            ready = list(lane.ready)
            lane.ready.clear()
            lane.ready.extend(self.sift(ready))
        for running in self._executor.stragglers.return_parked(self.concern):
            self._undo(running)
        for running in list(held.values()):
            if running.ending is None and not running.handler_started and self.concern(running):
                if running.withdraw():
                    self._undo(running)
                else:
                    cancel(running)

    def add(self, names: frozenset[str]) -> None:
        """Let these tasks be paused, and no others; only the jobs of those go back that were not paused before."""
        added = names - self.names
        if added:
            self.replace(added)
        self.names = names

    def concern(self, running: HeldJob) -> bool:
        """Whether a job's task is paused."""
        return running.job.task_identifier in self.names

    def sift(self, waiting: list[HeldJob]) -> list[HeldJob]:
        """Give back those of some waiting jobs whose tasks are paused; return the others."""
        if not self.names:
            return waiting
        others = list[HeldJob]()
        for running in waiting:
            if self.concern(running):
                self._undo(running)
            else:
                others.append(running)
        return others
