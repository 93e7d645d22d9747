"""What an attempt came to: a failure and when the next one follows, a delay, an end, or a result that is kept.

The executor asks for it whenever a handler has raised or returned what must be kept. All that the log says of one attempt is
said here.
"""

from __future__ import annotations

import logging
from typing import Any

from backfill.payloads import encode_result
from backfill.records import Job
from backfill.retry import RetryPolicy
from backfill.tasks import Task, TaskRegistry
from backfill.worker.failures import cleansed, describe
from backfill.worker.policy import AttemptLimits, delay_of, retry_policy_of
from backfill.worker.running import Discarded, Ending, Failed, Kept, Snoozed
from backfill.worker.verdict import Verdict, judge

logger = logging.getLogger(__name__)


class Outcomes:
    """Says what attempts came to.

    Args:
        registry: the tasks.
        retry: whose delays jobs wait that have no policy of their own nor of their task.
    """

    def __init__(self, registry: TaskRegistry[Any], retry: RetryPolicy | None) -> None:
        self._registry = registry
        self._retry = retry

    def kept(self, job: Job, value: Any) -> Kept:
        """What is kept of a handler's result. It has done its work: one that is no JSON costs no other attempt."""
        try:
            return Kept(encode_result(value))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a value's own code may fail in any way, and nothing here can be cancelled
            kind = type(error.__cause__ or error).__name__
            logger.warning(
                "job %d (%s): its result cannot be kept: %s", job.id, job.task_identifier, kind, extra=_extra(job)
            )
            return Kept(None, cleansed(f"its result cannot be kept\n{describe(error)}"))

    def judged(self, job: Job, error: BaseException) -> Ending:
        """What becomes of a job whose handler raised: it may have been put off or ended without failure."""
        task = self._registry.get(job.task_identifier)
        verdict = judge(error, () if task is None else task.no_retry)
        if verdict.snooze is not None:
            logger.debug("job %d (%s) is put off for %s", job.id, job.task_identifier, verdict.snooze)
            return Snoozed(verdict.snooze.total_seconds())
        if verdict.discard is not None:
            logger.info(
                "job %d (%s) is discarded by its handler: %s", job.id, job.task_identifier, verdict.discard,
                extra=_extra(job),
            )  # fmt: skip
            return Discarded(verdict.discard)
        return self.failure(job, task, error, verdict)

    def failure(
        self, job: Job, task: Task[Any, Any] | None, error: BaseException, verdict: Verdict | None = None
    ) -> Failed:
        """A failed attempt, and what its error's class says of the next."""
        if verdict is None:
            verdict = judge(error, () if task is None else task.no_retry)
        wait = verdict.retry_after
        delay = wait.total_seconds() if wait is not None else self._delay(job, task)
        return self.failed(job, describe(error), final=not verdict.retryable, delay=delay)

    def timed_out(self, job: Job, task: Task[Any, Any], limits: AttemptLimits) -> Failed:
        """An attempt that was cut off by its timeout or by its job's deadline."""
        if limits.deadline_is_nearer:
            return self.failed(job, "TimeoutError: the job's deadline was reached", final=True)
        text = f"the attempt ran longer than its timeout of {limits.timeout}"
        return self.failure(job, task, TimeoutError(text))

    def _delay(self, job: Job, task: Task[Any, Any] | None) -> float | None:
        """Seconds until the next attempt by a policy; None where there is none, or no next attempt."""
        if not job.readable or job.attempts >= job.max_attempts:
            return None
        policy = retry_policy_of(job, task, self._retry)
        return None if policy is None else delay_of(policy, job.attempts)

    def failed(self, job: Job, text: str, *, final: bool = False, delay: float | None = None) -> Failed:
        """A failed attempt, which is told in the log."""
        last = final or job.attempts >= job.max_attempts
        extra = _extra(job)
        then = ": it was the last" if last else "" if delay is None else f": the next begins in {delay:,.1f} s"
        logger.warning(
            "job %d (%s) failed in attempt %d of %d%s",
            job.id, job.task_identifier, job.attempts, job.max_attempts, then, extra=extra,
        )  # fmt: skip
        logger.debug("job %d: %s", job.id, text, extra=extra)
        return Failed(cleansed(text), final, delay)


def _extra(job: Job) -> dict[str, Any]:
    return {"job_id": job.id, "task": job.task_identifier, "attempt": job.attempts}
