"""The executor: runs each claimed job, and says how its attempt ended.

An attempt takes these steps: read the row, look up its task, decode its payload, run the handler, say how it ended.
What a handler raises is a failure of its attempt, never of the worker. A job without limits takes the shortest path,
since this code runs for every job.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Iterable
from typing import Any

from backfill.client import BackfillClient
from backfill.errors import PayloadDecodeError
from backfill.logs import CURRENT, RetryTraceback
from backfill.records import Job
from backfill.retry import RetryPolicy
from backfill.storage.claim_kinds import IN_ROW
from backfill.storage.rows import unreadable
from backfill.tasks import TaskRegistry
from backfill.worker.events import Tally
from backfill.worker.execution.cancelling import Cancelling
from backfill.worker.execution.contexts import Contexts
from backfill.worker.execution.draining import cancel, drain
from backfill.worker.execution.endings import COMPLETED, GIVEN_BACK, Answered, Ending
from backfill.worker.execution.forks import ForkGuard
from backfill.worker.execution.held_job import HeldJob, HeldJobs, WindowClaim
from backfill.worker.execution.hooked import Hooked
from backfill.worker.execution.interrupts import ctrl_c_in
from backfill.worker.execution.outcomes import Collect, Outcomes
from backfill.worker.execution.own_end import ending_after, refuse_open
from backfill.worker.execution.own_transactions import OwnTransactions
from backfill.worker.execution.paused_queues import PausedQueues
from backfill.worker.execution.paused_tasks import PausedTasks
from backfill.worker.execution.policy import NO_LIMITS, limits_of
from backfill.worker.execution.processes import HandlerProcesses
from backfill.worker.execution.progress import ProgressBook
from backfill.worker.execution.starting import Starter
from backfill.worker.execution.stragglers import Stragglers
from backfill.worker.execution.threads import HandlerThreads
from backfill.worker.execution.timed import Timed
from backfill.worker.execution.transaction_blocks import TransactionBlocks
from backfill.worker.execution.wiring import Wiring
from backfill.worker.execution.worker_hooks import WorkerHooks
from backfill.worker.lanes.lane import Lane

logger = logging.getLogger(__name__)


class Executor(Wiring):
    """Runs attempts and hands their ends on.

    Args:
        registry: the tasks.
        worker_id: the worker's id, for the handlers' context.
        client: the client for the handlers' context.
        deps: the dependencies for the handlers' context.
        retry: the retry policy of jobs that have none of their own and whose task has none.
        traceback: how much of the traceback the log shows for a failure that is tried again.
        collect: called with the job and the error of each failed attempt.
        hooks: the callbacks of plugins; None where none of them is about jobs that are claimed, start or run.
    """

    def __init__(
        self,
        registry: TaskRegistry[Any],
        *,
        worker_id: str,
        client: BackfillClient,
        deps: Any,
        retry: RetryPolicy | None = None,
        traceback: RetryTraceback = RetryTraceback.NONE,
        collect: Collect | None = None,
        hooks: WorkerHooks | None = None,
    ) -> None:
        super().__init__()
        self._outcomes = Outcomes(registry, retry, traceback, collect)
        self.progress = ProgressBook()
        self.contexts = Contexts(worker_id=worker_id, client=client, deps=deps, progress=self.progress)
        self._loop = asyncio.get_running_loop()
        self._guard = ForkGuard()
        self._starter = Starter(self, attempt=self._attempt, undo=self.undo, guard=self._guard)
        self._running = self._starter.waiting
        interrupted = lambda error: self.interrupted(error)  # noqa: E731, PLW0108 - it is set later
        self._hooked = None if hooks is None else Hooked(hooks, worker_id, self._outcomes, self._guard, interrupted)
        self._registry = registry.wrapped(self._guard.returned)
        self.processes = HandlerProcesses(self._outcomes, self.contexts, self._hooked, self.progress)
        self.threads = HandlerThreads(f"backfill-{worker_id[-6:]}", self._guard)
        self._unstarted = 0
        self.stragglers = Stragglers()
        """The handlers that run although they should have ended; a worker's sessions share them."""
        overdue = lambda running: self.stragglers.out_of_time(running)  # noqa: E731, PLW0108 - they are set later
        self._timed = Timed(self._registry, self._outcomes, self.threads.under_way, overdue)
        self.claimed = 0
        """How many jobs were claimed."""
        self.held = HeldJobs(self._lost, self.progress.release)
        """The jobs that this worker has claimed and not settled, by the job's id."""
        self.cancelling = Cancelling(self, registry, self._outcomes, self.threads.under_way)
        self.paused_queues = PausedQueues(self, self.undo)
        self.paused, self.broken = PausedTasks(self, self.undo), PausedTasks(self, self.undo)
        """Tasks that operators have paused, and tasks whose breaker is open; what its limit lets through may start."""
        own = OwnTransactions(self, client, worker_id, self._outcomes)
        self.contexts.transactions = TransactionBlocks(own, client)

    @property
    def idle(self) -> bool:
        """Whether no attempt is under way."""
        return not self._running

    @property
    def started(self) -> int:
        """How many jobs were started."""
        return self._starter.started

    @property
    def tally(self) -> Tally:
        """How many attempts ended in each way; it is right once all of them have ended."""
        return self._outcomes.tally(self.started - len(self._running), self._unstarted)

    def under_way(self) -> HeldJob | None:
        """The attempt whose code the event loop runs at this moment; None where it runs none. Safe from any thread.

        An attempt in its first step may run before its task is known to anybody, so it is looked at first.
        """
        if (first := self._starter.first_step) is not None:
            return first
        task = asyncio.current_task(self._loop)
        if task is None:
            return None
        return next((running for running in list(self._running) if running.task is task), None)

    def hold(self, jobs: list[Job], lane: Lane) -> None:
        """Note claimed jobs as ours, and start those for which there are slots."""
        self.admit(self.take_in(jobs, lane), lane)

    def admit(self, claimed: list[HeldJob], lane: Lane) -> None:
        """Start jobs that were taken in, as far as there are slots; others are ready. A stopping worker starts none."""
        if self._starter.stopped:
            self.undo_all(claimed)
            return
        lane.add(self.park(self.broken.sift(claimed)))
        if lane.lowered:
            self.undo_all(lane.take_surplus())
        self.dispatch(lane)

    def take_in(self, jobs: list[Job], lane: Lane, window: WindowClaim | None = None) -> list[HeldJob]:
        """Note claimed jobs as ours; return them, or none where the worker stops and they go back."""
        claimed = [HeldJob(job, lane, window or IN_ROW, window) for job in jobs]
        self.claimed += len(claimed)
        self.held.add(claimed)
        self.cancelling.came(jobs)
        if self._hooked is not None:
            self._hooked.fetched(jobs)
        if self._starter.stopped:
            self.undo_all(claimed)
        return [] if self._starter.stopped else claimed

    def park(self, claimed: list[HeldJob]) -> list[HeldJob]:
        """Give back or keep back the claimed jobs that may not start here; return the others."""
        if self.paused.names:
            claimed = self.paused.sift(claimed)
        if self.paused_queues:
            claimed = self.paused_queues.sift(claimed)
        return self.stragglers.park(claimed, self.dispatch, self.undo) if self.stragglers.have_lost_jobs else claimed

    def dispatch(self, lane: Lane) -> None:
        """Have ready jobs started while slots are free."""
        self._starter.dispatch(lane)

    def go_on(self) -> None:
        """The lease is good again: start what is ready."""
        for lane in self.held.lanes:
            self.dispatch(lane)

    def undo_all(self, unstarted: Iterable[HeldJob]) -> None:
        """Give back jobs that never took a slot."""
        for running in unstarted:
            self.undo(running)

    def undo(self, running: HeldJob) -> None:
        """Give back one such job."""
        self.cancelling.note_keep(running)
        running.ending = GIVEN_BACK
        self._unstarted += running.window is None  # what a window lets go has not been claimed yet
        self.ended(running)

    async def drain(self, timeout: float) -> None:
        """Give back what has not begun, wait `timeout` seconds for the rest, and hold what still runs till `let_go`."""
        self._return_unstarted()
        self.undo_all(self.stragglers.return_parked())
        await drain(self._running, self.threads.under_way, timeout)

    def let_go(self) -> None:
        """Give back the jobs whose handlers still run after a drain; these are stragglers from now on."""
        for running in list(self._running):
            self.stragglers.lost(running)
            self._end(running, GIVEN_BACK)

    def _lost(self, running: HeldJob) -> None:
        """Give back a job that is lost and has not started; else cancel it, unless its handler runs in a thread."""
        if running.withdraw():
            self.undo(running)
        elif running in self._running:
            if running not in self.threads.under_way:
                cancel(running)
            self.stragglers.lost(running)

    def close(self) -> None:
        """Let the threads of synchronous handlers go."""
        self.threads.close()
        self._guard.close()

    async def _attempt(self, running: HeldJob) -> None:
        CURRENT.set(running.job)  # the context is this attempt's own
        try:
            if flagged := running.job.has_orders:
                await self.progress.read(running)
            work = self._prepare(running, flagged)
            if isinstance(work, Ending):
                ending: Ending = work
            elif work is None:
                ending = GIVEN_BACK
            else:
                running.handler_started = True
                running.began = time.monotonic() if self.notes_starts else 0.0
                value = await (work if running.limits is NO_LIMITS else self._timed.run(running, work))
                if running.own is not None:
                    await refuse_open(running.own)
                keeps = running.keep is not None
                ending = self._outcomes.kept(running.job, value, self.interrupted) if keeps else COMPLETED
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its attempt's failure
            if self._guard.forked:
                self._guard.leave(error)
            ending = self._raised(running, error)
        if self._guard.forked:
            self._guard.leave()
        self._end(running, ending)

    def _prepare(self, running: HeldJob, flagged: bool) -> Awaitable[Any] | Ending | None:
        """Prepare the handler's call.

        Returns:
            The call, ready to be awaited; the ending, where the attempt ended before its handler could run; None where
            this worker does not know the job's task, so that the job goes back.
        """
        job = running.job
        task = self._registry.get(job.task_identifier)
        if task is not None and task.keep_seconds is not None:
            running.keep = task.keep_seconds
        if not job.readable:
            return self._outcomes.failure(job, task, PayloadDecodeError(unreadable(job)))
        if task is None:
            return None
        if flagged or task.timeout is not None:
            running.limits = limits_of(job, task)
            if (ending := self._outcomes.at_once(job, running.limits)) is not None:
                return ending
        shape = task.shape
        if shape.in_process:
            return self.processes.prepare(running, task)
        try:
            payload = (task.decoder or task.resolve())(job.payload_bytes) if shape.payload is not None else None
        except PayloadDecodeError as error:
            error.__cause__ = None  # its message says the same, and the decoder's frames say nothing
            return self._outcomes.failure(job, task, error.with_traceback(None))
        context = self.contexts.make(running) if shape.context else None
        threads = self.threads.run if shape.is_async else functools.partial(self.threads.run, running)
        if self._hooked is None:
            work = task.invoke(payload, context, threads)
        else:
            call = functools.partial(task.invoke, payload, context, threads)
            work = self._hooked.run(running, task, payload, call)
        return work

    def _raised(self, running: HeldJob, error: BaseException) -> Ending:
        """How an attempt ends whose handler raised. The error's own code may fail when the error is looked at."""
        try:
            return self._looked_at(running, error)
        except BaseException as broken:  # noqa: BLE001 - the job must end even then
            return self._outcomes.unknown(running.job, error, broken)

    def _looked_at(self, running: HeldJob, error: BaseException) -> Ending:
        if isinstance(error, Answered):
            return error.ending
        task = self._registry.get(running.job.task_identifier)
        if (task is None or task.runs_on_loop) and (found := ctrl_c_in(error)) is not None:
            self.interrupted(found)
        if (decided := ending_after(running, error)) is not None:
            return decided
        if running.cancellation is not None:
            return self._outcomes.cancelled(running.job, running.cancellation)
        if running.given_up or self._was_swept_away():
            return GIVEN_BACK
        if not running.handler_started and isinstance(error, asyncio.CancelledError):
            return GIVEN_BACK
        if not running.handler_started and not isinstance(error, SystemExit):
            # It is a bug of ours, or the task cannot be resolved. The job must still end.
            logger.error("job %d (%s): the attempt broke", running.job.id, running.job.task_identifier, exc_info=error)
        return self._outcomes.judged(running, error)

    def _was_swept_away(self) -> bool:
        """Whether this task was cancelled together with the worker's own tasks, so that the worker ends.

        If so, jobs that have not begun go back at once, so that none of them takes a slot that falls free.
        """
        task = asyncio.current_task()
        if task is None or not task.cancelling() or not self.worker_cancelled():
            return False
        self._return_unstarted()
        return True

    def _return_unstarted(self) -> None:
        """Give back all jobs that have not started, now and from now on; no job gets the share of another."""
        self._starter.stopped = True
        self.undo_all(self.kept_back())
        for lane in self.held.lanes:
            self.undo_all(lane.take_ready())

    def _end(self, running: HeldJob, ending: Ending) -> None:
        if running.ending is not None:
            return
        if running.own is not None:
            ending = running.own.ending or ending
        if ending is not COMPLETED:
            ending = self.cancelling.instead_of(running, ending)
            self._outcomes.count(ending)
        running.ending = ending
        self._running.discard(running)
        lane = running.lane
        lane.free += 1
        running.ended = now = time.monotonic()
        lane.unseen -= 1
        if lane.unseen <= 0:
            lane.note_end(now - running.slot_taken_at)
        self.ended(running)
        self._starter.dispatch(lane)
