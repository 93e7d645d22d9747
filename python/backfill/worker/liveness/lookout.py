"""The lookout: takes in what a worker's looks around find out about the other workers, and about the worker itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backfill.storage.workers import Around
from backfill.worker.liveness.failure_detector import FailureDetector
from backfill.worker.liveness.neighbour_watch import NeighbourWatch


class Lookout:
    """Judges the other workers by their heartbeats, and tells which of them are on this machine.

    Args:
        worker: this worker's id.
        dead_after: seconds without a heartbeat after which this worker is dead, and so are others whose rows do not
            name a dead time of their own.
        dead: called with the dead workers and those that were given up already, each with its last heartbeat.
        watch: looks at the processes of the workers on this machine; None where there is no need to.
    """

    def __init__(
        self,
        worker: str,
        *,
        dead_after: float,
        dead: Callable[[Mapping[str, int]], None],
        watch: NeighbourWatch | None = None,
    ) -> None:
        self._worker = worker
        self._detector = FailureDetector(worker, dead_after=dead_after)
        self._dead = dead
        self._watch = watch

    def parameters(self) -> tuple[str, str, str | None]:
        """What the statement of a look around needs to know of this worker."""
        surroundings = None if self._watch is None else self._watch.surroundings
        return self._worker, str(self._detector.dead_after), surroundings

    def forget(self) -> None:
        """Forget what was seen of the heartbeats, since this worker may have missed something."""
        self._detector.forget()

    def take_in(self, around: Around, now: float) -> bool:
        """Take in a look around, which was asked for at this time in monotonic seconds.

        Returns:
            Whether this worker itself is alive for the others; it is not if another worker has given it up.
        """
        if self._worker not in around.heartbeats or self._worker in around.given_up:
            return False
        dead = self._detector.see(around.heartbeats, now, around.dead_after)
        given_up = {worker: around.heartbeats[worker] for worker in around.given_up if worker != self._worker}
        if self._watch is not None:
            self._watch.see(around, now)
        dead = {
            worker: heartbeat for worker, heartbeat in {**dead, **given_up}.items() if not self._is_held_back(worker)
        }
        if dead:
            self._dead(dead)
        return True

    def _is_held_back(self, worker: str) -> bool:
        """Whether a dead worker's jobs must wait for the end of its children, which this worker can see."""
        return self._watch is not None and self._watch.held_back(worker)
