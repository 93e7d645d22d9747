"""The catalogue: every instrument with its name, unit, labels and meaning.

What OpenTelemetry and Prometheus are told, and the tables of docs/metrics.md, are made from this one list.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

TASK: Final = "task"
OTHER: Final = "other"
"""The task that stands for all tasks beyond the first `MOST_TASKS`."""
MOST_TASKS: Final = 200
"""How many tasks have series of their own."""
SECONDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
)
AGES: Final = (60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0)
SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
"""The upper bounds of buckets; a value that equals a bound is in the bucket below it."""
_BANDS: Final = (
    (-20, "emergency"),
    (-10, "fast_high"),
    (-1, "fast_default"),
    (0, "bulk_default"),
    (5, "bulk_low"),
    (10, "bulk_lowest"),
)
PARALLEL: Final = "parallel"
SERIAL: Final = "serial"


class Kind(Enum):
    """What an instrument measures, and so how the values of several processes become one."""

    COUNTER = "counter"
    """Only grows; the values of processes are added up, and those of processes that have ended stay."""
    SUM = "sum"
    """Goes up and down; the values of the processes that run now are added up."""
    LARGEST = "largest"
    """Goes up and down; the largest value of the processes that run now counts."""
    NEWEST = "newest"
    """Is set now and then; the value that was set last counts, also where its process has ended."""
    HISTOGRAM = "histogram"
    """Counts values by buckets; added up like a counter."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One instrument.

    Attributes:
        name: its name for OpenTelemetry.
        kind: what it measures.
        unit: its unit by UCUM, as OpenTelemetry wants it; empty where the name says the unit.
        labels: the names of its labels, in the order in which values are given.
        description: what it measures, in one sentence.
        bounds: the upper bounds of a histogram's buckets; the last bucket has none.
    """

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    description: str
    bounds: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """The name as exporters for Prometheus print it."""
        plain = self.name.replace(".", "_")
        unit = {"s": "seconds"}.get(self.unit, "")
        if unit and not plain.endswith(unit):
            plain = f"{plain}_{unit}"
        return f"{plain}_total" if self.kind is Kind.COUNTER else plain


def _counter(name: str, description: str, *labels: str, unit: str = "") -> Instrument:
    return Instrument(name, Kind.COUNTER, unit, labels, description)


def _gauge(name: str, kind: Kind, description: str, *labels: str, unit: str = "") -> Instrument:
    return Instrument(name, kind, unit, labels, description)


def _histogram(
    name: str, description: str, *labels: str, unit: str = "s", bounds: tuple[float, ...] = SECONDS
) -> Instrument:
    return Instrument(name, Kind.HISTOGRAM, unit, labels, description, bounds)


_JOB: Final = ("queue", TASK, "priority_band")
JOBS_ENQUEUED: Final = _counter("backfill_jobs_enqueued", "Jobs that were added or replaced.", *_JOB)
ALREADY_IN_PROGRESS: Final = _counter(
    "backfill_jobs_already_in_progress",
    "Calls of enqueue that left the job with the same key as it was, since it was running.",
    "queue", TASK,
)  # fmt: skip
DLQ_ADDED: Final = _counter("backfill_dlq_jobs_added", "Jobs that became dead letters.", "queue", TASK, "reason")
DLQ_REQUEUED: Final = _counter("backfill_dlq_jobs_requeued", "Dead letters whose jobs were added again.", TASK, "queue")
DLQ_DELETED: Final = _counter("backfill_dlq_jobs_deleted", "Dead letters that were deleted.", TASK)
DLQ_SIZE: Final = _gauge(
    "backfill_dlq_size",
    Kind.NEWEST,
    "Dead letters: all, where the task is empty, and those of the ten tasks that have most.",
    TASK,
)
DLQ_AGE: Final = _histogram(
    "backfill_dlq_age_seconds", "How long ago the dead letters failed that were read.", TASK, bounds=AGES
)
WORKER_ACTIVE: Final = _gauge("backfill_worker_active", Kind.SUM, "Workers that run.", "queue")
DB_OPERATIONS: Final = _counter(
    "backfill_db_operations", "Calls that added jobs or dead letters.", "operation", "status"
)
DB_DURATION: Final = _histogram(
    "backfill_db_operation_duration_seconds", "How long calls took that added jobs or dead letters.", "operation"
)
QUEUES_RELEASED: Final = _counter("backfill_cleanup_queue_locks_released", "Stale locks of queues that were released.")
JOBS_RELEASED: Final = _counter("backfill_cleanup_job_locks_released", "Stale locks of jobs that were released.")
FAILED_MOVED: Final = _counter(
    "backfill_cleanup_failed_jobs_deleted",
    "Jobs that other programs had failed for good, and that were moved to the dead letters.",
)
QUEUES_LAST: Final = _gauge(
    "backfill_cleanup_queue_locks_last_released", Kind.NEWEST, "Locks of queues released by the last cleanup with any."
)
JOBS_LAST: Final = _gauge(
    "backfill_cleanup_job_locks_last_released", Kind.NEWEST, "Locks of jobs released by the last cleanup with any."
)
CLEANUP_FAILURES: Final = _counter("backfill_cleanup_failures", "Cleanups that failed.", "operation", "error_type")
CLEANUP_SUCCESS: Final = _gauge(
    "backfill_cleanup_last_success_timestamp", Kind.NEWEST, "When a cleanup last succeeded, in Unix seconds."
)

ATTEMPTS: Final = _counter(
    "backfill.job.attempts", "Attempts whose ends were written.", TASK, "priority_band", "outcome", unit="{attempt}"
)
RUN_TIME: Final = _histogram("backfill.job.run.duration", "How long attempts ran.", TASK, "priority_band")
WAIT_TIME: Final = _histogram(
    "backfill.job.wait.duration", "How long jobs were due before their attempts started.", TASK, "priority_band"
)
CLAIM_SIZE: Final = _histogram("backfill.claim.size", "How many jobs a claim brought.", unit="{job}", bounds=SIZES)
SETTLE_LAG: Final = _histogram("backfill.settle.lag", "How long ended attempts waited until their ends were written.")
LOOP_LAG: Final = _gauge("backfill.loop.lag", Kind.LARGEST, "How long ago a worker's event loop turned last.", unit="s")
SLOTS_USED: Final = _gauge("backfill.lane.slots.used", Kind.SUM, "Slots in which attempts run.", "lane", unit="{slot}")
SLOTS_FREE: Final = _gauge(
    "backfill.lane.slots.free", Kind.SUM, "Slots in which no attempt runs.", "lane", unit="{slot}"
)
RECONNECTS: Final = _counter(
    "backfill.reconnects",
    "Connections by which workers take jobs, or hear of them, that were lost and made again.",
    unit="{connection}",
)
RECOVERIES: Final = _counter("backfill.recoveries", "Dead workers that were recovered.", unit="{worker}")
DEPTH: Final = _gauge(
    "backfill.queue.depth", Kind.SUM, "Jobs in the queue, as one worker of the fleet sees them.",
    "state", TASK, unit="{job}",
)  # fmt: skip
OLDEST_DUE: Final = _gauge(
    "backfill.queue.oldest.due.age", Kind.LARGEST, "For how long the oldest due job has been due.", unit="s"
)
UNKNOWN_JOBS: Final = _gauge(
    "backfill.queue.unknown.jobs", Kind.LARGEST,
    "Due jobs whose task no live worker knows, as one worker of the fleet sees them.", TASK, unit="{job}",
)  # fmt: skip
OLDEST_SNAPSHOT: Final = _gauge(
    "backfill.database.oldest.snapshot.age",
    Kind.LARGEST,
    "For how long the transaction has been open that keeps PostgreSQL from removing dead rows.",
    unit="s",
)

INSTRUMENTS: Final[tuple[Instrument, ...]] = (
    JOBS_ENQUEUED, ALREADY_IN_PROGRESS, DLQ_ADDED, DLQ_REQUEUED, DLQ_DELETED, DLQ_SIZE, DLQ_AGE, WORKER_ACTIVE,
    DB_OPERATIONS, DB_DURATION, QUEUES_RELEASED, JOBS_RELEASED, FAILED_MOVED, QUEUES_LAST, JOBS_LAST, CLEANUP_FAILURES,
    CLEANUP_SUCCESS, ATTEMPTS, RUN_TIME, WAIT_TIME, CLAIM_SIZE, SETTLE_LAG, LOOP_LAG, SLOTS_USED, SLOTS_FREE,
    RECONNECTS, RECOVERIES, DEPTH, OLDEST_DUE, UNKNOWN_JOBS, OLDEST_SNAPSHOT,
)  # fmt: skip
"""All instruments, those of the Rust crate first, under its names."""
BY_NAME: Final = {one.name: one for one in INSTRUMENTS}


def band_of(priority: int) -> str:
    """The band of a priority, by the bounds of the Rust crate: `emergency` up to -20, and so on to `bulk_lowest`."""
    return next((name for most, name in _BANDS if priority <= most), OTHER)


def queue_label(queue: str | None) -> str:
    """The label of a job's queue: whether it is serial. The queue's name is left out, since there may be many."""
    return SERIAL if queue else PARALLEL
