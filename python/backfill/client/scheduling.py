"""Asks the interceptors of `BeforeJobSchedule` about a job, before a client adds it.

Used by `enqueue` for one job and by `bulk` for each item. While a callback runs, the call holds nothing that another
call of the client could wait for: a connection is taken after the last answer, and a bulk call treats callbacks as it
treats an asynchronous iterable. A client whose plugins have no such callback has no `Scheduling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from backfill.client.prepare import JobShape
from backfill.errors import BackfillError, InvalidPayloadError, JobScheduleRefusedError
from backfill.hooks import BeforeJobSchedule, ContinueWith, Fail, HookRegistry, Skip, answer_of
from backfill.hooks.registry import ScheduleCallback, name_of
from backfill.jobs import JobSpec, NewJob, with_payload

Settled = Callable[[NewJob[Any]], tuple[JobSpec, JobShape]]
"""A function that gives a job's settings, as a spec and as the shape that is written."""

DEEPEST: Final = 16
"""How deep calls that add jobs may be nested, each of them in a callback that was asked about the job before."""
_depth: ContextVar[int] = ContextVar("backfill_scheduling_depth", default=0)


class Scheduling:
    """The interceptors that a client asks about each job that it is to add, in the order of their registration."""

    def __init__(self, callbacks: Sequence[ScheduleCallback]) -> None:
        self._callbacks = [(callback, name_of(callback)) for callback in callbacks]

    @classmethod
    def of(cls, hooks: HookRegistry) -> Scheduling | None:
        """Return the interceptors of a registry; None if it has none, so that each call costs one comparison only."""
        callbacks = hooks.schedule_chain()
        return cls(callbacks) if callbacks else None

    async def ask(
        self, job: NewJob[Any], settled: Settled, schedule: str | None = None
    ) -> tuple[JobShape, bytes] | JobScheduleRefusedError:
        """Ask one interceptor after the other about a job.

        Each one gets the payload that the one before it answered with, and the first Skip or Fail is the last answer.

        Args:
            job: the job.
            settled: gives the settings of the job. A payload that replaced another may change them, since a task may
                choose the queue by the payload.
            schedule: the identifier of the recurring job whose run the job is for; None for all other jobs.

        Returns:
            The job's shape and its payload's JSON; or, if the job is not to be added, the error that says so. It is
            returned and not raised, because an interceptor may itself raise this error, about a job of its own.

        Raises:
            InvalidPayloadError: the payload cannot be sent. If an interceptor answered with it, the error names that
                interceptor.
            BackfillError: interceptors add jobs about which interceptors are asked, without an end.
            Exception: what an interceptor raised, with a note that names the interceptor.
        """
        spec, shape = settled(job)
        source: str | None = None
        for callback, name in self._callbacks:
            event = BeforeJobSchedule(job.task, job.payload, spec, schedule)
            answer = await _answer(callback, name, event)
            if isinstance(answer, Skip):
                return JobScheduleRefusedError(job.task, name, None)
            if isinstance(answer, Fail):
                return JobScheduleRefusedError(job.task, name, str(answer.message))
            if isinstance(answer, ContinueWith):
                source = name
                with _blaming(source, job.task):
                    job = with_payload(job, answer.payload)
                    spec, shape = settled(job)
        if source is None:
            return shape.written(job.payload)
        with _blaming(source, job.task):
            return shape.written(job.payload)


async def _answer(callback: ScheduleCallback, name: str, event: BeforeJobSchedule) -> Any:
    """Ask one interceptor, unless calls are nested too deep; an error that it raises gets a note that names it."""
    depth, task = _depth.get(), event.identifier
    if depth >= DEEPEST:
        raise BackfillError(
            f"task {task!r}: {name} was not asked about this job, because {DEEPEST} callbacks of BeforeJobSchedule "
            "wait for each other, each for a job that it adds; let a callback return None, before it adds a job, for "
            "the tasks of the jobs that callbacks add"
        )
    token = _depth.set(depth + 1)
    try:
        return await answer_of(callback, event)
    except Exception as error:
        _note(error, f"raised by {name}, a callback of BeforeJobSchedule that was asked about a job of task {task!r}")
        raise
    finally:
        _depth.reset(token)


def _note(error: Exception, note: str) -> None:
    if note not in getattr(error, "__notes__", ()):  # a program may raise the same object again
        error.add_note(note)


@contextmanager
def _blaming(source: str, task: str) -> Iterator[None]:
    """Have an error about a payload say which interceptor answered with that payload."""
    try:
        yield
    except InvalidPayloadError as error:
        limit = f"{error.limit} (the payload is the answer of {source}, a callback of BeforeJobSchedule)"
        raise InvalidPayloadError(error.field, error.value, limit) from error
    except Exception as error:
        _note(error, f"caused by the payload that {source} answered with for a job of task {task!r}")
        raise
