"""Finds what a job's flags and its task say about its attempts: their timeout and deadline, and the delays between."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from backfill._native import backoff_delay
from backfill.errors import ConfigurationError
from backfill.flags import DEADLINE_FLAG, TIMEOUT_FLAG
from backfill.records import Job
from backfill.retry import FLAG_PREFIX, RetryPolicy, parse_duration
from backfill.storage.recovery import CutOff, Next
from backfill.tasks import Task, TaskRegistry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """How long an attempt may run.

    Attributes:
        timeout: the longest time from its start, or None.
        remaining: the time from the claim to the job's deadline, by the database's clock, or None; negative when the
            deadline was over at the claim.
    """

    timeout: timedelta | None = None
    remaining: timedelta | None = None

    @property
    def seconds(self) -> float | None:
        """The shorter of the two limits, in seconds; None where there is no limit."""
        spans = [span.total_seconds() for span in (self.timeout, self.remaining) if span is not None]
        return min(spans) if spans else None

    @property
    def deadline_is_nearer(self) -> bool:
        """Whether it is the deadline that ends the attempt, so that another would be worth nothing."""
        return self.remaining is not None and (self.timeout is None or self.remaining <= self.timeout)


class Flagged(Protocol):
    """A job whose policy can be found: one that was claimed, or one that was cut off by its worker's death."""

    @property
    def id(self) -> int:
        """The job's id."""
        ...

    @property
    def task_identifier(self) -> str:
        """The name of its task."""
        ...

    @property
    def has_orders(self) -> bool:
        """Whether the job has a flag that may tell a worker something."""
        ...

    @property
    def flags(self) -> Sequence[str]:
        """The job's flags."""
        ...


NO_LIMITS: Final = AttemptLimits()


def limits_of(job: Job, task: Task[Any, Any]) -> AttemptLimits:
    """The limits of a claimed job's attempt: those of the job's flags, else those of its task."""
    timeout, deadline = task.timeout, None
    for flag in job.flags:
        try:
            if flag.startswith(TIMEOUT_FLAG):
                timeout = parse_duration(flag.removeprefix(TIMEOUT_FLAG))
            elif flag.startswith(DEADLINE_FLAG):
                deadline = _aware(flag.removeprefix(DEADLINE_FLAG))
        except (ConfigurationError, ValueError) as error:
            logger.warning("job %d (%s): flag %r is ignored: %s", job.id, job.task_identifier, flag, error)
    if deadline is None or job.locked_at is None:
        return NO_LIMITS if timeout is None else AttemptLimits(timeout)
    return AttemptLimits(timeout, deadline - job.locked_at)


def retry_policy_of(job: Flagged, task: Task[Any, Any] | None, default: RetryPolicy | None) -> RetryPolicy | None:
    """The retry policy of a job: its own from its flags, else its task's, else the worker's default.

    A flag that cannot be read is ignored with a warning, and the next source applies. None means the contract's
    schedule.
    """
    if job.has_orders:
        for flag in job.flags:
            if not flag.startswith(FLAG_PREFIX):
                continue
            try:
                return RetryPolicy.from_flag(flag)
            except (ConfigurationError, ValueError) as error:
                logger.warning("job %d (%s): flag %r is ignored: %s", job.id, job.task_identifier, flag, error)
    return default if task is None or task.retry is None else task.retry


def delay_of(policy: RetryPolicy, attempt: int) -> float:
    """Seconds to wait after attempt number `attempt` (from 1) failed, its jitter drawn anew."""
    return backoff_delay(
        max(attempt, 1),
        policy.initial_delay.total_seconds(),
        policy.max_delay.total_seconds(),
        policy.backoff_multiplier,
        policy.jitter_factor,
        random.random(),  # noqa: S311 - spreads retries
    )


def next_of(job: CutOff, registry: TaskRegistry[Any], default: RetryPolicy | None) -> Next:
    """The delay before the next attempt of a job whose worker died, how long its end is kept, and if it is a batch.

    The task's settings are used only where this worker knows the task.
    """
    task = registry.get(job.task_identifier)
    policy = retry_policy_of(job, task, default)
    delay = None if policy is None else delay_of(policy, job.attempts)
    return Next(delay) if task is None else Next(delay, task.keep_seconds, task.shape.batch)


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() is None:
        raise ConfigurationError("a deadline is ISO 8601 with its zone")
    return moment
