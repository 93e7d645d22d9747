"""Keeps jobs of paused serial queues from starting, and has a queue locked again when a settlement unlocks it.

The row of a paused queue is locked in the database, so claims pass it by. But a queue with a running job is only locked
when that job ends, and other programs may unlock a queue at any time. So a worker that knows the paused queues gives
back each of their jobs that it has claimed and not started.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from backfill.worker.execution.draining import cancel
from backfill.worker.execution.held_job import HeldJob

if TYPE_CHECKING:
    from backfill.worker.execution.executor import Executor


class PausedQueues:
    """The serial queues that are paused, as far as this worker knows.

    Args:
        executor: holds the jobs.
        undo: gives back a job that has not started.

    Attributes:
        resumed: called with the ids of queues that are not paused any more.
        look_again: called where what this worker knows may not be true any more.
    """

    def __init__(self, executor: Executor, undo: Callable[[HeldJob], None]) -> None:
        self._executor = executor
        self._undo = undo
        self._ids: Mapping[str, int] = {}
        self.resumed: Callable[[Sequence[int]], None] = lambda _: None
        self.look_again: Callable[[], None] = lambda: None

    def __bool__(self) -> bool:
        """Whether any queue is paused."""
        return bool(self._ids)

    def know(self, queues: Mapping[str, int]) -> None:
        """Note which queues are paused, and give back the jobs of these queues whose handlers have not begun.

        Args:
            queues: the ids of all paused queues, by the queues' names.
        """
        before, self._ids = self._ids, queues
        if queues.keys() - before.keys():
            for lane in self._executor.held.lanes:
                ready = list(lane.ready)
                lane.ready.clear()
                lane.ready.extend(self.sift(ready))
            for running in self._executor.stragglers.return_parked(self._is_paused):
                self._undo(running)
            for running in list(self._executor.held.values()):
                if running.ending is None and not running.handler_started and self._is_paused(running):
                    if running.withdraw():
                        self._undo(running)  # it waits for a share of a limit
                    else:
                        cancel(running)  # it waits for an interceptor
        if over := [number for name, number in before.items() if name not in queues]:
            self.resumed(over)

    def sift(self, claimed: Iterable[HeldJob]) -> list[HeldJob]:
        """Give back those of some claimed jobs whose queues are paused; return the others."""
        free, paused = list[HeldJob](), list[HeldJob]()
        for running in claimed:
            (paused if self._is_paused(running) else free).append(running)
        for running in paused:
            self._undo(running)
        return free

    def unlocked_by(self, batch: Iterable[HeldJob]) -> list[int]:
        """The ids of the paused queues that a settlement of these attempts may unlock."""
        ids = (running.job.job_queue_id for running in batch if self._is_paused(running))
        return list({number for number in ids if number is not None})

    def are_over(self, names: Collection[str]) -> None:
        """Note that the database did not lock these queues again, since they are not paused any more.

        One of them may have been paused once more since then, so what is paused is read again.
        """
        self.know({name: number for name, number in self._ids.items() if name not in names})
        self.look_again()

    def _is_paused(self, running: HeldJob) -> bool:
        return running.job.queue_name in self._ids
