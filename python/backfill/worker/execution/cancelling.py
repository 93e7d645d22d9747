"""Ends the held jobs that somebody has cancelled, and keeps what is needed so that none of them is missed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from backfill.cancels import Cancellation
from backfill.records import Job
from backfill.tasks import TaskRegistry
from backfill.worker.execution.endings import CANCELLED, Ending
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.outcomes import Outcomes

if TYPE_CHECKING:
    from backfill.worker.execution.executor import Executor

FOREVER: Final = 2**63 - 1
"""A time that is later than all others, in the database's microseconds."""


class Cancelling:
    """Ends held jobs that were cancelled.

    Args:
        executor: holds the jobs, hands on those that end before they have started, and knows the stragglers.
        registry: the tasks.
        outcomes: makes the endings and logs them.
        in_threads: the attempts whose handlers run in threads at this moment.

    Attributes:
        looked_at: the database's time, in its microseconds, of the look which of the held jobs were cancelled that
            followed the last news. A job that comes later, and whose claim began before that time, may have been
            cancelled before the look. `FOREVER` while that look is under way.
        look_again: called when such a job comes.
    """

    def __init__(
        self,
        executor: Executor,
        registry: TaskRegistry[Any],
        outcomes: Outcomes,
        in_threads: Collection[HeldJob],
    ) -> None:
        self._executor = executor
        self._registry = registry
        self._outcomes = outcomes
        self._in_threads = in_threads
        self.looked_at = 0
        self.look_again: Callable[[], None] = lambda: None

    @property
    def candidates(self) -> list[int]:
        """The ids of the jobs that may be cancelled: those that have not ended, and were not cancelled before."""
        held = self._executor.held.items()
        return [number for number, running in held if running.ending is None and running.cancellation is None]

    def came(self, jobs: Sequence[Job]) -> None:
        """Take note of jobs that were claimed together: they may have been cancelled before the last look."""
        if jobs and (jobs[0].locked_at_micros or 0) <= self.looked_at:
            self.look_again()

    def instead_of(self, running: HeldJob, ending: Ending) -> Ending:
        """The ending of an attempt that did not complete: `Cancelled` if its job was, whatever else has cut it off."""
        if running.cancellation is None or ending.ends_job or ending is CANCELLED:
            return ending
        return self._outcomes.cancelled(running.job, running.cancellation)

    def cancel(self, number: int, cancellation: Cancellation) -> None:
        """End a job that was cancelled.

        A job that has not started ends at once. An attempt is cancelled, unless the worker has done that already; while
        its handler is in a thread it is asked to end, since nothing can end the thread.

        Args:
            number: the job's id; nothing is done if the job has ended meanwhile.
            cancellation: who asked, and why.
        """
        running = self._executor.held.get(number)
        if running is None or running.ending is not None or running.cancellation is not None:
            return
        running.cancellation = cancellation
        if running.withdraw():
            self.note_keep(running)
            running.ending = self._outcomes.cancelled(running.job, cancellation)
            self._executor.ended(running)
            return
        running.run_out_of_time()
        if running.task is not None:  # else it waits for its earlier handler in this process, and then goes back
            if not running.given_up and running not in self._in_threads:
                running.task.cancel()
            self._executor.stragglers.out_of_time(running)

    def note_keep(self, running: HeldJob) -> None:
        """Note how long the ends of the job's task are kept, for a job that ends before it has started."""
        task = self._registry.get(running.job.task_identifier)
        running.keep = None if task is None else task.keep_seconds
