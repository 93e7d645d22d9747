"""The horizon of a lane: where its next look at the queue begins, and which looks it can afford.

Jobs that ran leave dead rows at the queue's front until they are vacuumed, and a transaction that is held open keeps all of
them there; jobs that other workers must run, and blocked serial ones, can lie there by the million. So a look begins, priority
by priority, where the last one ended (its floor), and looks from the very start only as often as a twentieth of the time
allows. The same holds for the looks at serial queues that found nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from backfill.records import Job
from backfill.storage.claims import NEVER, Look, Spans, Taken

SHARE: Final = 19.0
"""A look that may cost at most a twentieth of the time is repeated after 19 times what it took."""
SLACK_MICROS: Final = 250_000
"""How far behind the claim's time a floor stays: jobs are committed a little after the time that they bear."""
NAMED_LEVELS: Final = (-20, -10, -5, 0, 5, 10)
_MOST_LEVELS: Final = 100
_PRODUCTIVE: Final = 4
"""A look from the queues' side that finds less than a fourth of what was wanted is one that must be afforded."""
_NEAR_SECONDS: Final = 0.002
"""What a look at serial queues costs at least, the claim that merges both kinds included."""


class Horizon:
    """What one lane has learnt of the queue.

    Attributes:
        freed: whether this worker has freed a serial queue since the last look at them.
    """

    __slots__ = ("_era", "_far_at", "_floors", "_full_at", "_hidden", "_near_at", "freed")

    def __init__(self) -> None:
        self._floors: dict[int, int] = dict.fromkeys(NAMED_LEVELS, NEVER)
        self._era = 0
        self._full_at = 0.0
        self._near_at = 0.0
        self._far_at = 0.0
        self._hidden = False
        self.freed = False

    def know(self, levels: Iterable[int]) -> None:
        """Note the priorities that waiting jobs have, apart from the six with names."""
        found = dict.fromkeys((*NAMED_LEVELS, *list(levels)[:_MOST_LEVELS]), NEVER)
        self._floors = {level: self._floors.get(level, NEVER) for level in found}

    def look(self, wanted: int, now: float) -> Look:
        """What a look now should ask for."""
        full = now >= self._full_at
        floors = dict.fromkeys(self._floors, NEVER) if full else self._floors
        near = self.freed or now >= self._near_at
        self.freed = False  # here, since what is freed from now on may not be seen by it
        return Look(
            wanted,
            Spans.of(floors),
            near=near,
            far=near and self._hidden and now >= self._far_at,
            full=full,
            era=self._era,
        )

    def learn(self, look: Look, taken: Taken, *, seconds: float, now: float) -> bool:
        """Take in what a look brought back, and what it cost; whether it leaves nothing that it did not see."""
        if look.full:
            self._full_at = now + SHARE * seconds
        if look.near:
            self._hidden = taken.hidden
            self._near_at = now if taken.queues else now + SHARE * max(taken.near_seconds, _NEAR_SECONDS)
            if look.far and taken.queues * _PRODUCTIVE < look.wanted:
                self._far_at = now + SHARE * taken.far_seconds
        if look.era == self._era:
            self._move_floors(look, taken.jobs)
        if look.full:
            self._era += 1  # what began before this look ended knows less than it
        return look.full and look.near and not self._hidden

    def missed(self, look: Look) -> None:
        """Take in that a look brought nothing: a queue that was freed is still to be looked at."""
        self.freed = self.freed or look.near

    def next_look_at(self) -> float:
        """When a look can be afforded that sees everything."""
        return max(self._full_at, self._near_at, self._far_at if self._hidden else 0.0)

    def reset(self) -> None:
        """Forget the floors: jobs went back to where they were."""
        self._floors = dict.fromkeys(self._floors, NEVER)
        self._full_at = 0.0

    def _move_floors(self, look: Look, jobs: list[Job]) -> None:
        """Note where this look ended: before it there is nothing left, as far as it could see."""
        if not jobs or jobs[0].locked_at_micros is None:
            return
        swept = jobs[0].locked_at_micros - SLACK_MICROS
        if len(jobs) < look.wanted:
            self._floors = {level: max(floor, swept) for level, floor in self._floors.items()}
            return
        last = next((job for job in reversed(jobs) if job.job_queue_id is None), None)
        if last is None:
            return
        for level, floor in self._floors.items():
            if level < last.priority:
                self._floors[level] = max(floor, swept)
            elif level == last.priority:
                ended = min(last.run_at_micros, swept)  # a job a little older may be committed a little later
                self._floors[level] = ended if look.full else max(floor, ended)
