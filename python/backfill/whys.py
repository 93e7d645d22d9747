"""What holds a job back, as types: the answer of `BackfillClient.why`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from backfill.controls import Control
from backfill.limits import Limit, Rate


class WhyKind(StrEnum):
    """A kind of reason for which a job does not start, or what became of it."""

    GONE = "gone"
    """The job is not in the queue: it has ended, or it was never there."""
    RUNNING = "running"
    """A worker holds it: it runs, or it is about to."""
    FAILED = "failed"
    """Its attempts are used up: a worker moves it to the dead letters within a minute."""
    NOT_DUE = "not_due"
    """Its time has not come."""
    PAUSED = "paused"
    """An operator has paused its task, its serial queue or everything."""
    BREAKER_OPEN = "breaker_open"
    """The breaker of its task is open, or tries another job of the task at the moment."""
    QUEUE_BUSY = "queue_busy"
    """Its serial queue runs another job."""
    QUEUE_HELD = "queue_held"
    """Its serial queue waits for the retry of another job."""
    QUEUE_BEHIND = "queue_behind"
    """Another job of its serial queue comes first."""
    NO_WORKER = "no_worker"
    """No live worker of this package knows its task."""
    FLAGS = "flags"
    """No live worker of this package that knows its task takes jobs with its flags."""
    LIMIT_FULL = "limit_full"
    """As many jobs run as its task's limit allows."""
    RATE = "rate"
    """Its task's rate allows the next start later."""


@dataclass(frozen=True, slots=True)
class ShareHolder:
    """A job that has a share of a limit.

    Attributes:
        job_id: the job's id.
        worker_id: the worker that holds the job.
        since: since when that worker holds it, by the job's lock, which is renewed from time to time.
    """

    job_id: int
    worker_id: str
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyReason:
    """One reason for which a job does not start, or what became of it.

    Attributes:
        kind: which kind of reason.
        text: the reason as a sentence.
        since: since when it holds; None if that is not known.
        until: when it ends by itself; None if it does not, or if that is not known.
        worker_id: the worker that holds the job, or its queue; None for other reasons.
        job_id: the other job that runs in the queue, that the queue waits for, or that comes first.
        control: what was said to the fleet, for a pause, a breaker, and a limit or rate that an operator has set.
        limit: the limit that is full.
        rate: the rate that is used up.
        holders: jobs that have the limit's shares; the first 20 of them.
    """

    kind: WhyKind
    text: str
    since: datetime | None = None
    until: datetime | None = None
    worker_id: str | None = None
    job_id: int | None = None
    control: Control | None = None
    limit: Limit | None = None
    rate: Rate | None = None
    holders: tuple[ShareHolder, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What holds a job back at one moment; as a text, a line for each reason.

    Attributes:
        job_id: the job's id.
        task: the name of its task; None if the job is gone.
        queue: its serial queue; None if it has none or is gone.
        reasons: all reasons that were found, and none if nothing holds the job back: then it waits for its turn and
            for a free slot of a worker.
        knowing: how many live workers know its task.
        looked_at: when that was so, by the database's clock.
    """

    job_id: int
    task: str | None
    queue: str | None
    reasons: tuple[WhyReason, ...]
    knowing: int
    looked_at: datetime

    @property
    def kinds(self) -> frozenset[WhyKind]:
        """The kinds of all reasons."""
        return frozenset(reason.kind for reason in self.reasons)

    def __iter__(self) -> Iterator[WhyReason]:
        """The reasons."""
        return iter(self.reasons)

    def __str__(self) -> str:
        """A line for each reason, or one that says what the job waits for."""
        if self.reasons:
            return "\n".join(reason.text for reason in self.reasons)
        who = "the worker that knows" if self.knowing == 1 else f"one of the {self.knowing} workers that know"
        return f"job {self.job_id} ({self.task}) is ready: it waits for its turn, and for a free slot of {who} its task"
