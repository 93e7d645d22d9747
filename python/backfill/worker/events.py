"""What happens to a worker and its fleet that others may want to hear of; all of it goes through `emit`."""

from __future__ import annotations

import logging
from dataclasses import asdict, astuple, dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerRecovered:
    """A worker died, and what it held was recovered.

    Attributes:
        worker_id: of the dead one.
        host: where it ran; `unknown` where its row was gone.
        pid: its process; 0 where its row was gone.
        by: the worker that recovered it.
        jobs: how many jobs were unlocked; each attempt that was cut off counts.
        queues: how many serial queues were unlocked beside theirs.
        dead_letters: how many of the jobs had no attempt left.
        superseded: how many were deleted, since they had been replaced or removed while they ran.
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
class LeaseLost:
    """This worker was given up by another while it lived: it was paused, or cut off.

    Attributes:
        worker_id: as which it was given up.
        jobs: how many it held; their handlers were cancelled, and others may have run them since.
    """

    worker_id: str
    jobs: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What attempts came to.

    Attributes:
        done: how many ended without failure; those that their handlers discarded are among them.
        failed: how many failed.
        put_off: how many were put off by their handlers.
        given_back: how many jobs went back, begun or not.
    """

    done: int = 0
    failed: int = 0
    put_off: int = 0
    given_back: int = 0

    def __add__(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """This worker has ended: the last that is heard of it.

    Attributes:
        worker_id: its last id.
        seconds: how long it ran.
        tally: what its attempts came to, under all of its ids.
        left: how many jobs stay locked, since the database did not take their ends.
    """

    worker_id: str
    seconds: float
    tally: Tally
    left: int


Event = WorkerRecovered | LeaseLost | WorkerStopped


def emit(event: Event) -> None:
    """Tell of an event: in the log."""
    match event:
        case WorkerRecovered():
            logger.warning(
                "worker %s (%s, process %d) died: its locks on %d jobs and %d queues are released, %d became dead letters, "
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
                extra={"worker_id": event.worker_id, "seconds": round(event.seconds, 3), **asdict(tally), "left": event.left},
            )  # fmt: skip
        case LeaseLost():
            logger.error(
                "worker %s was given up by the others: its %d jobs are cancelled, and may have been run by others since",
                event.worker_id, event.jobs, extra=asdict(event),
            )  # fmt: skip
