"""Metering: what a client tells the metrics of its process of the jobs and dead letters that it adds and deletes.

It does nothing before somebody wants metrics. What is written on a caller's connection is counted when the call
returns, also where the caller's transaction is undone later.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from backfill.classify import UNKNOWN, classify_error_for_metrics
from backfill.metrics.books import Count, Entry, Values, process_metrics
from backfill.metrics.catalogue import (
    ALREADY_IN_PROGRESS,
    CLEANUP_FAILURES,
    CLEANUP_SUCCESS,
    DB_DURATION,
    DB_OPERATIONS,
    DLQ_ADDED,
    DLQ_AGE,
    DLQ_DELETED,
    DLQ_REQUEUED,
    DLQ_SIZE,
    FAILED_MOVED,
    JOBS_ENQUEUED,
    JOBS_LAST,
    JOBS_RELEASED,
    PARALLEL,
    QUEUES_LAST,
    QUEUES_RELEASED,
    SERIAL,
    band_of,
    queue_label,
)

if TYPE_CHECKING:
    from types import TracebackType

    from backfill.client.prepare import JobShape
    from backfill.client.verbs.cleanup import ReleasedLocks
    from backfill.dead_letters import DlqJob, DlqStats
    from backfill.jobs import EnqueueOutcome, EnqueueStatus

_ENQUEUE: Final = "enqueue"
_DLQ_ADD: Final = "dlq_add"
_SUCCESS: Final = "success"
_ERROR: Final = "error"
_IN_PROGRESS: Final = "already_in_progress"
_WRITTEN: Final = {"added", "replaced"}


async def metered(call: Awaitable[EnqueueOutcome[Any]], shape: JobShape) -> EnqueueOutcome[Any]:
    """Wait for a call that adds one job, and count what came of it."""
    if not process_metrics().wanted:
        return await call
    began = time.monotonic()
    try:
        outcome = await call
    except Exception:
        process_metrics().add(_operations(_ENQUEUE, Counter({_ERROR: 1}), began))
        raise
    count_jobs([(shape, outcome.status)], began)
    return outcome


def count_jobs(jobs: Iterable[tuple[JobShape, EnqueueStatus]], began: float) -> None:
    """Count a call that has added jobs, or several that went together.

    Args:
        jobs: the jobs' settings, each with what came of it; not looked at where nobody wants metrics.
        began: when it began, in monotonic seconds.
    """
    if not process_metrics().wanted:
        return
    made = Counter((shape.queue, shape.task, shape.priority, status.value) for shape, status in jobs)
    entries: list[Entry] = []
    spoken = Counter[str]()
    for (queue, task, priority, status), number in made.items():
        spoken[_IN_PROGRESS if status == _IN_PROGRESS else _SUCCESS] += number
        if status in _WRITTEN:
            entries.append(Count(JOBS_ENQUEUED, (queue_label(queue), task, band_of(priority)), number))
        elif status == _IN_PROGRESS:
            entries.append(Count(ALREADY_IN_PROGRESS, (queue_label(queue), task), number))
    process_metrics().add([*entries, *_operations(_ENQUEUE, spoken, began)])


class BulkMeter:
    """Counts one bulk call, which is its block, and the jobs of each transaction of it once that is committed."""

    def __init__(self) -> None:
        self._began = 0.0
        self._read = Counter[tuple[str | None, str, int]]()

    def note(self, shapes: Iterable[JobShape]) -> None:
        """Note jobs that are being written."""
        if process_metrics().wanted:
            self._read.update([(shape.queue, shape.task, shape.priority) for shape in shapes])

    def leave_out(self, shapes: Iterable[JobShape]) -> None:
        """Leave out jobs that were noted and turned out not to be added, because their keys are reserved."""
        if self._read:
            self._read.subtract([(shape.queue, shape.task, shape.priority) for shape in shapes])

    def committed(self) -> None:
        """Count the jobs that were noted, since they are committed, or written in the caller's transaction."""
        read, self._read = self._read, Counter()
        if read := +read:
            process_metrics().add(
                Count(JOBS_ENQUEUED, (queue_label(queue), task, band_of(priority)), number)
                for (queue, task, priority), number in read.items()
            )

    def __enter__(self) -> None:
        """Begin the call."""
        self._began = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count the call, unless it was cancelled."""
        if process_metrics().wanted and (error is None or isinstance(error, Exception)):
            status = _SUCCESS if error is None else _ERROR
            process_metrics().add(_operations(_ENQUEUE, Counter({status: 1}), self._began))


async def metered_dead_letter(call: Awaitable[DlqJob]) -> DlqJob:
    """Wait for a call that adds a dead letter, and count it."""
    began = time.monotonic()
    try:
        entry = await call
    except Exception:
        _add(_operations(_DLQ_ADD, Counter({_ERROR: 1}), began))
        raise
    labels = queue_label(entry.queue_name), entry.task_identifier, UNKNOWN  # the caller's words, which are any text
    _add([Count(DLQ_ADDED, labels, 1), *_operations(_DLQ_ADD, Counter({_SUCCESS: 1}), began)])
    return entry


def count_buried(jobs: Iterable[tuple[str, bool]]) -> None:
    """Count jobs that other programs have failed, each given by its task and whether it is serial, as dead letters."""
    made = Counter((SERIAL if serial else PARALLEL, task, UNKNOWN) for task, serial in jobs)
    _add([Count(DLQ_ADDED, labels, number) for labels, number in made.items()])


def count_requeued(jobs: Iterable[tuple[str, str | None]]) -> None:
    """Count dead letters whose jobs were added again, each given by its task and its queue."""
    made = Counter((task, queue_label(queue)) for task, queue in jobs)
    _add([Count(DLQ_REQUEUED, labels, number) for labels, number in made.items()])


def count_deleted(tasks: Sequence[str]) -> int:
    """Count dead letters that were deleted, each given by its task; return how many there were."""
    _add([Count(DLQ_DELETED, (task,), number) for task, number in Counter(tasks).items()])
    return len(tasks)


def count_read(entries: Iterable[DlqJob]) -> None:
    """Count how old the dead letters are that were read, by this machine's clock."""
    ages, now = dict[str, list[float]](), datetime.now(UTC)
    for entry in entries if process_metrics().wanted else ():
        if entry.failed_at is not None:
            ages.setdefault(entry.task_identifier, []).append(max((now - entry.failed_at).total_seconds(), 0.0))
    _add([Values(DLQ_AGE, (task,), some) for task, some in ages.items()])


def note_size(stats: DlqStats) -> DlqStats:
    """Show how many dead letters there are, since somebody has counted them."""
    if process_metrics().wanted:
        process_metrics().set(DLQ_SIZE, {("",): stats.total_jobs, **{(task,): n for task, n in stats.task_breakdown}})
    return stats


def count_released(released: ReleasedLocks) -> ReleasedLocks:
    """Count what a cleanup has released."""
    books = process_metrics()
    if books.wanted:
        queues, jobs = released.queue_locks, released.job_locks
        books.add([Count(QUEUES_RELEASED, (), queues), Count(JOBS_RELEASED, (), jobs)])
        for instrument, number in ((QUEUES_LAST, queues), (JOBS_LAST, jobs)):
            if number:
                books.set(instrument, {(): number})
        books.set(CLEANUP_SUCCESS, {(): time.time()})
    return released


def count_moved(moved: int) -> int:
    """Count the jobs that other programs have failed for good, and that were moved to the dead letters."""
    _add([Count(FAILED_MOVED, (), moved)] if moved else [])
    return moved


@contextmanager
def counting_failures(*operations: str) -> Iterator[None]:
    """Count a cleanup that fails.

    Args:
        operations: what it cleans up: `queue_locks`, `job_locks` or both.
    """
    try:
        yield
    except Exception as error:
        kind = classify_error_for_metrics(error)
        _add([Count(CLEANUP_FAILURES, (operation, kind), 1) for operation in operations])
        raise


def _operations(operation: str, statuses: Counter[str], began: float) -> list[Entry]:
    """Calls that went together: each with its status, and how long all of them took."""
    seconds = time.monotonic() - began
    counts: list[Entry] = [Count(DB_OPERATIONS, (operation, status), number) for status, number in statuses.items()]
    return [*counts, Values(DB_DURATION, (operation,), [seconds] * statuses.total())]


def _add(entries: list[Entry]) -> None:
    if entries and process_metrics().wanted:
        process_metrics().add(entries)
