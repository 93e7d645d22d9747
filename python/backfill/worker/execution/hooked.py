"""Runs attempts with the interceptors of a worker's plugins around them, and tells observers of jobs.

A worker whose plugins have no callback of a job's events has none of this, and its attempts take the way that they take
without plugins. Interceptors run in the attempt's own task: those of BeforeJobRun before its handler, those of
AfterJobRun once it has returned or raised. What they say becomes an `Answered` error, which the executor takes for the
attempt's end. Nobody is asked after an attempt that the worker gave up, whose job was cancelled, or that its handler
put off or discarded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from typing import Any, Final

from backfill.hooks.answers import CONTINUE, AfterJobRun, BeforeJobRun, Continue, Fail, HookResult
from backfill.hooks.events import JobFetch, JobStart
from backfill.hooks.registry import answer_of, name_of
from backfill.logs import fields_of
from backfill.records import Job
from backfill.tasks import Task
from backfill.worker.execution.endings import Answered
from backfill.worker.execution.forks import ForkGuard
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.interrupts import ctrl_c_in
from backfill.worker.execution.outcomes import Outcomes
from backfill.worker.execution.verdict import Verdict, judge
from backfill.worker.execution.worker_hooks import WorkerHooks

logger = logging.getLogger(__name__)

LONGEST_AFTER: Final = 60.0
"""Seconds that the interceptors of AfterJobRun may take together; then the attempt ends as if nobody was asked."""


class Hooked:
    """Runs the attempts of a worker with its interceptors around them.

    Args:
        hooks: the callbacks of the worker's plugins.
        worker_id: the worker's id.
        outcomes: makes the endings that interceptors decide.
        guard: tells whether this process is the worker's own, since nobody is asked in a child that a handler forked.
        interrupted: called with a KeyboardInterrupt that an interceptor raised, where it may come from a Ctrl-C.
    """

    def __init__(
        self,
        hooks: WorkerHooks,
        worker_id: str,
        outcomes: Outcomes,
        guard: ForkGuard,
        interrupted: Callable[[KeyboardInterrupt], None],
    ) -> None:
        self._worker_id = worker_id
        self._outcomes = outcomes
        self._guard = guard
        self._interrupted = interrupted
        self._tally = hooks.tally
        self._before = hooks.registry.callbacks(BeforeJobRun)
        self._after = hooks.registry.callbacks(AfterJobRun)
        self._tell = hooks.observers.tell
        self._tells_fetch = hooks.observers.hear(JobFetch)
        self._tells_start = hooks.observers.hear(JobStart)

    def fetched(self, jobs: Collection[Job]) -> None:
        """Tell that jobs were claimed."""
        if self._tells_fetch:
            for job in jobs:
                self._tell(JobFetch(job, self._worker_id))

    def run(
        self, running: HeldJob, task: Task[Any, Any], payload: Any, call: Callable[[], Awaitable[Any]]
    ) -> Awaitable[Any]:
        """Run a handler with the interceptors around it; the result is to be awaited, and is what the handler returns.

        Args:
            running: the attempt.
            task: the job's task.
            payload: the payload, as the handler gets it.
            call: calls the handler.
        """
        if self._before or self._after:
            return self._around(running, task, payload, call)
        if self._tells_start:
            self._tell(JobStart(running.job, self._worker_id))
        return call()

    async def _around(
        self, running: HeldJob, task: Task[Any, Any], payload: Any, call: Callable[[], Awaitable[Any]]
    ) -> Any:
        running.handler_started = False  # a stop need not wait for an attempt whose handler was not let in yet
        if self._before:
            await self._let_in(running, task, payload)
        running.handler_started = True
        if self._tells_start:
            self._tell(JobStart(running.job, self._worker_id))
        began = time.monotonic()
        try:
            value = await call()
        except BaseException as error:
            if self._guard.forked:
                self._guard.leave(error)
            if self._after and running.has_committed:
                await self._ask_too_late(running, AfterJobRun(running.job, self._worker_id, None, _since(began), error))
            verdict = self._failure_of(running, task, error) if self._after else None
            if verdict is not None:
                await self._reconsider(running, task, error, verdict, began)
            raise
        if self._guard.forked:
            self._guard.leave()
        if self._after and not (running.given_up or running.lost):
            event = AfterJobRun(running.job, self._worker_id, value, _since(began))
            if running.has_committed:
                await self._ask_too_late(running, event)
                return value
            answer, name = await self._asked_after(event)
            if isinstance(answer, Fail):
                raise Answered(self._outcomes.refused(running, task, _said(answer, name, AfterJobRun)))
        return value

    async def _let_in(self, running: HeldJob, task: Task[Any, Any], payload: Any) -> None:
        """Ask the interceptors of BeforeJobRun; end the attempt unless all let it run.

        One that fails itself counts as one that said Fail, since a gate that breaks must not open.
        """
        # The executor has set the time limit of async handlers around all this; for synchronous ones it only asks.
        limit = asyncio.timeout(None if task.shape.is_async else running.limits.seconds)
        event = BeforeJobRun(running.job, self._worker_id, payload)
        try:
            async with limit:
                answer, name = await self._asked_before(running, task, event)
        except TimeoutError as error:
            if not limit.expired() or running.given_up:
                raise
            raise Answered(self._outcomes.timed_out(running.job, task, running.limits, error)) from None
        if isinstance(answer, Fail):
            raise Answered(self._outcomes.refused(running, task, _said(answer, name, BeforeJobRun)))
        if not isinstance(answer, Continue):
            raise Answered(self._outcomes.skipped(running.job, f"it was skipped by {name}, a hook of BeforeJobRun"))
        # A callback may have swallowed its cancellation: even then the handler must not start.
        if running.worker_stops or running.given_up or running.cancellation is not None:
            raise asyncio.CancelledError
        if _is_over(running):
            raise Answered(self._outcomes.timed_out(running.job, task, running.limits))

    async def _asked_before(
        self, running: HeldJob, task: Task[Any, Any], event: BeforeJobRun
    ) -> tuple[HookResult, str]:
        for callback in self._before:
            try:
                answer = await answer_of(callback, event)
            except BaseException as error:
                if _is_cancelled(error):
                    if _is_over(running):  # the failure of the attempt names the limit, and this line the callback
                        self._failed(BeforeJobRun, callback, error)
                    raise
                self._failed(BeforeJobRun, callback, error)
                text = f"{name_of(callback)}, a hook of BeforeJobRun, failed"
                raise Answered(self._outcomes.refused(running, task, text, error)) from None
            if not isinstance(answer, Continue):
                return answer, name_of(callback)
        return CONTINUE, ""

    def _failure_of(self, running: HeldJob, task: Task[Any, Any], error: BaseException) -> Verdict | None:
        """The verdict on a plain failure; None where the attempt was given up, or its job is put off or discarded."""
        if running.given_up or running.lost or running.cancellation is not None or running.has_committed:
            return None
        if _is_cancelled(error) and not _is_over(running):
            return None
        verdict = judge(error, task.no_retry)
        return verdict if verdict.snooze is None and verdict.discard is None else None

    async def _reconsider(
        self, running: HeldJob, task: Task[Any, Any], error: BaseException, judged: Verdict, began: float
    ) -> None:
        """Ask the interceptors of AfterJobRun about a failure; return if it stands as it is."""
        late = _is_cancelled(error)
        told = TimeoutError("the attempt ran longer than its time limit") if late else error
        event = AfterJobRun(running.job, self._worker_id, None, _since(began), told)
        answer, name = await self._asked_after(event)
        if isinstance(answer, Fail):
            verdict = Verdict(retryable=False) if late and running.limits.deadline_is_nearer else judged
            said = _said(answer, name, AfterJobRun)
            raise Answered(self._outcomes.refused(running, task, said, told, verdict)) from None
        if not isinstance(answer, Continue):
            reason = f"its failure ({type(told).__qualname__}) counts as a success for {name}, a hook of AfterJobRun"
            raise Answered(self._outcomes.skipped(running.job, reason, ran=True)) from None
        if running.given_up:  # meanwhile; the failure is from before, and counts
            ending = (
                self._outcomes.timed_out(running.job, task, running.limits, error)
                if late
                else self._outcomes.judged(running, error)
            )
            raise Answered(ending) from None

    async def _ask_too_late(self, running: HeldJob, event: AfterJobRun) -> None:
        """Ask the interceptors about a run whose job is completed by its handler's own transaction, which stands."""
        answer, name = await self._asked_after(event)
        if isinstance(answer, Fail):
            logger.warning(
                "job %d (%s): %s, a hook of AfterJobRun, said Fail too late: its own transaction has completed it",
                running.job.id, running.job.task_identifier, name, extra=fields_of(running.job),
            )  # fmt: skip

    async def _asked_after(self, event: AfterJobRun) -> tuple[HookResult, str]:
        """What the interceptors of AfterJobRun say; Continue where one fails, or is cut off by a stop or a time limit.

        The handler has ended, so what came of it counts, whatever happens to the interceptors.
        """
        async with asyncio.timeout(LONGEST_AFTER):
            for callback in self._after:
                try:
                    answer = await answer_of(callback, event)
                except BaseException as error:  # noqa: BLE001 - see above
                    self._failed(AfterJobRun, callback, error)
                    if _is_cancelled(error):
                        break
                    continue
                if not isinstance(answer, Continue):
                    return answer, name_of(callback)
        return CONTINUE, ""

    def _failed(self, event: type[Any], callback: Callable[[Any], Any], error: BaseException) -> None:
        if (found := ctrl_c_in(error)) is not None:
            self._interrupted(found)
        self._tally.failed(event, callback, error)


def _said(answer: Fail, name: str, event: type[Any]) -> str:
    """The text of a failure that an interceptor decided."""
    return f"{answer.message}\nsaid by {name}, a hook of {event.__name__}"


def _since(began: float) -> timedelta:
    return timedelta(seconds=time.monotonic() - began)


def _is_cancelled(error: BaseException) -> bool:
    """Whether an error is the cancellation of this task, and not one that the callback or the handler raised itself."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _is_over(running: HeldJob) -> bool:
    """Whether an attempt has reached its time limit."""
    limit = running.limits.seconds
    return limit is not None and time.monotonic() - running.slot_taken_at >= limit
