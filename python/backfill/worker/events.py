"""The events of a worker and its fleet that others may want to know of; all of them go through `emit`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass

from backfill.classify import UNKNOWN
from backfill.hooks.events import LeaseLost, ObservedEvent, WorkerRecovered
from backfill.metrics.books import Count, process_metrics
from backfill.metrics.catalogue import DLQ_ADDED, OTHER, RECOVERIES

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many attempts ended in each way.

    Attributes:
        done: how many ended without failure; those whose job the handler discarded are among them.
        failed: how many failed.
        put_off: how many ended since the handler put the job off.
        given_back: how many jobs were given back, begun or not.
    """

    done: int = 0
    failed: int = 0
    put_off: int = 0
    given_back: int = 0

    def __add__(self, other: Tally) -> Tally:
        """The sums of both tallies."""
        return Tally(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """This worker has ended; it is its last event.

    Attributes:
        worker_id: its last id.
        seconds: how long it ran.
        tally: how its attempts ended, under all of its ids.
        left: how many jobs stay locked, since the database did not take their ends.
    """

    worker_id: str
    seconds: float
    tally: Tally
    left: int


Event = WorkerRecovered | LeaseLost | WorkerStopped


def emit(event: Event, tell: Callable[[ObservedEvent], None] | None = None, *, complete: bool = True) -> None:
    """Write an event to the log, and tell the observers of plugins of it.

    Args:
        event: the event.
        tell: tells the observers; None where there are none, or where they hear of it from somebody else.
        complete: whether nothing is left of a worker that was recovered. A recovery may take several turns, by several
            processes; the metrics count the worker in the turn that removes its row, which is one turn only.
    """
    if isinstance(event, WorkerRecovered) and (books := process_metrics()).wanted:
        dead = Count(DLQ_ADDED, (OTHER, OTHER, UNKNOWN), event.dead_letters)  # of which tasks, nobody has told
        recovery = Count(RECOVERIES, (), 1)
        books.add([*([recovery] if complete else []), *([dead] if event.dead_letters else [])])
    if tell is not None and isinstance(event, ObservedEvent):
        tell(event)
    match event:
        case WorkerRecovered():
            logger.warning(
                "worker %s (%s, process %d) died: its locks on %d jobs and %d queues are released, %d became dead "
                "letters, "
                "%d had been replaced or removed and are deleted",
                event.worker_id, event.host, event.pid, event.jobs, event.queues, event.dead_letters, event.superseded,
                extra=asdict(event),
            )  # fmt: skip
        case WorkerStopped():
            tally = event.tally
            left = f", {event.left} left locked" if event.left else ""
            logger.info(
                "worker %s stopped after %.1f s: attempts: %d done, %d failed, %d put off, %d given back%s",
                event.worker_id, event.seconds, tally.done, tally.failed, tally.put_off, tally.given_back, left,
                extra={
                    "worker_id": event.worker_id, "seconds": round(event.seconds, 3), **asdict(tally),
                    "left": event.left,
                },
            )  # fmt: skip
        case LeaseLost():
            logger.error(
                "worker %s was given up by the others: its %d jobs are cancelled, and may have been run by others "
                "since",
                event.worker_id, event.jobs, extra=asdict(event),
            )  # fmt: skip
