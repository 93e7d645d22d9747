"""Which job a log record belongs to: a record that is made while a job runs carries the job's id, task and attempt.

In a program that makes traces, records that are made within a span carry the ids of the trace and the span, too.

This holds for every logger. A worker sets a context variable for each attempt. Tasks and threads that a handler starts
inherit the variable, and a filter on a log handler reads it. `backfill worker` has that filter; any other program calls
`install()` once, after it has set up its logs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from backfill.errors import ConfigurationError

if TYPE_CHECKING:
    from backfill.records import Job

__all__ = ["FIELDS", "TRACE_FIELDS", "JobLogFilter", "RetryTraceback", "fields", "install"]

FIELDS: Final = ("job_id", "task", "attempt")
"""The names under which a record carries its job."""
TRACE_FIELDS: Final = ("trace_id", "span_id")
"""The names under which a record carries the span that it was made in, in a program that makes traces."""
CURRENT: Final[ContextVar[Job | None]] = ContextVar("backfill_job", default=None)
"""The job whose attempt runs in this context; a worker sets it."""


_NO_IDS: Final = None, None
_current_ids: Callable[[], tuple[str, str] | None] | None = None


def show_traces(current: Callable[[], tuple[str, str] | None]) -> None:
    """Have records show which span they were made in; a plugin for traces calls this.

    Args:
        current: gives the ids of the current trace and span, in hexadecimal; None where no span is current.
    """
    global _current_ids
    _current_ids = current


class RetryTraceback(StrEnum):
    """How much traceback the log shows for a failure that is retried; the last failure's is always shown in full."""

    NONE = "none"
    SHORT = "short"
    FULL = "full"


def fields() -> dict[str, Any]:
    """The id, task and attempt of the job that runs here, by their names; empty if no job runs here.

    In a program that makes traces, it has the ids of the current trace and span too, also where no job runs. This is
    for other logging libraries: add these fields to each of their records.
    """
    job = CURRENT.get()
    found = {} if job is None else fields_of(job)
    return found if _current_ids is None else found | trace_fields()


def trace_fields() -> dict[str, Any]:
    """The ids of the current trace and span, by their names; empty where no span is current, or nothing is traced."""
    ids = None if _current_ids is None else _current_ids()
    return {} if ids is None else dict(zip(TRACE_FIELDS, ids, strict=True))


def fields_of(job: Job) -> dict[str, Any]:
    """The id, task and attempt of the given job, by their names, for a record's `extra`."""
    return {"job_id": job.id, "task": job.task_identifier, "attempt": job.attempts}


class JobLogFilter(logging.Filter):
    """Lets every record pass, and gives it the fields of the job that runs where the record is made.

    Put this filter on a handler, since a logger's own filter does not see the records of the loggers below it. If
    records go through a queue, put it on the `QueueHandler`, since the listener's handlers run in another thread. A
    field that the record already has from its `extra` is kept. If no job runs, each field is None, so that a format may
    name the fields. In a program that makes traces, records have the two fields of the current span in the same way.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Give a record the fields of its job."""
        job = CURRENT.get()
        values = (None, None, None) if job is None else (job.id, job.task_identifier, job.attempts)
        for name, value in zip(FIELDS, values, strict=True):
            if getattr(record, name, None) is None:
                setattr(record, name, value)
        if _current_ids is not None:
            for name, value in zip(TRACE_FIELDS, _current_ids() or _NO_IDS, strict=True):
                if getattr(record, name, None) is None:
                    setattr(record, name, value)
        return True


def install(*handlers: logging.Handler) -> None:
    """Put a `JobLogFilter` on log handlers, so that their records carry their job; a second call changes nothing.

    Args:
        handlers: the log handlers; if none is given, all that any logger has at this moment.

    Raises:
        ConfigurationError: no logger has a handler yet.
    """
    chosen = handlers or tuple(_all_handlers())
    if not chosen:
        raise ConfigurationError(
            "logs.install: no logger has a handler yet; call it after logging.basicConfig or dictConfig, or give "
            "handlers"
        )
    for handler in chosen:
        if not any(isinstance(one, JobLogFilter) for one in handler.filters):
            handler.addFilter(JobLogFilter())


@contextmanager
def outside_jobs() -> Iterator[None]:
    """Run a block of code as if no job ran here, since what it starts outlives the job, as a shared pool's tasks do."""
    token = CURRENT.set(None)
    try:
        yield
    finally:
        CURRENT.reset(token)


def _all_handlers() -> Iterator[logging.Handler]:
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        if isinstance(logger, logging.Logger):
            yield from logger.handlers
