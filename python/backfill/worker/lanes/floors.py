"""The floors of a lane: for each priority, the run_at at which its next look begins.

Jobs that ran leave dead rows before that place until they are vacuumed. A look that began there would read all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from backfill.records import Job
from backfill.storage.claims import NEVER, Look
from backfill.storage.serial_floors import SLACK_MICROS

NAMED_LEVELS: Final = (-20, -10, -5, 0, 5, 10)
_MOST_LEVELS: Final = 100


class Floors:
    """The floors of the priorities that a lane has seen; without one a look at the priority begins at its first row.

    Attributes:
        levels: a run_at for each known priority, in PostgreSQL's microseconds.
    """

    __slots__ = ("_seen", "levels")

    def __init__(self) -> None:
        self.levels: dict[int, int] = dict.fromkeys(NAMED_LEVELS, NEVER)
        self._seen: dict[int, float] = {}

    def at(self, priority: int) -> int:
        """The floor of a priority."""
        return self.levels.get(priority, NEVER)

    def none(self) -> dict[int, int]:
        """The known priorities without their floors, for a look from the start."""
        return dict.fromkeys(self.levels, NEVER)

    def know(self, levels: Iterable[int], now: float) -> None:
        """Note the priorities that waiting jobs have.

        The hundred priorities that were seen last keep their floors, and the six with names always have one. Without a
        floor each look would read the dead rows of all jobs that the priority ever had.
        """
        self._seen.update(dict.fromkeys(list(levels)[:_MOST_LEVELS], now))
        newest = sorted(self._seen, key=self._seen.__getitem__, reverse=True)[:_MOST_LEVELS]
        self._seen = {level: self._seen[level] for level in newest}
        found = dict.fromkeys((*NAMED_LEVELS, *self._seen), NEVER)
        self.levels = {level: self.at(level) for level in found}

    def meet(self, jobs: Sequence[Job], now: float) -> None:
        """Make floors for the priorities of claimed jobs: all may be claimed before the priorities are asked for."""
        if not jobs:
            return
        first, last = jobs[0].priority, jobs[-1].priority
        for level in (first,) if first == last else {job.priority for job in jobs}:
            if level in self._seen or (level not in self.levels and len(self._seen) < _MOST_LEVELS):
                self._seen[level] = now
                self.levels.setdefault(level, NEVER)

    def move(self, look: Look, jobs: Sequence[Job], clock: int | None) -> None:
        """Note where a look ended: as far as it could see, nothing is left before that place."""
        if look.tie is not None and len(jobs) < look.wanted:
            return  # it has seen only some of the jobs
        ended_at = jobs[0].locked_at_micros if jobs else clock
        if ended_at is None:
            return
        if look.window and clock is not None:
            ended_at = min(ended_at, clock)  # its jobs have the time at which the look ended, not what it could see
        swept = ended_at - SLACK_MICROS
        if len(jobs) < look.wanted:
            self.levels = {level: max(floor, swept) for level, floor in self.levels.items()}
            return
        last = next((job for job in reversed(jobs) if job.job_queue_id is None), None)
        if last is None:
            return
        for level, floor in self.levels.items():
            if level < last.priority:
                self.levels[level] = max(floor, swept)
            elif level == last.priority:
                ended = min(last.run_at_micros, swept)  # an older job may be committed a little later than this one
                self.levels[level] = ended if look.full else max(floor, ended)

    def lower(self, job: Job) -> None:
        """Begin at a job that waits again as before, where it lies before its priority's floor."""
        if job.run_at_micros < self.at(job.priority):
            self.levels[job.priority] = job.run_at_micros

    def raise_to(self, floors: Mapping[int, int]) -> None:
        """Begin no earlier than at these floors."""
        for level, floor in floors.items():
            self.levels[level] = max(floor, self.at(level))

    def forget(self) -> None:
        """Begin at the start again."""
        self.levels = self.none()
