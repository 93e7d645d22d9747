"""A plugin that logs each event of workers and jobs: a line for people, and fields for programs that read logs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from backfill.errors import ConfigurationError
from backfill.hooks.events import (
    OBSERVED,
    CronJobScheduled,
    CronTick,
    JobCancelled,
    JobComplete,
    JobDiscarded,
    JobFail,
    JobFetch,
    JobInterrupted,
    JobPermanentlyFail,
    JobSnoozed,
    JobStart,
    LeaseLost,
    ObservedEvent,
    WorkerInit,
    WorkerRecovered,
    WorkerShutdown,
    WorkerStart,
)
from backfill.hooks.registry import HookRegistry
from backfill.logs import fields_of
from backfill.records import Job

_LEVELS: Final[dict[type[ObservedEvent], int]] = {
    WorkerInit: logging.INFO,
    WorkerStart: logging.INFO,
    WorkerShutdown: logging.INFO,
    WorkerRecovered: logging.WARNING,
    LeaseLost: logging.ERROR,
    JobFetch: logging.DEBUG,
    JobStart: logging.DEBUG,
    JobComplete: logging.INFO,
    JobFail: logging.WARNING,
    JobPermanentlyFail: logging.ERROR,
    JobDiscarded: logging.INFO,
    JobSnoozed: logging.INFO,
    JobInterrupted: logging.WARNING,
    JobCancelled: logging.INFO,
    CronTick: logging.DEBUG,
    CronJobScheduled: logging.INFO,
}
_TEXTS: Final[dict[type[Any], Callable[[Any], str]]] = {
    WorkerInit: lambda it: f"starts on {it.database}, schema {it.schema}, {it.concurrency} jobs at once",
    WorkerStart: lambda it: "begins to claim jobs" + (f", in the place of {it.replaces}" if it.replaces else ""),
    WorkerShutdown: lambda it: f"has stopped: {it.reason}",
    WorkerRecovered: lambda it: f"is dead: {it.jobs} jobs and {it.queues} queues of it were recovered by {it.by}",
    LeaseLost: lambda it: f"was given up by the others, with {it.jobs} jobs",
    JobFetch: lambda _: "is claimed",
    JobStart: lambda _: "starts",
    JobComplete: lambda it: f"is done after {_seconds(it.duration)}",
    JobFail: lambda it: f"failed ({it.reason}) after {_seconds(it.duration)}, and is tried again: {_line(it.error)}",
    JobPermanentlyFail: lambda it: f"failed ({it.reason}) after {_seconds(it.duration)} for good: {_line(it.error)}",
    JobDiscarded: lambda it: f"is discarded by its handler: {_line(it.reason)}",
    JobSnoozed: lambda it: f"is put off for {it.delay}",
    JobInterrupted: lambda it: f"is interrupted after {_seconds(it.duration)}: {it.reason}",
    JobCancelled: lambda it: f"is cancelled: {_line(it.reason or 'no reason given')}",
    CronTick: lambda it: f"finds runs due of {len(it.schedules)} recurring jobs",
    CronJobScheduled: lambda it: f"has enqueued job {it.job_id} of {it.schedule.identifier!r} for {_time(it)}",
}
_FIELDS: Final = ("worker_id", "reason", "replaces", "database", "schema", "concurrency", "jobs", "queues", "by")
_LONGEST: Final = 500


class LoggingPlugin:
    """Logs the events of workers and jobs: one line each, and the event's fields in the record's `extra`.

    No line and no field holds a payload or a result. A record of a job has the fields `job_id`, `task` and `attempt`;
    every record has `event`, and the event's own fields, with `duration` and `delay` in seconds.

    Args:
        logger: the logger to write to; `backfill.events` if not given.
        levels: the level of an event in the place of its usual one; None leaves the event out. The usual ones are DEBUG
            for JobFetch, JobStart and CronTick, WARNING for JobFail, JobInterrupted and WorkerRecovered, ERROR for
            JobPermanentlyFail and LeaseLost, and INFO for the others.

    Raises:
        ConfigurationError: `levels` names something that is no event of observers, or a level that is no number.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        levels: Mapping[type[ObservedEvent], int | None] | None = None,
    ) -> None:
        self._logger = logging.getLogger("backfill.events") if logger is None else logger
        for event, level in (levels or {}).items():
            if event not in OBSERVED:
                names = ", ".join(one.__name__ for one in OBSERVED)
                raise ConfigurationError(f"levels: {event!r} is no event of observers; expected one of {names}")
            if level is not None and (not isinstance(level, int) or isinstance(level, bool)):
                raise ConfigurationError(
                    f"levels[{event.__name__}] = {level!r}: expected a level such as logging.INFO, or None to leave "
                    "the event out"
                )
        self._levels: dict[type[ObservedEvent], int | None] = {**_LEVELS, **(levels or {})}

    def register(self, hooks: HookRegistry) -> None:
        """Register for all events that have a level."""
        for event, level in self._levels.items():
            if level is not None:
                hooks.on(event, self._log)

    def _log(self, event: ObservedEvent) -> None:
        kind = type(event)
        level = self._levels[kind]
        if level is None or not self._logger.isEnabledFor(level):
            return
        fields: dict[str, Any] = {"event": kind.__name__}
        fields |= {name: getattr(event, name) for name in _FIELDS if hasattr(event, name)}
        if isinstance(event, CronTick):
            fields |= {"timestamp": event.timestamp.isoformat(), "schedules": len(event.schedules)}
        elif isinstance(event, CronJobScheduled):
            fields |= {"schedule": event.schedule.identifier, "scheduled_at": event.scheduled_at.isoformat()}
            fields |= {"job_id": event.job_id, "task": event.schedule.task}
        fields |= {name: getattr(event, name).total_seconds() for name in ("duration", "delay") if hasattr(event, name)}
        job: Job | None = getattr(event, "job", None)
        if job is None:
            who = f"worker {fields['worker_id']}" if "worker_id" in fields else "a worker"
        else:
            who = f"job {job.id} ({job.task_identifier})"
            fields |= fields_of(job)
        self._logger.log(level, "%s %s", who, _TEXTS[kind](event), extra=fields)


def _time(event: CronJobScheduled) -> str:
    return f"{event.scheduled_at:%Y-%m-%d %H:%M:%S} UTC"


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.3f} s"


def _line(text: str) -> str:
    """The first line of a text, shortened."""
    line = text.partition("\n")[0]
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
