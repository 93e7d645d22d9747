"""The failure detector: finds out which other workers are dead, from what this worker itself has seen.

A worker is dead when its heartbeat has been the same for the whole dead time, while this worker looked often enough and
its own heartbeats got through. Whatever breaks this (a lost connection, a pause of this process, a database that does
not answer) starts the dead time again, so no worker is taken for dead because the database is silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

LOOK_SECONDS: Final = 2.0
"""How often the heartbeats are looked at."""
LONGEST_GAP: Final = 3 * LOOK_SECONDS
"""The longest time between two looks, in seconds, after which this worker cannot have missed anything."""


class FailureDetector:
    """Remembers what was seen of the other workers' heartbeats.

    Args:
        worker: this worker's id.
        dead_after: seconds without a heartbeat after which this worker is dead, and so are others whose rows do not
            name a dead time of their own.

    Attributes:
        dead_after: this worker's dead time, in seconds.
    """

    def __init__(self, worker: str, *, dead_after: float) -> None:
        self._worker = worker
        self.dead_after = dead_after
        self._seen: dict[str, tuple[int, float]] = {}
        self._own: tuple[int, float] | None = None
        self._looked: float | None = None

    def forget(self) -> None:
        """Forget what was seen, since this worker may have missed something."""
        self._seen.clear()
        self._own = None
        self._looked = None

    def see(
        self, heartbeats: Mapping[str, int], now: float, dead_after: Mapping[str, float] = MappingProxyType({})
    ) -> dict[str, int]:
        """Take in a look at the heartbeats; return the dead workers, each with its last heartbeat.

        Each worker is judged by its own dead time. Within half of that time this worker's own heartbeat must have been
        seen to change.

        Args:
            heartbeats: the heartbeat of this worker, and those of all workers that have been silent for a while, in
                microseconds.
            now: when the look was asked for, in monotonic seconds.
            dead_after: the dead times, in seconds, of the workers whose rows name one.
        """
        if self._looked is not None and not 0 <= now - self._looked <= LONGEST_GAP:
            self.forget()
        self._looked = now
        own = heartbeats.get(self._worker)
        if own is None:
            self.forget()
            return {}
        if self._own is None or self._own[0] != own:
            self._own = own, now
        elif now - self._own[1] > self.dead_after / 2:
            self.forget()  # this worker's own heartbeats do not get through
            return {}
        others = {worker: heartbeat for worker, heartbeat in heartbeats.items() if worker != self._worker}
        self._seen = {
            worker: seen if (seen := self._seen.get(worker)) is not None and seen[0] == heartbeat else (heartbeat, now)
            for worker, heartbeat in others.items()
        }
        own_since = self._own[1]
        dead = {}
        for worker, (heartbeat, since) in self._seen.items():
            limit = dead_after.get(worker, self.dead_after)
            if now - since >= limit and now - own_since <= limit / 2:
                dead[worker] = heartbeat
        return dead
