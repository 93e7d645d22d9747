"""The events that observers are told of: each is a frozen dataclass, and its instances are what a callback gets.

They come after the fact, so that an observer can change nothing. Those of an attempt come once its end is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from backfill.records import Job

if TYPE_CHECKING:
    from backfill.cron import Schedule


class ShutdownReason(StrEnum):
    """Why a worker stopped."""

    SIGNAL = "signal"
    """A signal such as SIGTERM, or a Ctrl-C."""
    ERROR = "error"
    """A part of the worker failed, or the code around it raised."""
    GRACEFUL = "graceful"
    """Its program asked it to stop, or no job was left to run."""


class ObservedEvent:
    """The base of all events that observers are told of; it is not an event itself."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class WorkerInit(ObservedEvent):
    """A worker is being started: its database was reached, and its schema is the right one.

    Attributes:
        database: the host, port and name of the database; never the user's password.
        schema: the schema of the queue.
        concurrency: how many jobs the worker runs at once, all lanes together, as it is configured: what operators have
            set for lanes is read later, and may change while it runs.
    """

    database: str
    schema: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class WorkerStart(ObservedEvent):
    """A worker begins to claim jobs. A worker that lost its lease does so again, under a new id.

    Attributes:
        worker_id: the worker's id.
        deps: what the registry's lifespan yielded; None where the registry has no lifespan.
        replaces: the id that the worker had before it lost its lease; None at its first start.
    """

    worker_id: str
    deps: Any = field(default=None, repr=False)
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerShutdown(ObservedEvent):
    """A worker has stopped: all its attempts have ended, and their ends are written. It is the last event.

    Attributes:
        worker_id: the worker's last id.
        reason: why it stopped.
    """

    worker_id: str
    reason: ShutdownReason


@dataclass(frozen=True, slots=True)
class WorkerRecovered(ObservedEvent):
    """Another worker died, and this one recovered the jobs and queues that it held.

    Attributes:
        worker_id: the id of the dead worker.
        host: the host on which it ran; `unknown` where its row was gone.
        pid: the id of its process; 0 where its row was gone.
        by: the id of the worker that recovered it.
        jobs: how many jobs were unlocked; the attempt of each that was cut off counts.
        queues: how many serial queues were unlocked beside those of the jobs.
        dead_letters: how many of the jobs had no attempt left.
        superseded: how many jobs were deleted, since they had been replaced or removed while they ran.
    """

    worker_id: str
    host: str
    pid: int
    by: str
    jobs: int
    queues: int
    dead_letters: int
    superseded: int = 0


@dataclass(frozen=True, slots=True)
class LeaseLost(ObservedEvent):
    """Another worker gave this one up while it lived, since it was paused or cut off from the database.

    Attributes:
        worker_id: the id under which it was given up.
        jobs: how many jobs it held; their handlers are cancelled, and others may have run the jobs since.
    """

    worker_id: str
    jobs: int


class FailReason(StrEnum):
    """What made an attempt fail."""

    ERROR = "error"
    """The handler raised, or its payload could not be read."""
    TIMEOUT = "timeout"
    """The attempt ran longer than its timeout."""
    DEADLINE = "deadline"
    """The deadline of the job was reached, before or during the attempt."""
    HOOK = "hook"
    """An interceptor said so, or an interceptor of BeforeJobRun failed itself."""


class InterruptReason(StrEnum):
    """Why an attempt was interrupted."""

    SHUTDOWN = "shutdown"
    """The worker stopped before the handler had ended; the job went back to the queue."""
    LOST = "lost"
    """The job was not this worker's any more, so that its attempt counts for nothing here."""


@dataclass(frozen=True, slots=True)
class JobFetch(ObservedEvent):
    """A worker has claimed a job. It may give the job back before it starts it.

    Attributes:
        job: the row as it was claimed.
        worker_id: the worker's id.
    """

    job: Job
    worker_id: str


@dataclass(frozen=True, slots=True)
class JobStart(ObservedEvent):
    """The handler of a job starts, since every interceptor of BeforeJobRun let it.

    Attributes:
        job: the row as it was claimed.
        worker_id: the worker's id.
    """

    job: Job
    worker_id: str


@dataclass(frozen=True, slots=True)
class JobComplete(ObservedEvent):
    """A job is done: its attempt ended without failure, or an interceptor skipped it. Its row is deleted.

    Attributes:
        job: the row as it was claimed.
        worker_id: the worker's id.
        duration: how long the attempt ran; zero where an interceptor of BeforeJobRun skipped the job.
    """

    job: Job
    worker_id: str
    duration: timedelta


@dataclass(frozen=True, slots=True)
class JobFail(ObservedEvent):
    """An attempt failed, and the job has attempts left. The failure is stored.

    Attributes:
        job: the row as it was claimed.
        worker_id: the worker's id.
        error: the text of the failure, as the job's `last_error` has it.
        will_retry: whether another attempt follows. It is true; a failure without another attempt is a
            `JobPermanentlyFail`.
        reason: what made the attempt fail.
        duration: how long the attempt ran.
        items: of a batch of which a part failed, the places of these items in the payload of `job`; else None.
    """

    job: Job
    worker_id: str
    error: str
    will_retry: bool
    reason: FailReason = FailReason.ERROR
    duration: timedelta = timedelta(0)
    items: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class JobPermanentlyFail(ObservedEvent):
    """An attempt failed, and no other one follows: the job is a dead letter. It comes in the place of `JobFail`.

    Attributes:
        job: the row as it was claimed.
        worker_id: the worker's id.
        error: the text of the failure, as the dead letter has it.
        reason: what made the attempt fail.
        duration: how long the attempt ran.
        items: of a batch of which a part failed, the places of these items in the payload of `job`; else None.
    """

    job: Job
    worker_id: str
    error: str
    reason: FailReason = FailReason.ERROR
    duration: timedelta = timedelta(0)
    items: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class JobDiscarded(ObservedEvent):
    """The handler ended its job for good, without failure, by raising `Discard`. Its row is deleted.

    Attributes:
        job: the row as it was claimed.
        worker_id: the worker's id.
        reason: the reason that the handler gave; empty where it gave none.
        duration: how long the attempt ran.
    """

    job: Job
    worker_id: str
    reason: str
    duration: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class JobSnoozed(ObservedEvent):
    """The handler put its job off by raising `Snooze`. The attempt does not count.

    Attributes:
        job: the row as it was claimed.
        worker_id: the worker's id.
        delay: for how long the job is put off.
        duration: how long the attempt ran.
    """

    job: Job
    worker_id: str
    delay: timedelta
    duration: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class JobInterrupted(ObservedEvent):
    """An attempt that had started was cut off: the worker stopped, or the job was not this worker's any more.

    Attributes:
        job: the row as it was claimed.
        worker_id: the worker's id.
        reason: why it was cut off.
        duration: how long the attempt ran.
    """

    job: Job
    worker_id: str
    reason: InterruptReason
    duration: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class JobCancelled(ObservedEvent):
    """A running job was cancelled by a request, and will not run again.

    Attributes:
        job: the row as it was claimed.
        worker_id: the worker's id.
        reason: the reason that the request gave; None where it gave none.
        duration: how long the attempt ran.
    """

    job: Job
    worker_id: str
    reason: str | None
    duration: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class CronTick(ObservedEvent):
    """Runs of recurring jobs are due, and this worker is about to enqueue them.

    Each worker that schedules tells of it, also if another worker enqueues the runs first.

    Attributes:
        timestamp: the database's time.
        schedules: the items of which runs are due.
        worker_id: the worker's id.
    """

    timestamp: datetime
    schedules: tuple[Schedule, ...]
    worker_id: str


@dataclass(frozen=True, slots=True)
class CronJobScheduled(ObservedEvent):
    """This worker has enqueued the job of a run of a recurring job. It is not told of runs that were made up for.

    Attributes:
        schedule: the item.
        scheduled_at: the run. The job itself may begin later, by the item's jitter.
        job_id: the job's id.
        worker_id: the worker's id.
    """

    schedule: Schedule
    scheduled_at: datetime
    job_id: int
    worker_id: str


OBSERVED: Final[tuple[type[ObservedEvent], ...]] = (
    WorkerInit,
    WorkerStart,
    WorkerShutdown,
    WorkerRecovered,
    LeaseLost,
    JobFetch,
    JobStart,
    JobComplete,
    JobFail,
    JobPermanentlyFail,
    JobDiscarded,
    JobSnoozed,
    JobInterrupted,
    JobCancelled,
    CronTick,
    CronJobScheduled,
)
"""The events that observers are told of."""
