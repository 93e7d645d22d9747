"""The executor of a worker whose plugins make traces: it has a span begin and end with each attempt.

The span begins in the attempt's own task, before anything else, so that it is current in interceptors, middleware and
the handler, in the thread of a synchronous handler too. It ends when the attempt has ended, before the end is written.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any, Final

from backfill.hooks.tracing import AttemptEnd, AttemptError, AttemptSpan, Outcome, Tracer
from backfill.records import Job
from backfill.tasks import TaskRegistry
from backfill.worker.execution.endings import (
    Cancelled,
    Committed,
    Completed,
    CompletedWithResult,
    Discarded,
    Ending,
    Failed,
    GivenBack,
    Skipped,
    Snoozed,
)
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob

_OUTCOMES: Final[dict[type[Ending], Outcome]] = {
    Completed: Outcome.COMPLETED,
    CompletedWithResult: Outcome.COMPLETED,
    Committed: Outcome.COMPLETED,
    Skipped: Outcome.SKIPPED,
    Discarded: Outcome.DISCARDED,
    Snoozed: Outcome.SNOOZED,
    Cancelled: Outcome.CANCELLED,
    GivenBack: Outcome.INTERRUPTED,
}
"""What attempts come to that did not fail."""


class TracedExecutor(Executor):
    """Runs attempts within spans.

    Args:
        tracer: makes the spans.
        registry: the tasks.
        settings: the other arguments of an executor.
    """

    def __init__(self, tracer: Tracer, registry: TaskRegistry[Any], **settings: Any) -> None:
        super().__init__(registry, **settings)
        self._tracer = tracer
        self._sees = tracer.sees
        self._spans: dict[HeldJob, AttemptSpan] = {}
        self._starter.context.run(tracer.enter)
        self.processes.crossing = tracer.crossing

    # pyright knows the class of an async function's coroutine, which no annotation can name for mypy too.
    def _attempt(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, running: HeldJob
    ) -> Coroutine[Any, Any, None]:
        """The attempt; most of them have no span, and take no step more than without traces."""
        return self._within(running) if self._sees(running.job) else super()._attempt(running)

    async def _within(self, running: HeldJob) -> None:
        """Run an attempt within its span."""
        if (span := self._tracer.attempt(running.job)) is not None:
            self._spans[running] = span
        try:
            await super()._attempt(running)
        finally:
            self._close(running)

    def let_go(self) -> None:
        """Give back the jobs whose handlers still run after a drain, and end their spans: the process may end now."""
        super().let_go()
        for running in list(self._spans):
            self._close(running)

    def _close(self, running: HeldJob) -> None:
        if running.ending is not None and (span := self._spans.pop(running, None)) is not None:
            span.end(end_of(running))


def executor_for(tracer: Tracer | None, registry: TaskRegistry[Any], **settings: Any) -> Executor:
    """Make the executor of a worker; only one whose plugins make traces has anything to do for them."""
    return Executor(registry, **settings) if tracer is None else TracedExecutor(tracer, registry, **settings)


def end_of(running: HeldJob) -> AttemptEnd:
    """How an attempt ended, for its span."""
    ending = running.ending
    assert ending is not None  # noqa: S101 - it has ended
    # Other attempts may have run since it ended, so the time is not that of this call.
    ended = time.time_ns() - int((time.monotonic() - running.ended) * 1e9)
    if isinstance(ending, Failed):
        raised = ending.raised
        error = None if raised is None else AttemptError(raised.error_type, raised.message, raised.traceback)
        return AttemptEnd(_failure(running, running.job, ending), ended, ending.reason.value, error)
    outcome = _OUTCOMES[type(ending)]
    if outcome is Outcome.INTERRUPTED and not running.handler_started:
        outcome = Outcome.RETURNED
    return AttemptEnd(Outcome.LOST if running.lost else outcome, ended)


def _failure(running: HeldJob, job: Job, ending: Failed) -> Outcome:
    if running.lost:
        return Outcome.LOST
    return Outcome.DEAD_LETTER if ending.expects_last(job) else Outcome.RETRIED
