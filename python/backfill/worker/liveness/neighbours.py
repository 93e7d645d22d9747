"""The neighbours: the other workers on this machine. A neighbour whose processes are gone is dead for certain.

Its jobs are recovered at once then, and not only after its dead time. Which workers are neighbours is read with the
heartbeats, so that it costs no statement of its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import orjson

from backfill.storage.workers import Around
from backfill.worker.liveness.failure_detector import LONGEST_GAP
from backfill.worker.liveness.places import Fate, Place, Process, Surroundings

logger = logging.getLogger(__name__)

_MOST_MISSING: Final = 1000
_CONTRADICTIONS: Final = 2
"""In how many looks a process shows a new heartbeat after it was found to be gone, until that cannot be true.

The last heartbeat of a process that is gone may be seen for the first time in one such look.
"""


@dataclass(slots=True)
class _Neighbour:
    """A worker that runs, or ran, on this machine.

    Attributes:
        said: its place, as its row's JSON.
        place: the same as a value.
        heartbeat: its last heartbeat, as the last look found it.
        since: when this heartbeat was seen first, in monotonic seconds.
        dead_after: the seconds without a heartbeat after which it is dead.
        appeared: whether its row appeared while this worker looked again and again.
        is_seen: whether its process was seen here.
        is_told: whether it was named as gone since the last look.
        is_held_back: whether it was said that its jobs wait for its children.
    """

    said: str
    place: Place
    heartbeat: int
    since: float
    dead_after: float
    appeared: bool
    is_seen: bool = False
    is_told: bool = False
    is_held_back: bool = False


class Neighbours:
    """Remembers the workers on this machine, and names those whose processes are gone.

    A copy of a running virtual machine may have the same host name and the same boot id, although none of its processes
    can be seen from the other copy. So a worker whose process was never seen here, and whose row was there before this
    worker began to look, counts as gone only if it is silent, too. If a process shows new heartbeats although it was
    found to be gone, there is such a copy. From then on only a process that was seen here can be gone.

    Args:
        worker: this worker's id.
        dead_after: the seconds without a heartbeat after which workers are dead whose rows do not say it.
        surroundings: the surroundings of this process; None where they cannot be told, and then there are no
            neighbours.
    """

    def __init__(self, worker: str, *, dead_after: float, surroundings: Surroundings | None) -> None:
        self._worker = worker
        self._dead_after = dead_after
        self._surroundings = surroundings
        self._known: dict[str, _Neighbour] = {}
        self._own: tuple[int | None, float] = None, 0.0
        self._looked: float | None = None
        self._missing: dict[Process, int] = {}
        self._has_copies = False

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._known)

    @property
    def surroundings(self) -> str | None:
        """What the place of a neighbour has in common with this worker's, as JSON; None where it cannot be told."""
        return None if self._surroundings is None else orjson.dumps(self._surroundings.to_json()).decode()

    def see(self, around: Around, now: float) -> bool:
        """Take in a look around.

        Args:
            around: what the look found.
            now: when the look was asked for, in monotonic seconds.

        Returns:
            Whether there are neighbours that were not there before.
        """
        if not around.places and not self._known:  # as on most machines
            self._looked = now
            self._own = around.heartbeats.get(self._worker), now
            return False
        goes_on = self._looked is not None and 0 <= now - self._looked <= LONGEST_GAP
        self._looked = now
        if (own := around.heartbeats.get(self._worker)) != self._own[0]:
            self._own = own, now
        before, self._known = self._known, {}
        news = set[Process]()
        for worker, said in around.places.items():
            old = before.get(worker)
            place = old.place if old is not None and old.said == said else Place.from_text(said)
            if place is None or worker == self._worker:
                continue
            heartbeat = around.heartbeats[worker]
            is_same = old is not None and old.heartbeat == heartbeat
            if not is_same:
                news.add((place.pid, place.started))
            self._known[worker] = _Neighbour(
                said, place, heartbeat,
                since=old.since if old is not None and is_same and goes_on else now,
                dead_after=around.dead_after.get(worker, self._dead_after),
                appeared=goes_on if old is None else old.appeared,
                is_seen=old is not None and old.is_seen,
                is_held_back=old is not None and old.is_held_back,
            )  # fmt: skip
        self._compare(news)
        return not self._known.keys() <= before.keys()

    def gone(self, now: float) -> list[Place]:
        """Look at the neighbours' processes; return the places of those that are gone for certain.

        Each is named once, and once more after each look around that still finds its row.
        """
        found = []
        for neighbour in self._known.values():
            fate = neighbour.place.fate(self._surroundings)
            if fate is Fate.ALIVE:
                neighbour.is_seen = True
            elif fate is Fate.GONE:
                self._note_missing(neighbour)
                if not neighbour.is_told and self._is_certain(neighbour, now):
                    neighbour.is_told = True
                    found.append(neighbour.place)
        return found

    def held_back(self, worker: str) -> bool:
        """Whether a worker's jobs must wait although the worker is dead, since a child that runs one is still there.

        A child dies with its worker, so this lasts for moments, unless the kernel cannot end the child.

        Args:
            worker: the id of a worker that is dead by its heartbeat, or was given up.
        """
        neighbour = self._known.get(worker)
        if neighbour is None or not (orphans := neighbour.place.orphans(self._surroundings)):
            return False
        if not neighbour.is_held_back:
            neighbour.is_held_back = True
            logger.warning(
                "worker %s (process %d) is dead, but child processes that ran its handlers are still there: %s; its "
                "jobs wait until they have ended",
                worker, neighbour.place.pid, ", ".join(map(str, orphans)),
                extra={"dead_worker": worker, "pids": list(orphans)},
            )  # fmt: skip
        return True

    def _is_certain(self, neighbour: _Neighbour, now: float) -> bool:
        if neighbour.is_seen or self._has_copies:
            return neighbour.is_seen
        return neighbour.appeared or self._is_silent(neighbour, now)

    def _is_silent(self, neighbour: _Neighbour, now: float) -> bool:
        """Whether a neighbour has missed heartbeats while this worker looked again and again.

        In the second half of that time a heartbeat of this worker must have come through, since something in the
        database may keep the heartbeats of all workers waiting.
        """
        looks = self._looked is not None and now - self._looked <= LONGEST_GAP
        limit = neighbour.dead_after / 2
        return looks and now - neighbour.since >= limit and self._own[1] - neighbour.since >= limit / 2

    def _note_missing(self, neighbour: _Neighbour) -> None:
        self._missing.setdefault((neighbour.place.pid, neighbour.place.started), 0)
        if len(self._missing) > _MOST_MISSING:
            del self._missing[next(iter(self._missing))]

    def _compare(self, news: set[Process]) -> None:
        """Compare what was found to be gone with the processes that show a new heartbeat or a new worker."""
        for process in news & self._missing.keys():
            self._missing[process] += 1
            if self._missing[process] >= _CONTRADICTIONS and not self._has_copies:
                self._has_copies = True
                logger.warning(
                    "process %d beats, although there is no such process here: another machine has the same host name "
                    "and boot id, as a copy of a virtual machine has; give each a host name of its own, or else some "
                    "dead workers are noticed by their heartbeats only",
                    process[0],
                )
