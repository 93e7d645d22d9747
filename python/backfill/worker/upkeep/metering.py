"""Metering: what a worker tells the metrics of its process, once for each batch of claimed or settled jobs.

It does nothing before somebody wants metrics, so a worker whose metrics nobody reads spends nothing on them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from backfill.hooks.events import FailReason
from backfill.metrics.books import Count, Entry, Metrics, Values, process_metrics
from backfill.metrics.catalogue import (
    ATTEMPTS,
    CLAIM_SIZE,
    DLQ_ADDED,
    LOOP_LAG,
    RECONNECTS,
    RUN_TIME,
    SETTLE_LAG,
    SLOTS_FREE,
    SLOTS_USED,
    WAIT_TIME,
    WORKER_ACTIVE,
    band_of,
    queue_label,
)
from backfill.metrics.snapshot import Labels
from backfill.records import PG_EPOCH
from backfill.storage.attempts import Attempt
from backfill.worker.execution.endings import COMPLETED, Failed, was_last
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.lane import Lane
from backfill.worker.liveness.health import Pulse

_OUTCOMES: Final = {
    "done": "completed",
    "snoozed": "snoozed",
    "discarded": "discarded",
    "given_back": "given_back",
}
"""The outcomes by the counters' names; a failure is `retried` or `dead`."""
_EPOCH: Final = PG_EPOCH.timestamp()
_OVER_TIME: Final = {FailReason.TIMEOUT, FailReason.DEADLINE}


class Metering:
    """Counts the attempts of one session for the metrics; it is one of the settler's listeners.

    Args:
        to_database: returns the database's clock less this process's monotonic clock, in seconds.
        metrics: the books to write in; those of this process if not given.
    """

    def __init__(self, to_database: Callable[[], float], metrics: Metrics | None = None) -> None:
        self._to_database = to_database
        self._metrics = metrics or process_metrics()

    def settled(self, batch: Sequence[HeldJob], missing: Collection[Attempt]) -> None:
        """Count a batch of attempts whose ends are written."""
        if not self._metrics.wanted:
            return
        if missing:
            batch = [running for running in batch if running not in missing]
        if not batch:
            return
        now = time.monotonic()
        ahead = self._to_database()
        entries: list[Entry] = [Values(SETTLE_LAG, (), [now - running.ended for running in batch])]
        for (task, priority), group in _by_kind(batch).items():
            entries += _of_one_kind((task, band_of(priority)), group, ahead)
        self._metrics.add(entries)

    def claimed(self, count: int) -> None:
        """Count a claim that brought jobs."""
        if self._metrics.wanted and count:
            self._metrics.add([Values(CLAIM_SIZE, (), [float(count)])])

    def reconnected(self) -> None:
        """Count a connection that was lost and is made again."""
        if self._metrics.wanted:
            self._metrics.add([Count(RECONNECTS, (), 1)])


def watch_worker(
    lanes: Callable[[], Iterable[Lane]], pulse: Pulse, metrics: Metrics | None = None
) -> Callable[[], None]:
    """Show a running worker's gauges from now on; return what ends it.

    Args:
        lanes: returns the lanes that the worker has now; called in any thread.
        pulse: what is known about the worker's health.
        metrics: the books to show them in; those of this process if not given.
    """
    books = metrics or process_metrics()

    def used() -> Mapping[Labels, float]:
        return {(lane.config.name,): float(max(lane.concurrency - lane.free, 0)) for lane in lanes()}

    def free() -> Mapping[Labels, float]:
        return {(lane.config.name,): float(max(lane.free, 0)) for lane in lanes()}

    ends = [
        books.watch(WORKER_ACTIVE, lambda: {("worker",): 1.0}),
        books.watch(LOOP_LAG, lambda: {(): max(time.monotonic() - pulse.turned, 0.0)}),
        books.watch(SLOTS_USED, used),
        books.watch(SLOTS_FREE, free),
    ]

    def end() -> None:
        for one in ends:
            one()

    return end


def _by_kind(batch: Sequence[HeldJob]) -> dict[tuple[str, int], list[HeldJob]]:
    """The attempts by task and priority."""
    kinds = [(running.job.task_identifier, running.job.priority) for running in batch]
    if kinds.count(kinds[0]) == len(kinds):
        return {kinds[0]: list(batch)}
    groups: dict[tuple[str, int], list[HeldJob]] = {kind: [] for kind in kinds}
    for kind, running in zip(kinds, batch, strict=True):
        groups[kind].append(running)
    return groups


def _of_one_kind(labels: Labels, group: list[HeldJob], ahead: float) -> list[Entry]:
    entries: list[Entry] = []
    endings = [running.ending for running in group]
    done = endings.count(COMPLETED)
    if done:
        entries.append(Count(ATTEMPTS, (*labels, "completed"), done))
    if done < len(group):
        for running in group:
            if running.ending is not COMPLETED:
                entries += _other(labels, running)
        group = [running for running in group if running.ending is not None and not running.ending.undone]
    if group:
        entries.append(Values(RUN_TIME, labels, [running.ended - running.slot_taken_at for running in group]))
        entries.append(Values(WAIT_TIME, labels, [_waited(running, ahead) for running in group]))
    return entries


def _waited(running: HeldJob, ahead: float) -> float:
    """For how many seconds a job was both due and there before its slot was taken."""
    job = running.job
    due = max(job.run_at_micros, job.created_at_micros)
    return max(running.slot_taken_at + ahead - due / 1_000_000 - _EPOCH, 0.0)


def _other(labels: Labels, running: HeldJob) -> list[Entry]:
    """Count an attempt that has not simply completed."""
    ending = running.ending
    assert ending is not None  # noqa: S101 - what is settled has ended
    if not isinstance(ending, Failed):
        return [Count(ATTEMPTS, (*labels, _OUTCOMES[ending.counted]), 1)]
    if not was_last(running, ending):
        return [Count(ATTEMPTS, (*labels, "retried"), 1)]
    reason = "unknown" if ending.raised is None else ending.raised.kind
    if ending.reason in _OVER_TIME:
        reason = "timeout"
    dead = Count(DLQ_ADDED, (queue_label(running.job.queue_name), running.job.task_identifier, reason), 1)
    return [Count(ATTEMPTS, (*labels, "dead"), 1), dead]
