"""Stragglers: handlers that still run although they should have ended, since their time is over or their job is lost.

Nothing can end a thread, and a coroutine may catch its cancellation. Such a handler keeps its slot until it ends, also
where the worker goes on under a new id meanwhile. If its job is not this worker's any more, other workers may run it.
This worker does not: where it claims the job again, the new attempt waits until the old handler has ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from backfill.errors import HandlersStillRunningError
from backfill.logs import fields_of
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.lane import Lane

logger = logging.getLogger(__name__)

HANGS_AFTER: Final = 5.0
"""How many seconds a handler may take to end once it should, before its slot counts as one that hangs."""


class Stragglers:
    """The stragglers of one worker, whatever its id is now.

    Attributes:
        hung: the names of the lanes all of whose slots are taken by stragglers, so that they run nothing; any thread
            may read it.
    """

    def __init__(self) -> None:
        self.hung: tuple[str, ...] = ()
        self._running: dict[HeldJob, float] = {}
        self._lost: dict[int, HeldJob] = {}
        self._parked: list[HeldJob] = []
        self._lanes: dict[str, Lane] = {}

    @property
    def have_lost_jobs(self) -> bool:
        """Whether some of them run jobs that are not this worker's any more."""
        return bool(self._lost)

    def have_lost(self, job_id: int) -> bool:
        """Whether the handler of an earlier attempt of a job, which was lost, still runs here."""
        return job_id in self._lost

    @property
    def running(self) -> list[HeldJob]:
        """Those that still run."""
        return [running for running in self._running if running.task is not None and not running.task.done()]

    def out_of_time(self, running: HeldJob) -> None:
        """Note an attempt whose time is over, and whose handler still runs."""
        if running.task is None or running.task.done() or running in self._running:
            return
        self._running[running] = time.monotonic()
        running.task.add_done_callback(lambda _: self._ended(running))
        asyncio.get_running_loop().call_later(HANGS_AFTER, self.count, running.lane.config.name)

    def lost(self, running: HeldJob) -> None:
        """Note an attempt whose job is not this worker's any more, and whose handler still runs."""
        if running.task is not None and not running.task.done():
            self._lost[running.job.id] = running
        self.out_of_time(running)

    def occupy(self, lanes: Iterable[Lane], dispatch: Callable[[Lane], None]) -> None:
        """Take the slots of those that still run, in the lanes of a new session, until each has ended.

        Args:
            lanes: the new session's lanes.
            dispatch: called with a lane in which a slot has fallen free.
        """
        self._lanes = {lane.config.name: lane for lane in lanes}
        for running in self.running:
            lane = self._lanes[running.lane.config.name]
            lane.free -= 1
            if running.task is not None:
                running.task.add_done_callback(partial(_free, lane, dispatch))

    def park(
        self, claimed: list[HeldJob], dispatch: Callable[[Lane], None], undo: Callable[[HeldJob], None]
    ) -> list[HeldJob]:
        """Keep back the claimed jobs whose earlier handlers still run here; return the others.

        Args:
            claimed: jobs that were claimed just now.
            dispatch: called with the lane of a job that is ready again, once its earlier handler has ended.
            undo: called with a job that was lost or cancelled while it was kept back.
        """
        free = list[HeldJob]()
        for running in claimed:
            earlier = self._lost.get(running.job.id)
            if earlier is None or earlier.task is None:
                free.append(running)
                continue
            for older in [parked for parked in self._parked if parked.job.id == running.job.id]:
                self._parked.remove(older)  # somebody has unlocked the job, and it was claimed once more
                undo(older)
            self._parked.append(running)
            logger.info(
                "job %d (%s) waits until its earlier handler in this process has ended",
                running.job.id, running.job.task_identifier, extra=fields_of(running.job),
            )  # fmt: skip
            earlier.task.add_done_callback(partial(self._unpark, running, dispatch, undo))
        return free

    def return_parked(self, which: Callable[[HeldJob], bool] = lambda _: True) -> list[HeldJob]:
        """Take out the jobs that were kept back and of which `which` is true, since they go back to the queue."""
        parked = [running for running in self._parked if which(running)]
        self._parked = [running for running in self._parked if running not in parked]
        return parked

    async def wait(self, timeout: float) -> None:
        """Wait until all have ended, for at most `timeout` seconds."""
        tasks = [running.task for running in self.running if running.task is not None]
        if tasks and timeout > 0:
            await asyncio.wait(tasks, timeout=timeout)

    def refuse_running(self) -> None:
        """Do nothing if none runs any more.

        Raises:
            HandlersStillRunningError: some still run.
        """
        if left := sorted(self.running, key=lambda running: running.slot_taken_at):
            now = time.monotonic()
            raise HandlersStillRunningError(
                [(one.job.id, one.job.task_identifier, now - one.slot_taken_at) for one in left]
            )

    def _unpark(
        self, running: HeldJob, dispatch: Callable[[Lane], None], undo: Callable[[HeldJob], None], _: object
    ) -> None:
        if running not in self._parked:
            return
        self._parked.remove(running)
        if running.lost or running.cancellation is not None:
            undo(running)
        else:
            running.lane.add([running])
            dispatch(running.lane)

    def _ended(self, running: HeldJob) -> None:
        self._running.pop(running, None)
        if self._lost.get(running.job.id) is running:
            del self._lost[running.job.id]
        self.count(running.lane.config.name)

    def count(self, name: str) -> None:
        """Find out whether a lane hangs, and log it when that changes."""
        if (lane := self._lanes.get(name)) is None:
            return
        slots = lane.concurrency
        asked = time.monotonic() - 0.9 * HANGS_AFTER  # the loop's timer may go off a little early
        taken = sum(since <= asked and other.lane.config.name == name for other, since in self._running.items())
        if taken >= slots and name not in self.hung:
            self.hung = (*self.hung, name)
            logger.warning(
                "lane %s hangs: its %d slots are taken by handlers that still run %g s after they should have ended, "
                "since their time was over or their jobs were lost; it runs no job until one of them ends",
                name, slots, HANGS_AFTER,
            )  # fmt: skip
        elif taken < slots and name in self.hung:
            self.hung = tuple(other for other in self.hung if other != name)
            logger.info("lane %s runs jobs again", name)


def _free(lane: Lane, dispatch: Callable[[Lane], None], _: object) -> None:
    lane.free += 1
    dispatch(lane)
