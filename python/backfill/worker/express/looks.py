"""The looks of windows: when lanes look for parallel jobs by a window, and what they learn of the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from backfill.storage.claims import Look, Taken
from backfill.storage.wire import Command
from backfill.worker.express.mode import ExpressMode
from backfill.worker.lanes.lane import Lane
from backfill.worker.lanes.learning import learn
from backfill.worker.pipeline.asked import Asked
from backfill.worker.pipeline.claimer import BACKLOG, Claimer

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult


class WindowLooks:
    """What windows ask the database for, in the place of the claimer's looks for parallel jobs.

    Args:
        claimer: what the worker knows of its lanes and of the queue.
        mode: says which lanes give their jobs to windows.
        worker: the worker's id.
        stir: called where the pumps should look for jobs that windows took before.
    """

    def __init__(self, claimer: Claimer, mode: ExpressMode, *, worker: str, stir: Callable[[], None]) -> None:
        self._claimer = claimer
        self._mode = mode
        self._worker = worker
        self._stir = stir

    def due_in(self, now: float) -> float | None:
        """Seconds until a lane should look by a window; None where none waits for a time."""
        claimer = self._claimer
        if claimer.closed or not claimer.knows_tasks:
            return None
        lanes = [lane for lane in claimer.lanes if lane.in_windows]
        if any(lane.wants for lane in lanes):
            return 0.0
        times = [lane.look_at for lane in lanes if lane.look_at is not None and lane.room > 0]
        return max(min(times) - now, 0.0) if times else None

    def backlog(self) -> bool:
        """Whether there is room, and a reason, for a large window beside the one that is open."""
        claimer = self._claimer
        if claimer.closed or not claimer.knows_tasks:
            return False
        return any(lane.in_windows and lane.wants and lane.room >= BACKLOG for lane in claimer.lanes)

    def ask(self, now: float) -> Asked:
        """What a window that is opened now should ask for."""
        claimer = self._claimer
        if claimer.closed or not claimer.knows_tasks:
            return Asked.nothing()
        self._mode.look()
        claimer.keep_time(now)
        for lane in claimer.lanes:
            if lane.in_windows and lane.free <= 0 and now >= lane.stalls_at():
                lane.slow_down()  # no slot falls free: what windows took would only be kept from other workers
        most = self._mode.most
        lanes = [lane for lane in claimer.lanes if lane.in_windows and lane.wants]
        looks = [(lane, lane.look(most, now, window=True)) for lane in lanes]
        return Asked(looks, levels=False, around=False, wakes=claimer.wakes)

    def serve(self, *, served: bool) -> None:
        """Say whether a window of the first line is open: its end looks for the next jobs of all lanes."""
        for lane in self._claimer.lanes:
            was, lane.served = lane.served, served and lane.in_windows
            if was and not lane.in_windows and lane.low:
                self._stir()  # the lane left the windows while one was open, and nobody else knows that it may look now

    def commands(self, asked: Asked) -> list[Command]:
        """The statements of the looks, each of them one."""
        return [
            command
            for lane, look in asked.looks
            for command in lane.claim.commands(look, worker=self._worker, bound=lane.bound)
        ]

    def took(self, asked: Asked, results: Sequence[PGresult]) -> list[tuple[Lane, Taken]]:
        """Take in what the looks have given; return it, by the lanes."""
        claimer, now = self._claimer, time.monotonic()
        claimer.pulse.claimed = now
        found = []
        for (lane, look), result in zip(asked.looks, results, strict=True):
            taken = lane.claim.read([result], claimer.known.names, tracked=look.tracked)
            if taken.jobs and (held_at := taken.jobs[0].locked_at_micros) is not None:
                claimer.clock.note(held_at, now)
            self._learn(lane, look, taken, asked, now)
            found.append((lane, taken))
            if lane.low and not lane.in_windows:
                self._stir()  # the lane has left the windows since then, and has waited for this answer
        return found

    def missed(self, asked: Asked) -> None:
        """Take note that looks brought nothing, since they were refused or their answer was lost."""
        for lane, look in asked.looks:
            lane.answered(look)
            lane.hungry = True
            lane.horizon.missed(look)

    def _learn(self, lane: Lane, look: Look, taken: Taken, asked: Asked, now: float) -> None:
        clock = self._claimer.clock.at(asked.began)
        look, _ = learn(lane, look, taken, seconds=now - asked.began, now=now, clock=clock)
        self._claimer.wakes += taken.cut  # a look beside this one saw the jobs that were cut off as locked
        if len(taken.jobs) >= look.wanted or look.tie is not None:  # from a place it has not seen all jobs
            lane.hungry = True
        elif asked.wakes == self._claimer.wakes:
            lane.hungry = False
            lane.look_at = None if look.full or lane.horizon.is_clear else max(lane.horizon.full_at, now)
