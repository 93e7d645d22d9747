"""The executor: one asyncio task a job, from the claimed row to what its attempt came to.

An attempt is a row of steps: read the row, look up its task, decode its payload, run the handler, say how it ended. What
a handler raises is its attempt's failure and never the worker's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from backfill.client import BackfillClient
from backfill.errors import PayloadDecodeError
from backfill.records import Job
from backfill.storage.attempts import Attempt, Failure
from backfill.storage.rows import unreadable
from backfill.tasks import Task, TaskRegistry
from backfill.worker.context import WorkerContext
from backfill.worker.failures import cleansed, describe
from backfill.worker.lane import Lane
from backfill.worker.policy import AttemptLimits, limits_of
from backfill.worker.threads import HandlerThreads

logger = logging.getLogger(__name__)

CANCEL_GRACE: Final = 5.0
"""Seconds that a cancelled handler has to end before its job is given back all the same."""


@dataclass(slots=True, eq=False)
class Running:
    """An attempt under way.

    Attributes:
        job: the row as it was claimed.
        attempt: what identifies it to the database.
        lane: whose slot it uses.
        stop: set when its handler should end.
        begun: whether its handler may have run.
        given_up: whether the worker cancelled it at a shutdown.
        task: the asyncio task.
    """

    job: Job
    attempt: Attempt
    lane: Lane
    stop: threading.Event = field(default_factory=threading.Event)
    begun: bool = False
    given_up: bool = False
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """The attempt ended well."""


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The attempt is undone: it goes back as it was."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed; `final` leaves no other."""

    error: str
    final: bool = False


Ending = Completed | GivenBack | Failed


class Executor:
    """Runs attempts and hands their ends on.

    Args:
        registry: the tasks.
        worker_id: for the context.
        client: for the context.
        deps: for the context.
        ended: called on the loop with each attempt and how it ended; it must not block.
    """

    def __init__(
        self,
        registry: TaskRegistry[Any],
        *,
        worker_id: str,
        client: BackfillClient,
        deps: Any,
        ended: Callable[[Running, Ending], None],
    ) -> None:
        self._registry = registry
        self._worker_id = worker_id
        self._client = client
        self._deps = deps
        self._ended = ended
        self._threads = HandlerThreads(f"backfill-{worker_id[-6:]}")
        self._running: set[Running] = set()
        self.held: dict[int, Running] = {}
        """What this worker has claimed and not settled, by the job's id."""

    @property
    def active(self) -> int:
        """Attempts whose handlers have not ended."""
        return len(self._running)

    def hold(self, job: Job, lane: Lane) -> Running:
        """Note a claimed job as ours; its slot is taken."""
        running = Running(job, Attempt.of(job), lane)
        self.held[job.id] = running
        lane.free -= 1
        return running

    def start(self, running: Running) -> None:
        """Run a held job in a task of its own."""
        self._running.add(running)
        name = f"backfill-job-{running.job.id}"
        running.task = asyncio.get_running_loop().create_task(self._attempt(running), name=name)
        # A task that is cancelled before its first step never enters its body; the job must still go back.
        running.task.add_done_callback(lambda _: self._end(running, GivenBack()))

    async def drain(self, timeout: float) -> None:
        """Wait for what runs, at most so many seconds, and give the rest back.

        What has not begun goes back at once. Async handlers are cancelled when the time is up; synchronous ones were
        asked from the start, by `ctx.should_stop`, and are left to themselves then.
        """
        for running in list(self._running):
            running.stop.set()
            if not running.begun:
                self._cancel(running)
        await self._wait(timeout)
        if not self._running:
            return
        logger.warning("the shutdown's deadline is over: %d jobs are interrupted and given back", len(self._running))
        for running in list(self._running):
            self._cancel(running)
        await self._wait(CANCEL_GRACE)
        for running in list(self._running):
            logger.warning("job %d (%s) does not end when cancelled", running.job.id, running.job.task_identifier)
            self._end(running, GivenBack())

    def close(self) -> None:
        """Let the threads of synchronous handlers go."""
        self._threads.close()

    async def _wait(self, timeout: float) -> None:
        tasks = [running.task for running in self._running if running.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def _cancel(self, running: Running) -> None:
        running.given_up = True
        if running.task is not None:
            running.task.cancel()

    async def _attempt(self, running: Running) -> None:
        try:
            ending = await self._perform(running)
        except asyncio.CancelledError:  # before the handler began, or while it gave up
            ending = GivenBack()
        except (KeyboardInterrupt, SystemExit) as error:
            if isinstance(error, SystemExit):
                ending = Failed(describe(error))
            else:
                self._end(running, GivenBack())
                raise
        except BaseException as error:
            # Not the handler's: ours. The job must not be lost with it.
            logger.exception("job %d (%s): the attempt broke", running.job.id, running.job.task_identifier)
            ending = Failed(describe(error))
        self._end(running, ending)

    async def _perform(self, running: Running) -> Ending:
        job = running.job
        reason = unreadable(job)
        if reason is not None:
            return self._failure(job, f"PayloadDecodeError: {reason}")
        task = self._registry.get(job.task_identifier)
        if task is None:
            return GivenBack()
        limits = limits_of(job, task)
        if limits.remaining is not None and limits.remaining.total_seconds() <= 0:
            return self._failure(job, "the job's deadline was over before this attempt began", final=True)
        try:
            payload = task.decode(job.payload_bytes) if task.shape.payload is not None else None
        except PayloadDecodeError as error:
            return self._failure(job, f"PayloadDecodeError: {error}")
        context = WorkerContext(
            job=job, worker_id=self._worker_id, deps=self._deps, client=self._client, stop=running.stop
        )
        running.begun = True
        return await self._run(running, task, limits, task.run(payload, context, threads=self._threads.run))

    async def _run(
        self, running: Running, task: Task[Any, Any], limits: AttemptLimits, work: Coroutine[Any, Any, Any]
    ) -> Ending:
        limit = asyncio.timeout(limits.seconds if task.shape.is_async else None)
        alarm = None
        if limits.seconds is not None and not task.shape.is_async:
            alarm = asyncio.get_running_loop().call_later(limits.seconds, running.stop.set)
        try:
            async with limit:
                await work
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its attempt's failure
            if running.given_up:
                return GivenBack()
            if limit.expired() and isinstance(error, TimeoutError):
                return self._timed_out(running.job, limits)
            return self._failure(running.job, describe(error))
        finally:
            if alarm is not None:
                alarm.cancel()
        return Completed()

    def _timed_out(self, job: Job, limits: AttemptLimits) -> Failed:
        if limits.deadline_is_nearer:
            return self._failure(job, "TimeoutError: the job's deadline was reached", final=True)
        return self._failure(job, f"TimeoutError: the attempt ran longer than its timeout of {limits.timeout}")

    def _failure(self, job: Job, text: str, *, final: bool = False) -> Failed:
        last = final or job.attempts >= job.max_attempts
        extra = {"job_id": job.id, "task": job.task_identifier, "attempt": job.attempts}
        logger.warning(
            "job %d (%s) failed in attempt %d of %d%s",
            job.id, job.task_identifier, job.attempts, job.max_attempts, ": it was the last" if last else "",
            extra=extra,
        )  # fmt: skip
        logger.debug("job %d: %s", job.id, text, extra=extra)
        return Failed(cleansed(text), final)

    def _end(self, running: Running, ending: Ending) -> None:
        if running not in self._running:
            return
        self._running.discard(running)
        running.lane.free += 1
        self._ended(running, ending)


def as_failure(running: Running, ending: Failed) -> Failure:
    """A failed attempt as the settlement writes it; its delay is left to the contract's schedule."""
    return Failure(running.attempt, ending.error, None, ending.final)
