"""The horizon of a lane: where its next look at the queue begins, and which looks it can afford.

Jobs that ran leave dead rows at the queue's front until they are vacuumed, and a transaction that is held open keeps
all of them there. Jobs that other workers must run, and blocked serial jobs, can lie there by the million. So for each
priority a look begins where the last one ended (the priority's floor), and looks from the very start are made only as
often as a twentieth of the time allows (`full_looks.py`). The same limit holds for looks at serial queues after one
that found nothing.

Where thousands of blocked serial jobs lie ahead, free queues are looked for from the queues' side, which goes through
all queues that have waiting jobs. So the free queues that such a look saw are remembered, for the next looks to try,
and so are the queues that this worker frees itself. Where that look finds that the jobs ahead are all of paused queues,
or of tasks that the lane does not take, the next looks at serial jobs begin behind these (`serial_floors.py`). Looks
from the queues' side are repeated within each poll interval, and whenever the others find too little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from backfill.records import Job
from backfill.storage.claims import NEVER, Look, Spans, Taken
from backfill.storage.serial_floors import SerialFloor
from backfill.storage.ties import Tie
from backfill.worker.lanes.ended_ties import ended_tie
from backfill.worker.lanes.floors import Floors
from backfill.worker.lanes.full_looks import DEAR_SHARE, PATIENCE_SECONDS, SHARE, FullLooks

_PRODUCTIVE: Final = 4
"""After a look from the queues' side that found less than a fourth of the jobs wanted, the next must be afforded."""
_MOST_KNOWN: Final = 20_000
_UNDER_WAY: Final = 1.0
"""How long no other look from the queues' side begins while one is under way, in seconds."""
_FEW: Final = 8
"""How many jobs a look behind the floors asks for at most; where it finds as many, the floors come down to them."""
_LEAST_APART: Final = 4.0
"""Looks from the queues' side are at least this many times as long apart as one takes, in any poll interval."""
_NEAR_SECONDS: Final = 0.002
"""The least seconds that a look at serial queues is taken to cost, with the claim that merges both kinds of jobs."""
_NEAR_LOOKS: Final = 5
"""Where no blocked jobs lie ahead, a look at serial queues is taken to cost what the fastest of so many took.

A single one may be slow because the server's process waited for a processor.
"""


class ScanCursor:
    """What one lane has learnt of the queue.

    Args:
        patience: how many seconds pass at least between two looks from the start where they are dear.
        apart: whether the second line may make looks from the start.

    Attributes:
        freed: whether this worker has freed a serial queue since the last look at serial queues.
        parts: whether the lane takes jobs by their flags, so that it may pass over most of those that wait.
        tracks: whether the lane passes over jobs of tasks that are left out, or of other flags, so that places in the
            table count.
    """

    __slots__ = (
        "_blocked", "_era", "_far_at", "_far_costs", "_floor", "_floors", "_full", "_hidden", "_known", "_lacked_near",
        "_lost", "_near_at", "_near_costs", "_own", "_patience", "_returns", "_short", "_soon_at", "_stale_at",
        "_tie", "freed", "parts", "tracks",
    )  # fmt: skip

    def __init__(self, *, patience: float = PATIENCE_SECONDS, apart: bool = True) -> None:
        self._floors = Floors()
        self._full = FullLooks(patience=patience, apart=apart)
        self._era = 0
        self._near_at = 0.0
        self._near_costs: deque[float] = deque([0.0], maxlen=_NEAR_LOOKS)
        self._lacked_near = False
        self._far_at = 0.0
        self._far_costs: deque[float] = deque([0.0, 0.0], maxlen=3)
        self._hidden = False
        self._blocked = False
        self._known: deque[int] = deque()
        self._own: deque[int] = deque(maxlen=_MOST_KNOWN)
        self._tie: Tie | None = None
        self._floor: SerialFloor | None = None
        self._lost = False
        self._patience = patience
        self._returns = 0
        self._short = False
        self._soon_at = 0.0
        self._stale_at = 0.0
        self.freed = False
        self.parts = False
        self.tracks = False

    @property
    def floors(self) -> Mapping[int, int]:
        """Where the next look begins: a run_at for each known priority, in PostgreSQL's microseconds."""
        return self._floors.levels

    def know(self, levels: Iterable[int], now: float) -> None:
        """Note the priorities that waiting jobs have."""
        self._floors.know(levels, now)

    def behind_at(self) -> float | None:
        """When the second line should look behind the floors; None while the lane's other looks do that."""
        return self._full.at if self._full.are_apart else None

    def look_behind(self, room: int, now: float) -> Look:
        """What a look from the start, beside others, should ask for: few jobs, which the lane does not count on."""
        self._full.begin(now)
        wanted = max(min(room // 4, _FEW), 1)
        spans = Spans.of(self._floors.none())
        return Look(wanted, spans, scan_jobs=False, scan_queues=False, era=self._era, behind=True, tracked=self.tracks)

    def look(self, wanted: int, now: float) -> Look:
        """What a look that begins now should ask for."""
        return self._with_serial(self._parallel(wanted, now), now)

    def look_window(self, wanted: int, now: float) -> Look:
        """What the look of a window should ask for: parallel jobs alone, since other looks are made for serial jobs."""
        return replace(self._parallel(wanted, now), window=True)

    def look_serial(self, wanted: int, now: float) -> Look | None:
        """What a look for serial jobs alone should ask for, made beside windows; None where none is worth its cost."""
        spans = Spans.of(self._floors.levels)
        nothing = Look(
            wanted, spans, scan_jobs=False, scan_queues=False, full=False, era=self._era, returns=self._returns,
            serial_alone=True,
        )  # fmt: skip
        look = self._with_serial(nothing, now)
        return None if look.is_parallel else look

    def serial_at(self, now: float) -> float:
        """When the next look for serial jobs can be afforded, in monotonic seconds."""
        if self._tries_known or self._sees_freed:
            return now
        if self._lost:
            return min(self._near_at, self._far_at)
        return self._near_at

    def _parallel(self, wanted: int, now: float) -> Look:
        """A look that begins now, as far as it is for parallel jobs."""
        full = now >= self._full.at and not self._full.are_apart
        if full:
            self._full.begin(now)
        floors = self._floors.none() if full else self._floors.levels
        return Look(
            wanted, Spans.of(floors), scan_jobs=False, scan_queues=False, full=full, era=self._era,
            returns=self._returns, tracked=self.tracks, tie=self._next_tie() if self.tracks and not full else None,
        )  # fmt: skip

    def _with_serial(self, look: Look, now: float) -> Look:
        """A look that begins now, with what it should ask for serial jobs."""
        near = worth = now >= self._near_at or self._sees_freed
        far = near and self._hidden and not self._known and now >= self._far_at
        if self._lost and now >= self._far_at:
            near = far = True
        if self._floor is not None:
            near = far = now >= self._far_at and (self._short or now >= self._stale_at)
        beyond = self._floor if not near and worth else None
        known = () if near or self._floor is not None else self._take_known(look.wanted)
        self.freed = False  # set here, since this look may not see a queue that is freed from now on
        if far:
            self._far_at = now + _UNDER_WAY
        return replace(look, scan_jobs=near, scan_queues=far, known=known, beyond=beyond)

    @property
    def _sees_freed(self) -> bool:
        """Whether a look at serial queues would see the jobs of a queue that this worker has freed."""
        return self.freed and (self._floor is not None or not self._blocked)

    def learn(self, look: Look, taken: Taken, *, seconds: float, now: float, clock: int | None = None) -> bool:
        """Take in what a look brought and how long it took; return whether the looks together have seen everything.

        Args:
            look: what the look asked for.
            taken: what it brought.
            seconds: how long it took.
            now: the time, in monotonic seconds.
            clock: the database's time when the look began, in PostgreSQL's microseconds, or a time shortly before; None
                where it is not known. Where the look claimed jobs, the time in their rows is used, which is exact.
        """
        seconds -= taken.near_seconds + taken.far_seconds
        if not look.window:
            self._lacked_near = not look.scan_jobs and look.beyond is None
        if look.serial_alone:
            pass  # it says nothing about the parallel jobs
        elif look.full:
            self._full.end(seconds, now, found_all=len(taken.jobs) < look.wanted)
        else:
            self._full.note_other(seconds)
        if look.scan_jobs:
            self._learn_near(look, taken, now)
        if look.scan_queues:
            self._learn_far(look, taken, now)
        if look.beyond is not None:
            self._learn_beyond(look, taken, now)
        if look.known and len(taken.jobs) >= look.wanted:
            self._keep(look.known, taken)  # there was no room for the jobs of the others
        self._floors.meet(taken.jobs, now)
        if look.era == self._era and not look.serial_alone:
            began = self._floors.at(taken.jobs[-1].priority) if taken.jobs else NEVER
            self._floors.move(look, taken.jobs, clock)
            if look.tracked:
                self._learn_tie(look, taken, began)
        if look.full:
            self._era += 1  # a look that began before this one ended knows less than this one
        if look.serial_alone:
            return look.scan_jobs and not self._hidden
        return (look.full or self.is_clear) and look.scan_jobs and not self._hidden and look.tie is None

    def missed(self, look: Look) -> None:
        """Take in that a look brought nothing, so that a next one must look at the same places."""
        self.freed = self.freed or look.scan_jobs
        self._known.extendleft(reversed(look.known))
        if look.full:
            self._full.want()
        if look.scan_queues:
            self._far_at = 0.0

    def free(self, queues: Sequence[int], *, resumed: bool = False) -> None:
        """Note serial queues that this worker has freed, or that are resumed, so that their jobs may come first."""
        self.freed = True
        self._own.extend(queues)
        if resumed:
            self._watch(queues)

    def next_look_at(self, now: float) -> float:
        """When the next look can be afforded; 0 where known queues are to be tried first.

        That is a look that sees everything. But where the last one could not afford to look for serial queues, and that
        can be afforded earlier than all together, an earlier look comes first: else serial jobs would wait for a look
        from the start, which they do not need.
        """
        if self._tries_known:
            return 0.0
        full_at = 0.0 if self.is_clear else self._full.at
        if self._floor is None and self._hidden:
            return max(self._near_at, self._far_at)
        serial_at = self._near_at if self._floor is None or self._lacked_near else self._far_at
        if self._lacked_near and serial_at < full_at:
            return max(serial_at, now)  # it may have become affordable while the last look was under way
        return max(full_at, serial_at)

    @property
    def full_at(self) -> float:
        """When a look from the very start can be afforded."""
        return self._full.at

    @property
    def _tries_known(self) -> bool:
        """Whether the next look may try queues that are known to be free."""
        return self._floor is None and self._blocked and bool(self._known or self._own)

    @property
    def is_clear(self) -> bool:
        """Whether the second line has seen that nothing waits before the floors, and goes on looking."""
        return self._full.are_apart and self._full.found_all

    def afford(self) -> None:
        """Let the next look see everything, whatever it costs, unless known queues are to be tried first."""
        if not self._tries_known:
            if not self.is_clear:
                self._full.want()
            self._near_at = self._far_at = 0.0
            self._short = True

    def doubt(self) -> None:
        """Distrust earlier looks behind the floors, since jobs may have been committed there after them."""
        self._full.found_all = False

    def _take_known(self, wanted: int) -> tuple[int, ...]:
        """Take queues to try: as many as wanted of those that a look saw, and as many that this worker freed.

        The server finds out which of their jobs come first.
        """
        if not self._blocked:
            return ()
        chosen = [self._own.popleft() for _ in range(min(wanted, len(self._own)))]
        chosen += [self._known.popleft() for _ in range(min(wanted, len(self._known)))]
        return tuple(dict.fromkeys(chosen))

    def _keep(self, queues: Iterable[int], taken: Taken) -> None:
        """Remember the queues of which no job was taken, to be tried before the others."""
        gone = {job.job_queue_id for job in taken.jobs}
        left = [queue for queue in queues if queue not in gone]
        self._known.extendleft(reversed(left))

    def _learn_near(self, look: Look, taken: Taken, now: float) -> None:
        """Note whether blocked jobs lie ahead, and when another look at the first waiting jobs is worth its cost."""
        is_news = taken.hidden and not self._hidden and now >= self._far_at
        self._hidden = self._blocked = taken.hidden
        enough = look.wanted / _PRODUCTIVE if taken.hidden else 1
        worth = taken.queues >= enough or is_news  # the look from the queues' side is to come at once then
        self._near_costs.append(taken.near_seconds)
        cost = taken.near_seconds if taken.hidden else min(self._near_costs)
        self._near_at = now if worth else now + SHARE * max(cost, _NEAR_SECONDS)
        if not taken.hidden:
            self._floor, self._lost = None, False
            self._known.clear()
            self._own.clear()  # the look has seen those that are free

    def _learn_far(self, look: Look, taken: Taken, now: float) -> None:
        """Note what the look from the queues' side saw, and when another can be afforded."""
        worth = taken.far_queues * _PRODUCTIVE >= look.wanted
        self._far_at = now if worth else now + SHARE * taken.far_seconds
        if taken.far_queues < look.wanted:
            self._hidden = False
        self._known.clear()
        self._keep(taken.more, taken)
        self._lost = False
        if look.returns != self._returns:
            return  # what has come back since the look began may lie before the floor that it found
        self._floor = None if taken.floor is None else taken.floor.cover(self._floors.levels)
        if self._floor is not None:
            seconds = taken.near_seconds + taken.far_seconds
            apart = max(self._patience, _LEAST_APART * seconds)
            self._far_at, self._stale_at = now + min(SHARE * seconds, apart), now + apart
            self._soon_at = self._far_at
            if self.parts and not taken.jobs and not taken.more:
                # It has read all jobs of all queues for nothing, and would do so in each poll interval. The middle one
                # of three counts, since a single one may have read from the disk, or waited for a processor.
                self._far_costs.append(seconds)
                self._far_at = self._stale_at = now + max(apart, DEAR_SHARE * sorted(self._far_costs)[1])
            self._short = len(taken.jobs) < look.wanted
            self._near_at = now  # looks behind the floor are to be tried, whatever this one cost

    def _learn_beyond(self, look: Look, taken: Taken, now: float) -> None:
        """Note whether a look behind the floor found enough; where other jobs hide the rest, the floor is of no use.

        After a look that found nothing the next one must be afforded, as one at the first waiting jobs must be. It also
        goes through all queues that are watched, of which none may become free.
        """
        self._short = len(taken.jobs) < look.wanted
        self._near_costs.append(taken.near_seconds)
        self._near_at = now if taken.queues else now + SHARE * max(min(self._near_costs), _NEAR_SECONDS)
        if taken.hidden and taken.queues * _PRODUCTIVE < look.wanted and look.beyond is self._floor:
            self._floor, self._lost = None, True
            self._far_at = min(self._far_at, self._soon_at)

    def _watch(self, queues: Iterable[int]) -> None:
        """Look at the jobs of some queues wherever they lie, since they may lie before the floor."""
        self._returns += 1  # a look under way may not have seen them
        if self._floor is None:
            return
        self._floor = self._floor.watching(queues)
        if self._floor is None:
            self._forget_floor()

    def _forget_floor(self) -> None:
        """Look for serial queues from the start again, and from the queues' side where they are hidden there."""
        self._floor = None
        self._known.clear()
        self._near_at = self._far_at = 0.0

    def look_apart(self, apart: bool) -> None:
        """Say anew whether the second line may make looks from the start."""
        self._full.allow_apart(apart)

    def reset(self) -> None:
        """Forget the floors, since the jobs that this lane may take have changed."""
        self._floors.forget()
        self._tie = None
        self._full.want()
        self._era += 1  # a look under way began at the old floors
        self._returns += 1
        if self._floor is not None:
            self._forget_floor()

    def adopt(self, floors: Mapping[int, int], other: ScanCursor) -> None:
        """Begin at floors that looks of another cursor have found, and look from the start when it does."""
        self._floors.raise_to(floors)
        self._full.at = max(self._full.at, other._full.at)

    def returned(self, job: Job) -> None:
        """Lower the floor of a job's priority to the job, since it waits again as before."""
        self._floors.lower(job)
        self._tie = None  # the job may have another place now
        self._era += 1  # a look under way may have passed it already
        if job.job_queue_id is not None:
            self._watch((job.job_queue_id,))

    def _next_tie(self) -> Tie | None:
        """Where a look begins among the jobs of one run_at, as long as that is where the floor is."""
        tie = self._tie
        if tie is not None and self._floors.at(tie.priority) > tie.run_at:
            tie = self._tie = None
        return tie

    def _learn_tie(self, look: Look, taken: Taken, began: int) -> None:
        """Note the place where a claim ended, if that is worth it; see `ended_tie`."""
        tie = ended_tie(look, taken, began)
        if tie is None or look.full or self._tie is None or tie > self._tie:
            self._tie = tie
