"""The horizon of a lane: where its next look at the queue begins, and which looks it can afford.

Jobs that ran leave dead rows at the queue's front until they are vacuumed, and a transaction that is held open keeps all of
them there; jobs that other workers must run, and blocked serial ones, can lie there by the million. So a look begins, priority
by priority, where the last one ended (its floor), and looks from the very start only as often as a twentieth of the time
allows (`full_looks.py`). The same holds for the looks at serial queues that found nothing.

Where blocked serial jobs lie ahead by the thousand, free queues are looked for from the queues' side, which goes through all
that wait. So the free ones that such a look saw are remembered for the next looks to try, and so are those that this worker
frees itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from backfill.records import Job
from backfill.storage.claims import NEVER, Look, Spans, Taken
from backfill.worker.lanes.full_looks import PATIENCE_SECONDS, SHARE, FullLooks

SLACK_MICROS: Final = 250_000
"""How far behind the claim's time a floor stays: jobs are committed a little after the time that they bear."""
NAMED_LEVELS: Final = (-20, -10, -5, 0, 5, 10)
_MOST_LEVELS: Final = 100
_PRODUCTIVE: Final = 4
"""A look from the queues' side that finds less than a fourth of what was wanted is one that must be afforded."""
_MOST_KNOWN: Final = 20_000
_UNDER_WAY: Final = 1.0
"""How long nobody else begins a look from the queues' side while one is under way."""
_FEW: Final = 8
"""How many jobs a look behind the floors asks for at most: where it finds as many, the floors come down to them."""
_NEAR_SECONDS: Final = 0.002
"""What a look at serial queues costs at least, the claim that merges both kinds included."""


class ScanCursor:
    """What one lane has learnt of the queue.

    Args:
        patience: how many seconds pass between two looks from the start where they are dear, at least.
        apart: whether those may be left to the second line.

    Attributes:
        freed: whether this worker has freed a serial queue since the last look at them.
    """

    __slots__ = (
        "_blocked",
        "_era",
        "_far_at",
        "_floors",
        "_full",
        "_hidden",
        "_known",
        "_near_at",
        "_own",
        "_seen",
        "freed",
    )

    def __init__(self, *, patience: float = PATIENCE_SECONDS, apart: bool = True) -> None:
        self._floors: dict[int, int] = dict.fromkeys(NAMED_LEVELS, NEVER)
        self._seen: dict[int, float] = {}
        self._full = FullLooks(patience=patience, apart=apart)
        self._era = 0
        self._near_at = 0.0
        self._far_at = 0.0
        self._hidden = False
        self._blocked = False
        self._known: deque[int] = deque()
        self._own: deque[int] = deque(maxlen=_MOST_KNOWN)
        self.freed = False

    @property
    def floors(self) -> Mapping[int, int]:
        """Where the next look begins: for each priority that is known a run_at, in PostgreSQL's microseconds."""
        return self._floors

    def know(self, levels: Iterable[int], now: float) -> None:
        """Note the priorities that waiting jobs have.

        The hundred that were seen last keep their floors, and the six with names always have one: without it each look
        would read the dead rows of all jobs that the priority ever had.
        """
        self._seen.update(dict.fromkeys(list(levels)[:_MOST_LEVELS], now))
        newest = sorted(self._seen, key=self._seen.__getitem__, reverse=True)[:_MOST_LEVELS]
        self._seen = {level: self._seen[level] for level in newest}
        found = dict.fromkeys((*NAMED_LEVELS, *self._seen), NEVER)
        self._floors = {level: self._floors.get(level, NEVER) for level in found}

    def behind_at(self) -> float | None:
        """When the second line should look behind the floors; None while this lane's other looks do that themselves."""
        return self._full.at if self._full.are_apart else None

    def look_behind(self, room: int, now: float) -> Look:
        """What a look from the start should ask for that is made beside others: few jobs, since they count for no slot."""
        self._full.begin(now)
        wanted = max(min(room // 4, _FEW), 1)
        spans = Spans.of(dict.fromkeys(self._floors, NEVER))
        return Look(wanted, spans, scan_jobs=False, scan_queues=False, era=self._era, behind=True)

    def look(self, wanted: int, now: float) -> Look:
        """What a look now should ask for."""
        full = now >= self._full.at and not self._full.are_apart
        near = now >= self._near_at or (self.freed and not self._blocked)
        far = near and self._hidden and not self._known and now >= self._far_at
        known = () if near else self._take_known(wanted)
        self.freed = False  # here, since what is freed from now on may not be seen by it
        if full:
            self._full.begin(now)
        if far:
            self._far_at = now + _UNDER_WAY
        floors = dict.fromkeys(self._floors, NEVER) if full else self._floors
        return Look(wanted, Spans.of(floors), scan_jobs=near, scan_queues=far, full=full, era=self._era, known=known)

    def learn(self, look: Look, taken: Taken, *, seconds: float, now: float, clock: int | None = None) -> bool:
        """Take in what a look brought back, and what it cost; whether nothing is left that no look saw.

        Args:
            look: what it asked for.
            taken: what it brought.
            seconds: how long it took.
            now: in monotonic seconds.
            clock: the database's time when it began, in PostgreSQL's microseconds, or a time shortly before; None where
                nobody knows. What it claimed says it better.
        """
        seconds -= taken.near_seconds + taken.far_seconds
        if look.full:
            self._full.end(seconds, now, found_all=len(taken.jobs) < look.wanted)
        else:
            self._full.note_other(seconds)
        if look.scan_jobs:
            self._learn_near(look, taken, now)
        if look.scan_queues:
            self._learn_far(look, taken, now)
        if look.known and len(taken.jobs) >= look.wanted:
            self._keep(look.known, taken)  # there was no room for the rest
        self._meet(taken.jobs, now)
        if look.era == self._era:
            self._move_floors(look, taken.jobs, clock)
        if look.full:
            self._era += 1  # what began before this look ended knows less than it
        return (look.full or self._is_clear) and look.scan_jobs and not self._hidden

    def missed(self, look: Look) -> None:
        """Take in that a look brought nothing: what it was to see is still to be looked at."""
        self.freed = self.freed or look.scan_jobs
        self._known.extendleft(reversed(look.known))
        if look.full:
            self._full.want()
        if look.scan_queues:
            self._far_at = 0.0

    def free(self, queues: Iterable[int]) -> None:
        """Note serial queues that this worker has freed."""
        self.freed = True
        self._own.extend(queues)

    def next_look_at(self) -> float:
        """When a look can be afforded that sees everything, or queues that are known."""
        if self._blocked and (self._known or self._own):
            return 0.0
        full_at = 0.0 if self._is_clear else self._full.at
        return max(full_at, self._near_at, self._far_at if self._hidden else 0.0)

    @property
    def _is_clear(self) -> bool:
        """Whether the second line has seen that nothing waits before the floors, and goes on looking."""
        return self._full.are_apart and self._full.found_all

    def afford(self) -> None:
        """Let the next look see everything, whatever it costs, unless queues that are known are to be tried first."""
        if not (self._blocked and (self._known or self._own)):
            if not self._is_clear:
                self._full.want()
            self._near_at = self._far_at = 0.0

    def doubt(self) -> None:
        """Believe no earlier look behind the floors: jobs may have been committed there since."""
        self._full.found_all = False

    def _take_known(self, wanted: int) -> tuple[int, ...]:
        """Queues to try: as many as are wanted of those seen, and of our own; the server finds out which come first."""
        if not self._blocked:
            return ()
        chosen = [self._own.popleft() for _ in range(min(wanted, len(self._own)))]
        chosen += [self._known.popleft() for _ in range(min(wanted, len(self._known)))]
        return tuple(dict.fromkeys(chosen))

    def _keep(self, queues: Iterable[int], taken: Taken) -> None:
        """Remember those of some queues whose jobs were not taken, to be tried before the others."""
        gone = {job.job_queue_id for job in taken.jobs}
        left = [queue for queue in queues if queue not in gone]
        self._known.extendleft(reversed(left))

    def _learn_near(self, look: Look, taken: Taken, now: float) -> None:
        """Whether blocked jobs lie ahead, and when the first waiting jobs are worth another look."""
        self._hidden = self._blocked = taken.hidden
        enough = look.wanted / _PRODUCTIVE if taken.hidden else 1
        worth = taken.queues >= enough
        self._near_at = now if worth else now + SHARE * max(taken.near_seconds, _NEAR_SECONDS)
        if not taken.hidden:
            self._known.clear()
            self._own.clear()  # those that are free were seen

    def _learn_far(self, look: Look, taken: Taken, now: float) -> None:
        """What the look from the queues' side saw, and when another can be afforded."""
        worth = taken.far_queues * _PRODUCTIVE >= look.wanted
        self._far_at = now if worth else now + SHARE * taken.far_seconds
        if taken.far_queues < look.wanted:
            self._hidden = False
        self._known.clear()
        self._keep(taken.more, taken)

    def reset(self) -> None:
        """Forget the floors: what this lane may take is not what it was."""
        self._floors = dict.fromkeys(self._floors, NEVER)
        self._full.want()
        self._era += 1  # a look under way knows nothing of that

    def returned(self, job: Job) -> None:
        """A job went back to where it was: the floor of its priority comes down to it."""
        floor = self._floors.get(job.priority, NEVER)
        if job.run_at_micros < floor:
            self._floors[job.priority] = job.run_at_micros
        self._era += 1  # a look under way may have passed it already

    def _meet(self, jobs: list[Job], now: float) -> None:
        """Have floors for the priorities of jobs that were claimed: they may all be claimed before anybody asks what waits."""
        if not jobs:
            return
        first, last = jobs[0].priority, jobs[-1].priority
        for level in (first,) if first == last else {job.priority for job in jobs}:
            if level in self._seen or (level not in self._floors and len(self._seen) < _MOST_LEVELS):
                self._seen[level] = now
                self._floors.setdefault(level, NEVER)

    def _move_floors(self, look: Look, jobs: list[Job], clock: int | None) -> None:
        """Note where this look ended: before it there is nothing left, as far as it could see."""
        ended_at = jobs[0].locked_at_micros if jobs else clock
        if ended_at is None:
            return
        swept = ended_at - SLACK_MICROS
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
