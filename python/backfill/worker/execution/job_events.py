"""Tells observers how attempts ended, once the ends are written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any, Final

from backfill.hooks.events import (
    InterruptReason,
    JobCancelled,
    JobComplete,
    JobDiscarded,
    JobFail,
    JobInterrupted,
    JobPermanentlyFail,
    JobSnoozed,
    ObservedEvent,
)
from backfill.storage.attempts import Attempt
from backfill.worker.execution.endings import (
    COMPLETED,
    Cancelled,
    Committed,
    Completed,
    CompletedWithResult,
    Discarded,
    Failed,
    GivenBack,
    Skipped,
    Snoozed,
    was_last,
)
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.observers import Observers

ENDS: Final = (JobComplete, JobFail, JobPermanentlyFail, JobDiscarded, JobSnoozed, JobInterrupted, JobCancelled)
"""The events that this module makes."""


class JobEvents:
    """One of the settler's listeners: makes one event for each attempt that had begun.

    Args:
        observers: calls the observers.
        worker_id: the worker's id.
    """

    def __init__(self, observers: Observers, worker_id: str) -> None:
        self._tell = observers.tell
        self._worker_id = worker_id
        self._completed = observers.hear(JobComplete)

    def settled(self, batch: Sequence[HeldJob], missing: Collection[Attempt]) -> None:
        """Tell how each attempt of a batch ended."""
        tell, worker = self._tell, self._worker_id
        for running in batch:
            ending = running.ending
            if missing and running in missing:
                event = _interrupted(running, worker, InterruptReason.LOST)
            elif ending is COMPLETED:  # by the shortest way, since most attempts end so
                if self._completed:
                    tell(JobComplete(running.job, worker, timedelta(0, running.ended - running.slot_taken_at)))
                continue
            else:
                event = _MAKERS[type(ending)](running, ending, worker)
            if event is not None:
                tell(event)


def _completed(running: HeldJob, _ending: Any, worker: str) -> ObservedEvent:
    return JobComplete(running.job, worker, _duration(running))


def _skipped(running: HeldJob, ending: Skipped, worker: str) -> ObservedEvent:
    return JobComplete(running.job, worker, _duration(running) if ending.ran else timedelta(0))


def _failed(running: HeldJob, ending: Failed, worker: str) -> ObservedEvent:
    items = ending.items or None
    if was_last(running, ending):
        return JobPermanentlyFail(running.job, worker, ending.error, ending.reason, _duration(running), items)
    return JobFail(running.job, worker, ending.error, True, ending.reason, _duration(running), items)


def _discarded(running: HeldJob, ending: Discarded, worker: str) -> ObservedEvent:
    return JobDiscarded(running.job, worker, ending.reason, _duration(running))


def _cancelled(running: HeldJob, _ending: Any, worker: str) -> ObservedEvent | None:
    """The event of a job that was cancelled; its duration is zero where its handler had not started."""
    reason = None if running.cancellation is None else running.cancellation.reason
    return JobCancelled(running.job, worker, reason, _duration(running) if running.handler_started else timedelta(0))


def _snoozed(running: HeldJob, ending: Snoozed, worker: str) -> ObservedEvent:
    return JobSnoozed(running.job, worker, timedelta(seconds=ending.delay), _duration(running))


def _given_back(running: HeldJob, _ending: Any, worker: str) -> ObservedEvent | None:
    return _interrupted(running, worker, InterruptReason.LOST if running.lost else InterruptReason.SHUTDOWN)


def _interrupted(running: HeldJob, worker: str, reason: InterruptReason) -> ObservedEvent | None:
    """The event of an attempt that was cut off; None where its handler had not started."""
    return JobInterrupted(running.job, worker, reason, _duration(running)) if running.handler_started else None


def _duration(running: HeldJob) -> timedelta:
    return timedelta(seconds=running.ended - running.slot_taken_at)


_MAKERS: Final[dict[type[Any], Callable[[HeldJob, Any, str], ObservedEvent | None]]] = {
    Completed: _completed,
    Committed: _completed,
    CompletedWithResult: _completed,
    Skipped: _skipped,
    Failed: _failed,
    Discarded: _discarded,
    Snoozed: _snoozed,
    Cancelled: _cancelled,
    GivenBack: _given_back,
}
