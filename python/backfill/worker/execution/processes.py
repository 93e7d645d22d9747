"""Runs synchronous handlers in child processes, where their tasks say so.

The attempt stays a task on the worker's loop, which waits for its child. So it is cancelled like an async handler, and
the pool ends the child then: no handler in a process outlives its attempt.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import pickle
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import psycopg

from backfill.errors import BackfillError, PayloadDecodeError, ProcessDiedError
from backfill.importable import reference_to
from backfill.logs import fields_of
from backfill.middleware import is_async
from backfill.said import why
from backfill.tasks import Task, TaskRegistry
from backfill.worker.execution.endings import Answered, Ending, Snoozed
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.policy import NO_LIMITS
from backfill.worker.execution.time_limit import TimeLimit
from backfill.worker.in_child.crossing import (
    CHECKPOINT,
    DONE,
    NO_RESULT,
    PREPARED,
    PREPARING,
    PROGRESS,
    RECORD,
    RESULT,
    UNFIT,
    Request,
    ResultInJson,
    ResultNotInJson,
    said_to_stop,
)
from backfill.worker.in_child.raised import unpacked
from backfill.worker.in_child.records import replay
from backfill.worker.processes.calls import Call
from backfill.worker.processes.deaths import ChildDied, ChildFailed
from backfill.worker.processes.pool import ChildPool

if TYPE_CHECKING:
    from backfill.hooks.tracing import Crossing
    from backfill.worker.execution.contexts import Contexts
    from backfill.worker.execution.hooked import Hooked
    from backfill.worker.execution.outcomes import Outcomes
    from backfill.worker.execution.progress import ProgressBook

logger = logging.getLogger(__name__)

PUT_OFF_SECONDS: Final = 5.0
"""How many seconds a job is put off for which no process could be started, or none that the worker's row names."""
_TROUBLES: Final = (BackfillError, psycopg.Error, TimeoutError, OSError)


class HandlerProcesses:
    """Runs the attempts of one session whose handlers run in processes.

    Args:
        outcomes: makes the endings.
        contexts: makes the contexts of async middleware.
        hooked: runs attempts with the interceptors of plugins around them; None where there are none.
        book: what handlers say about their progress.

    Attributes:
        crossing: returns what makes the current span current in a child; None where no span is current.
    """

    def __init__(self, outcomes: Outcomes, contexts: Contexts, hooked: Hooked | None, book: ProgressBook) -> None:
        self._outcomes = outcomes
        self._contexts = contexts
        self._hooked = hooked
        self._book = book
        self.crossing: Callable[[], Crossing | None] = lambda: None
        self._limits: dict[HeldJob, TimeLimit] = {}
        self._names: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._pool: ChildPool
        self._worker_id = ""
        self._follows = False

    def attach(self, pool: ChildPool, registry: TaskRegistry[Any], worker_id: str, slots: int | None) -> None:
        """Run handlers in these children. It is called only where tasks have such handlers.

        Args:
            pool: the children, which all sessions of a worker share.
            registry: the tasks, without their middleware.
            worker_id: the worker's id.
            slots: how many slots the lanes have; None where the settings say how many children there are.
        """
        self._pool = pool
        self._worker_id = worker_id
        self._names = {
            task.identifier: (reference_to(task.handler), _middleware_in(registry, task))
            for task in registry
            if task.shape.in_process
        }
        if slots is not None:
            self._follows = True
            pool.resize(slots)

    def keep(self, slots: int) -> None:
        """Let there be as many children as the lanes have slots, unless the settings say how many there are."""
        if self._follows:
            self._pool.resize(slots)

    def prepare(self, running: HeldJob, task: Task[Any, Any]) -> Awaitable[Any] | Ending:
        """Prepare the call of a handler, as the executor does for the others.

        The payload is decoded here only where interceptors or async middleware come before the handler: an attempt
        whose payload does not fit must not reach them. Otherwise the child alone decodes it.
        """
        payload, looked_at = None, self._hooked is not None or task.runs_on_loop
        if looked_at and task.shape.payload is not None:
            try:
                payload = task.decode(running.job.payload_bytes)
            except PayloadDecodeError as error:
                return self._unfit(running, task, error)
        wanted = running.keep is not None or looked_at
        run = functools.partial(self._run, running, task, wanted, looked_at)
        context = self._contexts.make(running) if task.runs_on_loop else None
        call: Callable[[], Awaitable[Any]] = (
            functools.partial(task.invoke, payload, context, run) if task.runs_on_loop else run
        )
        work = call() if self._hooked is None else self._hooked.run(running, task, payload, call)
        return work if running.limits is NO_LIMITS else self._within(running, task, work)

    async def _within(self, running: HeldJob, task: Task[Any, Any], work: Awaitable[Any]) -> Any:
        """Await an attempt that has a time limit.

        Raises:
            Answered: the time was over; it holds the failure.
        """
        timed = self._limits[running] = TimeLimit(running.limits)
        try:
            async with timed.limit:
                return await work
        except TimeoutError as error:
            if not timed.limit.expired() or running.given_up or running.cancellation is not None:
                raise
            raise Answered(self._outcomes.timed_out(running.job, task, timed.reached, error)) from None
        finally:
            del self._limits[running]

    async def _run(self, running: HeldJob, task: Task[Any, Any], wanted: bool, looked_at: bool, *_: Any) -> Any:
        """Run a handler in a child, and return its result or raise its error.

        Until a child begins, the attempt counts as one that has not started, so that a stop gives its job back at once.

        Raises:
            Answered: the payload did not fit the handler's type, or no child could be started.
            ProcessDiedError: the child died.
            BaseException: whatever the handler raised.
        """
        name, middleware = self._names[task.identifier]
        checkpoint = self._book.checkpointed_encoded(running)
        request = Request(name, middleware, running.job, self._worker_id, checkpoint, wanted, self.crossing())
        call = Call(request.packed())
        timed = self._limits.get(running)

        def begin() -> None:
            running.handler_started = True
            running.tell_stops(_StopTeller(running, functools.partial(self._pool.stop, call)))
            if timed is not None:
                timed.begin()

        running.handler_started = False
        if timed is not None:
            timed.hold()
        try:
            outcome = await self._pool.run(call, functools.partial(self._hear, running), begin)
        except asyncio.CancelledError:
            raise
        except ChildDied as died:
            running.handler_started = True
            error = ProcessDiedError(died.reason, died.signal, died.exit_code)
        except ChildFailed:  # a mistake of this package
            running.handler_started = True
            raise
        except _TROUBLES as trouble:  # none could be started, or the worker's row could not be told of it
            raise self._put_off(running, trouble) from None
        else:
            return self._came(running, task, outcome.data, looked_at=looked_at)
        raise error

    def _came(self, running: HeldJob, task: Task[Any, Any], reply: bytes, *, looked_at: bool) -> Any:
        """The result of a handler, from its child's reply; or what the handler raised is raised here."""
        kind, rest = reply[:1], reply[1:]
        if kind == DONE:
            return None
        if kind == RESULT:
            return _seen(task, rest) if looked_at else ResultInJson(rest)
        if kind == NO_RESULT:
            return ResultNotInJson(unpacked(rest))
        if kind == UNFIT:
            error = PayloadDecodeError(rest.decode("utf-8", "surrogatepass"))
            raise Answered(self._unfit(running, task, error))
        raised = unpacked(rest)
        if isinstance(raised, StopIteration):  # a coroutine cannot raise it
            raised = RuntimeError(f"the handler raised StopIteration: {raised}")
        raise raised

    def _put_off(self, running: HeldJob, trouble: Exception) -> Answered:
        job = running.job
        logger.warning(
            "job %d (%s) is tried again in %g seconds, since no process could be started for it: %s",
            job.id, job.task_identifier, PUT_OFF_SECONDS, why(trouble), extra=fields_of(job),
        )  # fmt: skip
        return Answered(Snoozed(PUT_OFF_SECONDS, recorded=False))

    def _hear(self, running: HeldJob, kind: str, data: bytes) -> None:
        """Handle a message of a running handler. Nothing that it holds may harm the worker or other jobs."""
        try:
            if kind == RECORD:
                replay(data)
            elif kind == PREPARING and running in self._limits:
                self._limits[running].prepare()
            elif kind == PREPARED and running in self._limits:
                self._limits[running].begin()
            elif kind == PROGRESS:
                self._book.progress(running, *pickle.loads(data))  # noqa: S301 - from a child of this worker
            elif kind == CHECKPOINT:
                self._book.checkpoint_encoded(running, data)
        except Exception:
            logger.exception("a message of the process that runs job %d cannot be used", running.job.id)

    def _unfit(self, running: HeldJob, task: Task[Any, Any], error: PayloadDecodeError) -> Ending:
        error.__cause__ = None
        return self._outcomes.failure(running.job, task, error.with_traceback(None))


class _StopTeller(threading.Event):
    """An event that tells an attempt's child each time it is set.

    Args:
        running: the attempt.
        tell: called with the reason.
    """

    def __init__(self, running: HeldJob, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._running = running
        self._tell = tell

    def set(self) -> None:
        """Set the event, and tell the child why its handler should end."""
        super().set()
        self._tell(said_to_stop(worker_stops=self._running.worker_stops, cancellation=self._running.cancellation))


def _middleware_in(registry: TaskRegistry[Any], task: Task[Any, Any]) -> tuple[str, ...]:
    """The names of the middleware that runs in the child: the synchronous functions around the handler."""
    return tuple(reference_to(function) for function in registry.middleware_of(task) if not is_async(function))


def _seen(task: Task[Any, Any], raw: bytes) -> Any:
    """A handler's result as interceptors and middleware see it; as JSON where it cannot be read as its type."""
    try:
        return task.decode_result(raw)
    except BackfillError:
        return ResultInJson(raw)
