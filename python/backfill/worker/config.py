"""The settings that a worker gets at its start: its database, lanes and limits, which depend on the deployment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from backfill.client.cleanup import ABANDONED_AFTER, DEFAULT_STALE_LOCK_CLEANUP_INTERVAL
from backfill.errors import ConfigurationError
from backfill.logs import RetryTraceback
from backfill.retry import RetryPolicy
from backfill.storage.claims import LaneFilter, anchored
from backfill.storage.connection import Dsn
from backfill.storage.pasted import is_function, pasted
from backfill.storage.statements import DEFAULT_SCHEMA, quoted_schema
from backfill.worker.address import parse_address

DEFAULT_CONCURRENCY: Final = 10
MOST_CONCURRENT: Final = 10_000
AHEAD_BYTES: Final = 32 * 2**20
MOST_AHEAD_BYTES: Final = 2**40
MOST_JOBS: Final = 10**9
COUNTS: Final = {
    "concurrency": (1, MOST_CONCURRENT),
    "ahead_bytes": (0, MOST_AHEAD_BYTES),
    "pool_size": (1, 1000),
    "process_slots": (1, MOST_CONCURRENT),
    "max_jobs_per_process": (1, MOST_JOBS),
    "max_process_rss": (2**24, MOST_AHEAD_BYTES),
}
"""The least and the most of each setting that is a number."""
SPANS: Final = {
    "poll_interval": (timedelta(milliseconds=10), timedelta(hours=1)),
    "shutdown_timeout": (timedelta(0), timedelta(days=1)),
    "heartbeat_interval": (timedelta(milliseconds=100), timedelta(minutes=15)),
    "dead_after": (timedelta(seconds=1), timedelta(hours=1)),
    "express_window": (timedelta(milliseconds=1), timedelta(seconds=1)),
    "stuck_after": (timedelta(seconds=1), timedelta(days=1)),
    "blocked_after": (timedelta(milliseconds=10), timedelta(hours=1)),
    "dlq_processor_interval": (timedelta(seconds=1), timedelta(days=1)),
    "stale_lock_cleanup_interval": (timedelta(seconds=1), timedelta(days=1)),
    "stale_queue_lock_timeout": (timedelta(seconds=1), timedelta(days=365)),
    "stale_job_lock_timeout": (timedelta(seconds=1), timedelta(days=365)),
}
"""The shortest and the longest of each setting that is a time; `heartbeat_interval` is at most `dead_after` / 4."""
_MAY_BE_NONE: Final = frozenset(
    {"stuck_after", "blocked_after", "dlq_processor_interval", "stale_lock_cleanup_interval"}
)
_UNSAID: Final = frozenset({"concurrency", "process_slots", "max_jobs_per_process", "max_process_rss"})
"""The numbers that may be left unsaid."""
_SMALLINT: Final = range(-32768, 32768)
Globs = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """A lane: a share of a worker's concurrency, with its own filter.

    A job goes to the first lane, in the order given, whose filters all match; a lane without any filter comes last.

    Args:
        name: a label for logs and metrics.
        concurrency: how many of its jobs run at once in this worker; 1 to 10,000.
        tasks: a glob of task names or a list of them (`video.*`); all tasks if not given.
        queues: a glob of serial queues' names or a list of them (`user:*`); if given, the lane takes serial jobs only.
        priority: a range of priorities with step 1, such as `range(-20, 0)`; all if not given.

    Raises:
        ConfigurationError: a value out of range; it is named.
    """

    name: str
    concurrency: int
    tasks: Globs | None = None
    queues: Globs | None = None
    priority: range | None = None

    def __post_init__(self) -> None:
        """Refuse a lane that could never take a job."""
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError(f"QueueConfig.name = {self.name!r}: expected a label")
        check_count(f"QueueConfig({self.name!r}).concurrency", self.concurrency, MOST_CONCURRENT)
        for name in ("tasks", "queues"):
            object.__setattr__(self, name, _globs(f"QueueConfig({self.name!r}).{name}", getattr(self, name)))
        if self.priority is not None:
            _check_range(f"QueueConfig({self.name!r}).priority", self.priority)

    @classmethod
    def default_queue(cls, concurrency: int) -> QueueConfig:
        """A lane for the jobs that no other lane takes, wherever it stands in the list."""
        return cls("default", concurrency)

    @classmethod
    def named_queue(cls, name: str, concurrency: int) -> QueueConfig:
        """A lane for the jobs of one serial queue, or of all whose names match a glob.

        Args:
            name: the queue's name or a glob; it is also the lane's name.
            concurrency: how many of its jobs run at once in this worker; 1 to 10,000.

        Raises:
            ConfigurationError: a value out of range; it is named.
        """
        return cls(name, concurrency, queues=name)

    @classmethod
    def priority_queue(cls, name: str, concurrency: int, priority: range) -> QueueConfig:
        """A lane for jobs of some priorities.

        Args:
            name: a label for logs and metrics.
            concurrency: how many of its jobs run at once in this worker; 1 to 10,000.
            priority: a range with step 1, such as `range(-20, 0)`.

        Raises:
            ConfigurationError: a value out of range; it is named.
        """
        return cls(name, concurrency, priority=priority)

    @property
    def is_default(self) -> bool:
        """Whether the lane has no filter."""
        return self.tasks is None and self.queues is None and self.priority is None

    def matching_tasks(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names that this lane's task filter lets pass."""
        if self.tasks is None:
            return tuple(names)
        expression = re.compile("|".join(anchored(self.tasks)), re.DOTALL)
        return tuple(name for name in names if expression.match(name))

    def filter(self, names: Sequence[str], *, own: bool) -> LaneFilter:
        """The lane's filter over the tasks that a worker knows.

        Args:
            names: the names of the worker's tasks.
            own: whether the filter is for the lane itself, which takes only the worker's tasks; else it serves to
                exclude the lane's jobs from another lane.
        """
        tasks = self.matching_tasks(names) if own or self.tasks is not None else None
        queues = None if self.queues is None else anchored(self.queues)
        priority = None if self.priority is None else (self.priority.start, self.priority.stop - 1)
        return LaneFilter(tasks, queues, priority)


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The settings that a worker gets at its start.

    Args:
        dsn: a connection string, or a callable that is asked for one at each new connection; `DATABASE_URL` if not
            given.
        schema: the queue's schema.
        queues: the worker's lanes; one default lane of `concurrency` if not given.
        concurrency: how many jobs run at once, if no lanes are given; 1 to 10,000, and 10 if not given. With lanes it
            is refused, since each lane has its own. `slots` is the number of all lanes together.
        poll_interval: how often the worker looks for jobs where nothing has woken it; 10 ms to 1 hour.
        shutdown_timeout: how long a graceful stop waits for running jobs before it gives them back; 0 to 1 day.
        listen: whether the worker listens for new jobs; if it does not, or its connection goes through a pooler, it
            polls.
        listen_dsn: a DSN of the same database for listening, which does not lead through a pooler.
        scheduling: whether the worker enqueues the jobs of recurring items when they are due, its own and those of all
            other workers. If it does not, it still declares its own, and leaves scheduling to other workers.
        forbidden_flags: jobs with one of these flags are left alone.
        accepted_flags: only jobs with one of these flags are taken, and of those none that has a forbidden one; any job
            if no flags are given.
        ahead_bytes: how many bytes of payloads may be claimed ahead, beyond those of the running jobs; 0 to 1 TiB, and
            32 MiB if not given. The lanes share it equally. With 0 nothing is claimed ahead.
        express: whether jobs of tasks with `express=True` run in windows, open transactions that hold them by the locks
            of their rows. With None they do, but not where the worker's connections lead through a pooler; True says
            there too, and False never. If they do not, they run as those of any other task.
        express_window: how long a window stays open for the jobs that run in it; 1 ms to 1 second.
        pool_size: how many connections the handlers and their client may use at most; 1 to 1,000.
        process_slots: how many child processes run handlers with `run_in="process"` at most; 1 to 10,000. If it is not
            given, as many as all lanes have slots. A process is started when a job needs it, and kept.
        max_jobs_per_process: after how many jobs such a process is replaced; 1 to 1,000,000,000. With None it never is
            for that reason.
        max_process_rss: the memory in bytes beyond which such a process is replaced after its job; 16 MiB to 1 TiB.
            With None it never is for that reason.
        heartbeat_interval: how often the worker writes its row; 100 ms to a quarter of `dead_after`.
        dead_after: how long without a heartbeat until this worker counts as dead and its jobs are run again; 1 second
            to 1 hour. It is written to the worker's row, from which the other workers know it.
        stuck_after: how long the event loop may hang until the heartbeat ends, so that others take the worker's jobs;
            1 second to 1 day. Handlers that may block the loop for this long must be run in threads. With None the
            heartbeat goes on, so that a job whose handler blocks the loop is not run a second time.
        blocked_after: how long a handler may hold the event loop until the log names it; 10 ms to 1 hour. With None no
            handler is named.
        health_address: where `/live`, `/ready` and `/health` are answered over HTTP: `host:port`, or `:port` for all
            addresses. With None they are answered nowhere.
        health_file: a file that is written every second while the worker is ready, and deleted when it is not. With
            None no file is written.
        retry: the retry policy of jobs that have none of their own and whose task has none; the contract's schedule
            (e, e^2 ... seconds, at most about six hours) if not given. It does not limit attempts.
        retry_traceback: how much of the traceback the log shows for a failed attempt that is tried again, beside the
            error's class and message: "none", "short" (the last three places) or "full". The error of a last attempt is
            always logged with its whole traceback.
        dlq_processor_interval: how often the worker moves jobs that other programs failed for good to the dead letters;
            1 second to 1 day. None leaves these to other workers; jobs that this worker fails for good are moved at
            once in any case.
        stale_lock_cleanup_interval: how often the worker looks for abandoned locks, first at its start; 1 second to 1
            day. With it the worker also looks hourly for serial queues that nothing uses. None leaves both to other
            workers.
        stale_queue_lock_timeout: the age at which a lock is stale that a worker of another program has on a queue
            without a locked job; 1 second to 365 days, and the contract's 4 hours if not given.
        stale_job_lock_timeout: the age at which the lock of a worker of another program on a job is stale; 1 second to
            365 days. If a job of a Node worker runs for longer, it is run a second time beside the first.

    Raises:
        ConfigurationError: a value out of range, or `concurrency` beside `queues`; it is named.
    """

    dsn: Dsn | None = field(default=None, repr=False)
    schema: str = DEFAULT_SCHEMA
    queues: Sequence[QueueConfig] = ()
    concurrency: int | None = None
    poll_interval: timedelta = timedelta(seconds=2)
    shutdown_timeout: timedelta = timedelta(seconds=30)
    listen: bool = True
    listen_dsn: Dsn | None = field(default=None, repr=False)
    scheduling: bool = True
    forbidden_flags: Sequence[str] = ()
    accepted_flags: Sequence[str] = ()
    ahead_bytes: int = AHEAD_BYTES
    express: bool | None = None
    express_window: timedelta = timedelta(milliseconds=25)
    pool_size: int = 10
    process_slots: int | None = None
    max_jobs_per_process: int | None = None
    max_process_rss: int | None = None
    heartbeat_interval: timedelta = timedelta(seconds=5)
    dead_after: timedelta = timedelta(seconds=20)
    stuck_after: timedelta | None = None
    blocked_after: timedelta | None = timedelta(seconds=1)
    health_address: str | None = None
    health_file: str | Path | None = None
    retry: RetryPolicy | None = None
    retry_traceback: RetryTraceback | Literal["none", "short", "full"] = RetryTraceback.NONE
    dlq_processor_interval: timedelta | None = timedelta(seconds=60)
    stale_lock_cleanup_interval: timedelta | None = DEFAULT_STALE_LOCK_CLEANUP_INTERVAL
    stale_queue_lock_timeout: timedelta = ABANDONED_AFTER
    stale_job_lock_timeout: timedelta = ABANDONED_AFTER

    def __post_init__(self) -> None:
        """Refuse settings with which no worker could run, and put the default lane last."""
        quoted_schema(self.schema)
        for name, (least, most) in COUNTS.items():
            if name not in _UNSAID or getattr(self, name) is not None:
                check_count(f"WorkerConfig.{name}", getattr(self, name), most, least=least)
        for name, (shortest, longest) in SPANS.items():
            span = getattr(self, name)
            if span is not None or name not in _MAY_BE_NONE:
                _check_span(f"WorkerConfig.{name}", span, shortest, longest)
        often = timedelta(milliseconds=100), self.dead_after / 4
        _check_span("WorkerConfig.heartbeat_interval", self.heartbeat_interval, *often)
        if self.express is not None and not isinstance(self.express, bool):
            raise ConfigurationError(f"WorkerConfig.express = {self.express!r}: expected None, True or False")
        if self.health_address is not None:
            parse_address("WorkerConfig.health_address", self.health_address)
        if self.health_file is not None:
            check_path("WorkerConfig.health_file", self.health_file)
        if self.retry is not None and not isinstance(self.retry, RetryPolicy):
            raise ConfigurationError(f"WorkerConfig.retry = {self.retry!r}: expected a RetryPolicy")
        object.__setattr__(self, "retry_traceback", _traceback(self.retry_traceback))
        for name in ("forbidden_flags", "accepted_flags"):
            object.__setattr__(self, name, _flags(f"WorkerConfig.{name}", getattr(self, name)))
        object.__setattr__(self, "queues", _checked_lanes(self.queues))
        if self.queues and self.concurrency is not None:
            raise ConfigurationError(
                f"WorkerConfig.concurrency = {self.concurrency!r} beside queues: each lane has a concurrency of its "
                "own, and "
                f"these have {self.slots} together; leave concurrency out (None), or add a lane for all other jobs: "
                f"QueueConfig.default_queue({self.concurrency!r})"
            )

    def required_dsn(self) -> Dsn:
        """The connection string, from `DATABASE_URL` where none was given.

        Raises:
            ConfigurationError: neither is set.
        """
        dsn = self.dsn if self.dsn is not None else os.environ.get("DATABASE_URL")
        if not dsn:
            raise ConfigurationError("WorkerConfig.dsn: none given, and DATABASE_URL is not set")
        return dsn if is_function(dsn) else pasted("WorkerConfig.dsn" if self.dsn is not None else "DATABASE_URL", dsn)

    @property
    def lanes(self) -> tuple[QueueConfig, ...]:
        """The lanes that the worker runs: those of `queues`, or the one of `concurrency` if there are none."""
        if self.queues:
            return tuple(self.queues)
        return (QueueConfig.default_queue(DEFAULT_CONCURRENCY if self.concurrency is None else self.concurrency),)

    @property
    def slots(self) -> int:
        """How many jobs run at once at most, in all lanes together."""
        return sum(lane.concurrency for lane in self.lanes)


def _flags(field: str, value: Any) -> tuple[str, ...]:
    flags = () if isinstance(value, str) else tuple(value)
    if isinstance(value, str) or not all(isinstance(flag, str) and "\0" not in flag for flag in flags):
        raise ConfigurationError(f"{field} = {value!r}: expected a list of flags")
    return flags


def _checked_lanes(queues: Sequence[QueueConfig]) -> tuple[QueueConfig, ...]:
    """The lanes in the order in which they were given, with the default lane moved to the end."""
    if isinstance(queues, (str, QueueConfig)) or not all(isinstance(lane, QueueConfig) for lane in queues):
        raise ConfigurationError(f"WorkerConfig.queues = {queues!r}: expected a list of QueueConfig")
    lanes = tuple(queues)
    defaults = [lane for lane in lanes if lane.is_default]
    if len(defaults) > 1:
        names = ", ".join(repr(lane.name) for lane in defaults)
        raise ConfigurationError(f"WorkerConfig.queues: {names} have no filter; one lane at most takes all the rest")
    names_seen = [lane.name for lane in lanes]
    for name in names_seen:
        if names_seen.count(name) > 1:
            raise ConfigurationError(f"WorkerConfig.queues: two lanes are named {name!r}")
    return tuple(sorted(lanes, key=lambda lane: lane.is_default))


def check_count(field: str, value: Any, most: int, *, least: int = 1) -> None:
    """Refuse a value that is not an integer from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigurationError(f"{field} = {value!r}: expected an integer from {least} to {most}")


def _traceback(value: Any) -> RetryTraceback:
    try:
        return RetryTraceback(value)
    except ValueError:
        choice = ", ".join(f'"{one}"' for one in RetryTraceback)
        raise ConfigurationError(f"WorkerConfig.retry_traceback = {value!r}: expected one of {choice}") from None


def _check_span(field: str, value: Any, low: timedelta, high: timedelta) -> None:
    if not isinstance(value, timedelta) or not low <= value <= high:
        raise ConfigurationError(f"{field} = {value!r}: expected a timedelta from {low} to {high}")


def check_path(field: str, value: Any) -> None:
    """Refuse a value that is not the path of a file, such as one with a trailing slash, which names a folder."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if (
        not isinstance(text, str)
        or not Path(text).name
        or Path(text).name == ".."
        or text.endswith("/")
        or "\0" in text
    ):
        raise ConfigurationError(f"{field} = {value!r}: expected a file's path, such as /tmp/worker.ready")


def _check_range(field: str, value: Any) -> None:
    if not isinstance(value, range) or value.step != 1 or not value:
        raise ConfigurationError(f"{field} = {value!r}: expected a range with step 1 that is not empty: range(-20, 0)")
    if value.start not in _SMALLINT or value.stop - 1 not in _SMALLINT:
        raise ConfigurationError(f"{field} = {value!r}: expected priorities from -32768 to 32767")


def _globs(field: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    globs = (value,) if isinstance(value, str) else tuple(value)
    if not globs or not all(isinstance(glob, str) and glob and "\0" not in glob for glob in globs):
        raise ConfigurationError(f"{field} = {value!r}: expected a glob or a list of globs")
    return globs
