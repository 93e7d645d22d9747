"""The tasks of a worker as its lanes claim them: the ids that they have now, and those that no lane takes for a while.

Used by the claimer. A task is left out of a lane's claims as a task without an id is: of the lane's own filter alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from backfill.worker.lanes.lane import Lane

NOTHING: Final[frozenset[str]] = frozenset()


class KnownTasks:
    """The tasks whose jobs the lanes of one worker claim.

    Args:
        tasks: the names of the tasks that the worker knows.
        lanes: its lanes.

    Attributes:
        names: the tasks' names by their ids.
        wanted: whether the ids must be asked for.
        left_out: the tasks that no lane takes now, for any reason.
    """

    __slots__ = ("_count", "_ids", "_lanes", "_reasons", "left_out", "names", "wanted")

    def __init__(self, tasks: Sequence[str], lanes: Sequence[Lane]) -> None:
        self._count = len(tasks)
        self._lanes = lanes
        self._ids: Mapping[str, int] = {}
        self._reasons: dict[str, frozenset[str]] = {}
        self.names: dict[int, str] = {}
        self.wanted = True
        self.left_out = NOTHING

    @property
    def are_complete(self) -> bool:
        """Whether all of the worker's tasks have ids."""
        return len(self.names) >= self._count

    def learn(self, ids: Mapping[str, int]) -> None:
        """Note the ids that tasks have now; where they are others than before, all lanes look from the start."""
        self.wanted = False
        names = {number: name for name, number in ids.items()}
        if names != self.names:
            self.names, self._ids = names, ids
            for lane in self._lanes:
                lane.bind(ids, self.left_out)
                lane.look_anew()

    def leave_out(self, reason: str, tasks: frozenset[str]) -> bool:
        """Leave tasks out for a reason, in the place of those that were left out for this reason before.

        A task is left out as long as there is any reason. Where tasks come back, the lanes that take them look from the
        start, since their floors have passed the jobs of these tasks.

        Args:
            reason: why they are left out, such as "paused"; each reason has tasks of its own.
            tasks: their names.

        Returns:
            Whether there are tasks that come back.
        """
        self._reasons[reason] = tasks
        before, self.left_out = self.left_out, NOTHING.union(*self._reasons.values())
        if self.left_out == before:
            return False
        back = before - self.left_out
        for lane in self._lanes:
            lane.bind(self._ids, self.left_out)
            if not back.isdisjoint(lane.claim.tasks):
                lane.look_anew()
        return bool(back)
