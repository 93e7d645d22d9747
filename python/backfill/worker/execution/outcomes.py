"""Decides how an attempt ended: with a failure and a time for the next, put off, discarded, or with a kept result.

The executor asks whenever a handler has raised, or has returned a result that must be kept. The log lines about the
ends of attempts are written here: they hold the error's class and message, never the payload.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

from backfill.batches import ALL, Left, left_of
from backfill.cancels import Cancellation
from backfill.hooks.events import FailReason
from backfill.logs import RetryTraceback, fields_of
from backfill.payloads import encode_result
from backfill.records import CANCEL_FLAG, Job
from backfill.retry import RetryPolicy
from backfill.said import LONGEST_LINE, named
from backfill.tasks import Task, TaskRegistry
from backfill.worker.events import Tally
from backfill.worker.execution.endings import (
    CANCELLED,
    Cancelled,
    CompletedWithResult,
    Discarded,
    Ending,
    Failed,
    Skipped,
    Snoozed,
    Total,
    is_last,
)
from backfill.worker.execution.failures import Description, cleansed, describe, described_as, frames_of, raised_as
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.interrupts import ctrl_c_in
from backfill.worker.execution.policy import AttemptLimits, delay_of, retry_policy_of
from backfill.worker.execution.verdict import RETRY, Verdict, judge
from backfill.worker.in_child.crossing import ResultInJson, ResultNotInJson

logger = logging.getLogger(__name__)

_FEW_FRAMES: Final = 3
_LONGEST_REASON: Final = 500
Collect: TypeAlias = Callable[[Job, BaseException], None]


class Outcomes:
    """Says how attempts ended, and counts those that did not simply complete.

    Args:
        registry: the tasks.
        retry: the retry policy of jobs that have none of their own and whose task has none.
        traceback: how much of the traceback the log shows for a failure that is tried again.
        collect: called with the job and the error of each failed attempt, for a caller who wants them all at the end.

    Attributes:
        totals: how many attempts that had a slot ended in each way; `COMPLETED` ones are not counted.
    """

    def __init__(
        self,
        registry: TaskRegistry[Any],
        retry: RetryPolicy | None,
        traceback: RetryTraceback = RetryTraceback.NONE,
        collect: Collect | None = None,
    ) -> None:
        self._collect = collect
        self._registry = registry
        self._retry = retry
        self._traceback = traceback
        self.totals: dict[Total, int] = {"done": 0, "failed": 0, "put_off": 0, "given_back": 0}

    def count(self, ending: Ending) -> None:
        """Count the end of an attempt that had a slot."""
        self.totals[ending.total] += 1

    def tally(self, ended: int, unstarted: int) -> Tally:
        """How many attempts ended in each way.

        Args:
            ended: how many attempts ended that had a slot.
            unstarted: how many jobs were given back that never had one.
        """
        failed, put_off, given_back = (self.totals[kind] for kind in ("failed", "put_off", "given_back"))
        return Tally(ended - failed - put_off - given_back, failed, put_off, given_back + unstarted)

    def kept(self, job: Job, value: Any, interrupted: Callable[[KeyboardInterrupt], None]) -> CompletedWithResult:
        """The ending that keeps a handler's result.

        The handler has done its work, so the job is not tried again where the result cannot be encoded as JSON.

        Args:
            job: the job whose handler returned the result.
            value: the result.
            interrupted: called with a KeyboardInterrupt that the encoding raised, where it may come from a Ctrl-C.
        """
        try:
            if isinstance(value, ResultInJson):
                return CompletedWithResult(value.raw)
            if isinstance(value, ResultNotInJson):
                raise value.error
            task = self._registry.get(job.task_identifier)
            return CompletedWithResult(encode_result(value) if task is None else task.encode_result(value))
        except BaseException as error:  # noqa: BLE001 - a value's own code may fail in any way; no await here
            if (found := ctrl_c_in(error)) is not None:
                interrupted(found)
            _tell(logging.WARNING, job, f"its result cannot be kept: {named(error)}")
            return CompletedWithResult(None, cleansed(f"its result cannot be kept\n{describe(error).text}"))

    def judged(self, running: HeldJob, error: BaseException) -> Ending:
        """How an attempt ends whose handler raised: the error may also put the job off, or end it without failure."""
        job = running.job
        task = self._registry.get(job.task_identifier)
        verdict = judge(error, () if task is None else task.no_retry)
        if verdict.snooze is not None:
            snoozed = Snoozed(verdict.snooze.total_seconds())
            _tell(snoozed.level(job), job, f"is put off for {verdict.snooze}")
            return snoozed
        if verdict.discard is not None:
            reason = " ".join(verdict.discard.split())[:_LONGEST_REASON]
            discarded = Discarded(verdict.discard)
            _tell(discarded.level(job), job, f"is discarded by its handler: {reason}")
            return discarded
        return self.failure(job, task, error, verdict, left=_left(running, task, verdict))

    def failure(
        self,
        job: Job,
        task: Task[Any, Any] | None,
        error: BaseException,
        verdict: Verdict | None = None,
        *,
        reason: FailReason = FailReason.ERROR,
        left: Left = ALL,
    ) -> Failed:
        """A failed attempt, with the time of the next as the error's class or a policy says.

        Args:
            job: the job of the attempt.
            task: the job's task; None where this worker has none of that name.
            error: the error that the attempt failed with.
            verdict: the verdict on the error, where that is known already.
            reason: what made the attempt fail.
            left: which items of a batch are left.
        """
        if verdict is None:
            verdict = judge(error, () if task is None else task.no_retry)
        wait = verdict.retry_after
        delay = wait.total_seconds() if wait is not None else self._delay(job, task)
        told = describe(error) if left.mistake is None else described_as(left.mistake, error)
        return self._failed(
            job,
            told,
            error,
            final=not verdict.retryable,
            delay=delay,
            reason=reason,
            said=left.mistake,
            items=left.items,
        )

    def timed_out(
        self, job: Job, task: Task[Any, Any] | None, limits: AttemptLimits, within: BaseException | None = None
    ) -> Failed:
        """An attempt that was cut off by its timeout or by its job's deadline.

        Args:
            job: the job of the attempt.
            task: the job's task.
            limits: the limits of the attempt.
            within: an error whose traceback shows where the attempt stood, for the log and the record of the attempt.
        """
        # The limit's own error was raised in asyncio; its cause is the cancellation, which went through the handler.
        places = [] if within is None else frames_of(within.__cause__ or within)
        if limits.deadline_is_nearer:
            reached = TimeoutError("the job's deadline was reached")
            reached.__cause__ = within
            told = Description(f"TimeoutError: {reached}", raised_as(reached, str(reached), places))
            return self._failed(job, told, reached, final=True, reason=FailReason.DEADLINE)
        error = TimeoutError(f"the attempt ran longer than its timeout of {limits.timeout}")
        verdict = judge(error, () if task is None else task.no_retry)
        told = Description(describe(error).text, raised_as(error, str(error), places))
        error.__cause__ = within
        delay, reason = self._delay(job, task), FailReason.TIMEOUT
        return self._failed(job, told, error, final=not verdict.retryable, delay=delay, reason=reason)

    def overrun(self, job: Job, limits: AttemptLimits) -> None:
        """Log that a synchronous handler is out of time; it goes on, since its thread cannot be ended."""
        limit = "its job's deadline" if limits.deadline_is_nearer else f"its timeout of {limits.timeout}"
        line = f"runs longer than {limit}; its handler is a synchronous one, which ctx.should_stop can only ask to end"
        _tell(logging.WARNING, job, line)

    def at_once(self, job: Job, limits: AttemptLimits) -> Ending | None:
        """The ending of a job that must not begin: it was cancelled, or its deadline is over; None for all others.

        A cancelled job waits only if another program has unlocked it.
        """
        if CANCEL_FLAG in job.flags:
            return self.cancelled(job, None)
        remaining = limits.remaining
        return self._too_late(job) if remaining is not None and remaining.total_seconds() <= 0 else None

    def _too_late(self, job: Job) -> Failed:
        text = "the job's deadline was over before this attempt began"
        late = TimeoutError(text)
        told = Description(text, raised_as(late, text, []))
        return self._failed(job, told, late, final=True, reason=FailReason.DEADLINE)

    def refused(
        self,
        running: HeldJob,
        task: Task[Any, Any] | None,
        said: str,
        error: BaseException | None = None,
        verdict: Verdict = RETRY,
    ) -> Failed:
        """The failure of an attempt that a hook has had fail; the next one comes as a policy says.

        Args:
            running: the attempt.
            task: the job's task.
            said: the text of the failure.
            error: what the hook itself or the handler raised, which the text names too.
            verdict: the verdict on the handler's error; what must not be retried is not, and of a batch the items that
                it names are left.
        """
        job, left = running.job, _left(running, task, verdict)
        wait = verdict.retry_after
        delay = wait.total_seconds() if wait is not None else self._delay(job, task)
        told = described_as(said, error)
        return self._failed(
            job,
            told,
            error,
            final=not verdict.retryable,
            delay=delay,
            reason=FailReason.HOOK,
            said=said,
            items=left.items,
        )

    def skipped(self, job: Job, reason: str, *, ran: bool = False) -> Skipped:
        """The ending of a job that counts as done since a hook says so.

        Args:
            job: the job.
            reason: which hook said so.
            ran: whether the handler ran.
        """
        skipped = Skipped(reason, ran)
        _tell(skipped.level(job), job, f"counts as done: {reason}")
        return skipped

    def cancelled(self, job: Job, cancellation: Cancellation | None) -> Cancelled:
        """The ending of an attempt whose job was cancelled; `cancellation` is None where only its flag is known."""
        if cancellation is None:
            line = "was cancelled before, and does not run"
        else:
            reason = " ".join((cancellation.reason or "no reason given").split())[:_LONGEST_REASON]
            line = f"is cancelled by {cancellation.by}: {reason}"
        _tell(CANCELLED.level(job), job, line)
        return CANCELLED

    def unknown(self, job: Job, error: BaseException, broken: BaseException) -> Failed:
        """The failure of an attempt whose error's own code fails when the error is looked at."""
        text = f"{type(error).__qualname__}: it cannot be looked at ({type(broken).__qualname__})"
        _tell(logging.ERROR, job, f"raised {text}")
        return self._failed(job, described_as(text), None)

    def _delay(self, job: Job, task: Task[Any, Any] | None) -> float | None:
        """Seconds until the next attempt by a policy; None where there is no policy or no next attempt."""
        if not job.readable or is_last(job):
            return None
        policy = retry_policy_of(job, task, self._retry)
        return None if policy is None else delay_of(policy, job.attempts)

    def _noted(self, job: Job, items: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """The items of a batch that are left, in the form in which an ending has them."""
        task = self._registry.get(job.task_identifier)
        return (items or ()) if task is not None and task.shape.batch else None

    def _failed(
        self,
        job: Job,
        told: Description,
        error: BaseException | None,
        *,
        final: bool = False,
        delay: float | None = None,
        reason: FailReason = FailReason.ERROR,
        said: str | None = None,
        items: tuple[int, ...] | None = None,
    ) -> Failed:
        """Make the ending of a failed attempt, and log it.

        The last failure of a job is logged with its error, for programs that collect errors. The line is logged at
        once, also where the database is away, so the worker's own expectation says which failure is the last. The
        counters wait for the answer of the statement that writes the end.
        """
        text = told.text
        failed = Failed(cleansed(text), final, delay, reason, told.raised, items=self._noted(job, items))
        last, level = failed.expects_last(job), failed.level(job)
        why = "it was the last: not to be retried" if final and not is_last(job) else "it was the last"
        then = f" ({why})" if last else "" if delay is None else f" (the next begins in {delay:,.1f} s)"
        if said is None and error is not None:
            said = named(error)
        said = (text if said is None else said).partition("\n")[0][:LONGEST_LINE]
        line = f"failed in attempt {job.attempts} of {job.max_attempts}{then}: {said}"
        if last:
            _tell(level, job, line, error)
        elif self._traceback is RetryTraceback.SHORT and error is not None:
            _tell(level, job, "\n".join([line, *frames_of(error)[-_FEW_FRAMES:]]))
        else:
            _tell(level, job, line, error if self._traceback is RetryTraceback.FULL else None)
        _tell(logging.DEBUG, job, text)
        if self._collect is not None:
            self._collect(job, error if error is not None else RuntimeError(text))
        return failed


def _left(running: HeldJob, task: Task[Any, Any] | None, verdict: Verdict) -> Left:
    """Which items of a batch are left after an attempt on which this is the verdict."""
    if verdict.batch is None:
        return ALL
    is_batch = task is not None and task.shape.batch
    return left_of(running.job, verdict.batch, is_batch=is_batch, in_transaction=running.own is not None)


def _tell(level: int, job: Job, line: str, error: BaseException | None = None) -> None:
    """Log a line about a job.

    Whatever a log handler, a filter or the error's own code raises is suppressed, since the job must still end.
    """
    if not logger.isEnabledFor(level):
        return
    with suppress(Exception):  # there is nowhere left to tell it
        logger.log(
            level, "job %d (%s) %s", job.id, job.task_identifier, line,
            exc_info=error, extra=fields_of(job), stacklevel=2,
        )  # fmt: skip
