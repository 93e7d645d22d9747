"""What becomes of the jobs of a window: when it opens, when it ends, and when it is lost."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from backfill.records import Job
from backfill.storage.claim_kinds import IN_ROW
from backfill.storage.claims import Taken
from backfill.storage.windows import RowVersion, changed, end_commands, unwritten, versions
from backfill.storage.wire import Command
from backfill.worker.execution.endings import COMPLETED, GIVEN_BACK
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.express.mode import ExpressMode
from backfill.worker.express.window import Window, WindowEnd
from backfill.worker.lanes.lane import Lane
from backfill.worker.pipeline.pump import PipelineState

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

logger = logging.getLogger(__name__)

_SHORTER: Final = 4
"""A window that has found ordinary jobs too lasts for this part of its length at most, since they wait for its end."""

_MOST_REMEMBERED: Final = 1000
"""Of how many jobs is remembered that they ran in a window that was lost."""


@dataclass(slots=True)
class Unsure:
    """What nobody knows of a window that was lost: whether the jobs that had completed are deleted, and others claimed.

    Attributes:
        rows: the versions of the rows of those that had completed, as the window held them.
        jobs: the attempts of those.
        ending: whether the window was lost in the middle of its end, which may have written claims into other rows.
        unanswered: whether nobody knows what became of an attempt to delete them.
        done: the ids of those that are deleted, as far as that is known.
    """

    rows: list[RowVersion] = field(default_factory=list)
    jobs: list[HeldJob] = field(default_factory=list)
    ending: bool = False
    unanswered: bool = False
    done: set[int] = field(default_factory=set)

    def note(self, deleted: set[int], gone: set[int]) -> None:
        """Take note of what has become of the rows.

        Those that are gone were deleted by us, if we tried without an answer; else another attempt has completed them.

        Args:
            deleted: the ids of the jobs that were deleted now.
            gone: the ids of those that were gone before.
        """
        self.done |= deleted
        if self.ending or self.unanswered:
            self.done |= gone

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.jobs) or self.ending


class WindowJobs:
    """Moves jobs between a worker's windows and its other parts.

    Args:
        station: what the worker's pumps share.
        mode: says which jobs run in windows.
        length: how long a window is open at most, in seconds.
    """

    def __init__(self, station: PipelineState, mode: ExpressMode, length: float) -> None:
        self._station = station
        self._mode = mode
        self._length = length
        self._ran_before: dict[int, None] = {}

    def take_in(self, window: Window, found: Sequence[tuple[Lane, Taken]]) -> None:
        """Start the jobs that a window holds; those that do not belong into a window wait for its end."""
        executor, admitted = self._station.executor, list[tuple[Lane, list[HeldJob]]]()
        before = executor.claimed
        for lane, taken in found:
            if not taken.jobs:
                continue
            express, ordinary = list[Job](), list[Job]()
            careful = bool(self._ran_before) or executor.stragglers.have_lost_jobs
            for job in taken.jobs:
                runs = self._mode.runs_in_window(job) and not (careful and self._must_count(job))
                (express if runs else ordinary).append(job)
            self._mode.note(lane, express=len(express), ordinary=len(ordinary))
            if ordinary:
                held = self._held(ordinary, lane, window)
                window.ordinary.append((lane, held))
                lane.asked += len(held)
                window.shorten(self._length / _SHORTER)
            if express:
                held = self._held(express, lane, window)
                window.hold(held)
                admitted.append((lane, held))
        self._station.claimed(executor.claimed - before)
        for lane, held in admitted:
            executor.admit([running for running in held if running.ending is None], lane)

    def _must_count(self, job: Job) -> bool:
        """Whether a job has to run the ordinary way, since its handler has begun in a window that was lost.

        A job whose windows are lost each time would run without end, and nobody would count it. One whose earlier
        handler still runs here has to wait for that, which may be for longer than any window.
        """
        if job.id in self._ran_before:
            del self._ran_before[job.id]
            return True
        return self._station.executor.stragglers.have_lost(job.id)

    def _held(self, jobs: list[Job], lane: Lane, window: Window) -> list[HeldJob]:
        """Note the jobs of a window as ours; where the worker stops, they are given back at once."""
        executor = self._station.executor
        return executor.take_in(jobs, lane, window) or [executor.held[job.id] for job in jobs]

    def decide(self, window: Window) -> tuple[WindowEnd, list[Command]]:
        """Decide what the end of a window does, and let go of what has not begun; return the statements, too."""
        end, station = window.decide(), self._station
        self._let_go(end.let_go)
        claimed = [running.job for running in end.claimed]
        claimed += [running.job for _, some in window.ordinary for running in some]
        completed = [running.job.id for running in end.completed]
        return end, end_commands(station.schema, station.worker, completed=completed, claimed=claimed)

    def _let_go(self, unstarted: Sequence[HeldJob]) -> None:
        """Take the jobs that a window lets go out of everything in which they wait for their start.

        Nobody is told of them, since nothing was written of them either: they were no attempts.
        """
        waiting = [running for running in unstarted if running.ending is None]
        for lane in {running.lane for running in waiting}:
            lane.withdraw_all({running for running in waiting if running.lane is lane})
        for running in waiting:
            if running.kept_back is not None:
                running.kept_back.withdraw(running)
            running.ending = GIVEN_BACK

    def closed(self, window: Window, end: WindowEnd, results: Sequence[PGresult]) -> None:
        """Take in that the end of a window has taken effect.

        Args:
            window: the window.
            end: what its end did.
            results: those of its statements.
        """
        station = self._station
        deleted = changed(results[0]) if end.completed else 0
        claimed = [*end.claimed, *(running for _, some in window.ordinary for running in some)]
        lacks = unwritten(results[-2], [running.job.id for running in claimed]) if claimed else ()
        window.close()
        if deleted != len(end.completed):
            logger.warning(
                "%d jobs that completed in a window were not deleted, and run again: a trigger of the table may keep "
                "them",
                len(end.completed) - deleted,
            )
            self._mode.rest()
        self._mode.ran(len(window.express), len(end.let_go), share=window.share)
        interrupted = [running for running in end.let_go if running.slot_taken_at]
        if end.completed or interrupted:
            station.settler.written([*end.completed, *interrupted])
        if len(interrupted) < len(end.let_go):
            station.settler.release_unwritten([running for running in end.let_go if not running.slot_taken_at])
        for running in end.let_go:
            station.claimer.returned(running)
        self._go_on(end.claimed)
        for lane, some in window.ordinary:
            lane.asked -= len(some)
            self._go_on(some)
            going_on = [running for running in some if running.ending is None and running.job.id not in lacks]
            station.executor.admit(going_on, lane)
        if lacks:
            self._unclaimed([running for running in claimed if running.job.id in lacks])
        if end.let_go or claimed:
            station.stir()
        window.forget()

    def _unclaimed(self, jobs: Sequence[HeldJob]) -> None:
        """Handle that others may run jobs which were to go on, since the database has not written their claims."""
        logger.warning(
            "%d jobs of a window could not be claimed, and run again: a trigger of the table may keep them unchanged",
            len(jobs),
        )
        self._mode.rest()
        executor = self._station.executor
        for running in jobs:
            if running.ending is None and running.slot_taken_at:
                executor.held.lose(running)
            elif running.ending is None:
                executor.undo(running)

    def _go_on(self, claimed: Sequence[HeldJob]) -> None:
        """Take note that the claims of some jobs are in their rows now; those that have ended are settled."""
        for running in claimed:
            running.claim, running.window = IN_ROW, None
            if running.ending is not None:
                self._station.ended(running)

    def lost(self, window: Window, *, ending: bool) -> Unsure:
        """Handle that a window is lost: cancel its handlers, write none of their ends, and look from the start again.

        Args:
            window: the window.
            ending: whether its end was under way.

        Returns:
            What nobody knows of it.
        """
        station, unsure = self._station, Unsure(ending=ending)
        every = [*window.express, *(running for _, some in window.ordinary for running in some)]
        unsure.jobs = [running for running in window.express if running.ending is COMPLETED]
        if unsure.jobs:
            rows = versions(window.results)
            unsure.rows = [rows[running.job.id] for running in unsure.jobs]
        for lane, some in window.ordinary:
            lane.asked -= len(some)
        for running in every:
            if running.ending is not None and running.ending is not COMPLETED:
                self.forget([running])
        unstarted = [running for running in every if running.ending is None and not running.slot_taken_at]
        self._let_go(unstarted)
        station.settler.release_unwritten(unstarted)
        for running in every:
            if running.ending is None:
                self._ran_before[running.job.id] = None
                station.executor.held.lose(running)
        for number in list(self._ran_before)[:-_MOST_REMEMBERED]:
            del self._ran_before[number]
        for lane in {running.lane for running in every}:
            lane.look_anew()
        logger.info(
            "a window was lost: %d of its jobs run again, and %d that had completed run again only if their rows were "
            "changed meanwhile",
            len(every) - len(unsure.jobs), len(unsure.jobs),
        )  # fmt: skip
        window.forget()
        station.stir()
        return unsure

    def forget(self, jobs: Sequence[HeldJob]) -> None:
        """Let go of attempts that count for nothing, since their window was lost."""
        self._station.settler.written(jobs, jobs)

    def found(self, unsure: Unsure) -> None:
        """Let go of the jobs that had completed in a lost window: some are deleted, and the others run again."""
        again = [running for running in unsure.jobs if running.job.id not in unsure.done]
        self._station.settler.written(unsure.jobs, again)
