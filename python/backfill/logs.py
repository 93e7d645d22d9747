"""Which job a log record belongs to: every record made while a job runs, by any logger, carries its id, task and attempt.

A worker sets a context variable for each attempt, which tasks and threads that a handler starts inherit; a filter on a log
handler reads it. `backfill worker` has that filter; any other program calls `install()` once, after it has set up its logs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from backfill.errors import ConfigurationError

if TYPE_CHECKING:
    from backfill.records import Job

__all__ = ["FIELDS", "JobLogFilter", "RetryTraceback", "fields", "install"]

FIELDS: Final = ("job_id", "task", "attempt")
"""The names under which a record carries its job."""
CURRENT: Final[ContextVar[Job | None]] = ContextVar("backfill_job", default=None)
"""The job whose attempt runs in this context; a worker sets it."""


class RetryTraceback(StrEnum):
    """How much of its traceback the log shows of a failure that is tried again; the last one is always told whole."""

    NONE = "none"
    SHORT = "short"
    FULL = "full"


def fields() -> dict[str, Any]:
    """The id, task and attempt of the job that runs here, by their names; nothing where none does.

    For other logging libraries: what is added to each of their records.
    """
    job = CURRENT.get()
    return {} if job is None else fields_of(job)


def fields_of(job: Job) -> dict[str, Any]:
    """The same of a job that is at hand, for a record's `extra`."""
    return {"job_id": job.id, "task": job.task_identifier, "attempt": job.attempts}


class JobLogFilter(logging.Filter):
    """Lets every record pass, and gives it the job that runs where it is made.

    It belongs on a handler, since a logger's own filter is not asked about the records of the loggers below it. Behind a
    queue it belongs on the `QueueHandler`: the listener's handlers run in another thread. A record that was given one of the
    names by its `extra` keeps that; where no job runs each is None, so that a format may name them.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Give a record its job."""
        job = CURRENT.get()
        values = (None, None, None) if job is None else (job.id, job.task_identifier, job.attempts)
        for name, value in zip(FIELDS, values, strict=True):
            if getattr(record, name, None) is None:
                setattr(record, name, value)
        return True


def install(*handlers: logging.Handler) -> None:
    """Give every record that these log handlers see the job that runs where it is made; harmless when repeated.

    Args:
        handlers: which; all that any logger has at this moment, if none is given.

    Raises:
        ConfigurationError: no logger has a handler yet.
    """
    chosen = handlers or tuple(_all_handlers())
    if not chosen:
        raise ConfigurationError(
            "logs.install: no logger has a handler yet; call it after logging.basicConfig or dictConfig, or give handlers"
        )
    for handler in chosen:
        if not any(isinstance(one, JobLogFilter) for one in handler.filters):
            handler.addFilter(JobLogFilter())


@contextmanager
def outside_jobs() -> Iterator[None]:
    """A stretch of code that starts what outlives the job it happens to run for, such as the tasks of a shared pool."""
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
