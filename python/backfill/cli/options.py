"""The settings of a worker process and those that other commands share: names, variables, defaults and readers.

`docs/configuration.md` lists them for users; a test compares that page with this table.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from backfill.cli.logs import LogLevel
from backfill.cli.readers import (
    AddressOrOff,
    Count,
    CountOrOff,
    FileOrOff,
    Number,
    NumberOrOff,
    OneOf,
    SchemaName,
    Size,
    SizeOrOff,
    Span,
    SpanOrOff,
    TextOrOff,
    Words,
    YesNoOrAuto,
    YesOrNo,
)
from backfill.cli.settings import Foreign, Setting, Several, Switch
from backfill.logs import RetryTraceback

_MILLISECOND: Final = timedelta(milliseconds=1)
_SECOND: Final = timedelta(seconds=1)


class LogForm:
    """Reads the Rust crate's variable LOG_FORMAT, which says whether the log is JSON."""

    def __call__(self, text: str) -> bool:
        """Whether the text says JSON."""
        if text.lower() not in ("json", "text"):
            raise ValueError
        return text.lower() == "json"

    def expected(self) -> str:
        """Both words that are accepted."""
        return "json or text"


DSN: Final = Setting("--dsn", "DSN", "The database.", TextOrOff(), names=("BACKFILL_DSN", "DATABASE_URL"))
SCHEMA: Final = Setting(
    "--schema", "NAME", "The queue's schema.", SchemaName(), "graphile_worker",
    foreign=Foreign("GRAPHILE_WORKER_SCHEMA", SchemaName()),
)  # fmt: skip
DEBUG: Final = Switch("--debug", "", "Show tracebacks of errors.", YesOrNo(), "off")
CONCURRENCY: Final = Setting(
    "--concurrency", "N", "How many jobs run at once.", Count("concurrency"), "10", also=("-c",)
)
QUEUE: Final = Several(
    "--queue", "GLOB", "Only jobs of serial queues that match; may be repeated.", Words(),
    names=("BACKFILL_QUEUES", "BACKFILL_QUEUE"),
)  # fmt: skip
TASK: Final = Several(
    "--task", "GLOB", "Only jobs of tasks that match; may be repeated.", Words(),
    names=("BACKFILL_TASKS", "BACKFILL_TASK"),
)  # fmt: skip
CRONTAB: Final = Several(
    "--crontab", "FILE", "Recurring jobs beside those of the code, a line each; may be repeated.", Words(),
    names=("BACKFILL_CRONTABS", "BACKFILL_CRONTAB"),
)  # fmt: skip
FORBIDDEN_FLAG: Final = Several(
    "--forbidden-flag", "FLAG", "Leave jobs with this flag alone; may be repeated.", Words(),
    names=("BACKFILL_FORBIDDEN_FLAGS", "BACKFILL_FORBIDDEN_FLAG"),
)  # fmt: skip
ACCEPTED_FLAG: Final = Several(
    "--accepted-flag", "FLAG", "Only jobs with this flag, or with another one that is given.", Words(),
    names=("BACKFILL_ACCEPTED_FLAGS", "BACKFILL_ACCEPTED_FLAG"),
)  # fmt: skip
POLL_INTERVAL: Final = Setting(
    "--poll-interval", "TIME", "How often to look for jobs where nothing wakes it.", Span("poll_interval"), "2s",
    foreign=Foreign("POLL_INTERVAL_MS", Number("poll_interval", _MILLISECOND)),
)  # fmt: skip
LISTEN: Final = Switch("--listen", "", "Listen for new jobs; else only poll, as behind a pooler.", YesOrNo(), "on")
LISTEN_DSN: Final = Setting("--listen-dsn", "DSN", "Where to hear of new jobs, round a pooler.", TextOrOff(), "off")
SCHEDULING: Final = Switch(
    "--scheduling", "", "Add the jobs of recurring jobs when they are due; else leave that to others.", YesOrNo(), "on"
)
SHUTDOWN_TIMEOUT: Final = Setting(
    "--shutdown-timeout", "TIME", "How long running jobs may take to end at a stop.", Span("shutdown_timeout"), "30s",
    foreign=Foreign("SHUTDOWN_TIMEOUT_SECS", Number("shutdown_timeout", _SECOND)),
)  # fmt: skip
AHEAD_BYTES: Final = Setting(
    "--ahead-bytes", "SIZE", "How much payload may be claimed ahead of what runs.", Size("ahead_bytes"), "32MB"
)
EXPRESS: Final = Switch(
    "--express", "", "Run the jobs of express tasks in windows; auto: not through a pooler.", YesNoOrAuto(), "auto"
)
EXPRESS_WINDOW: Final = Setting(
    "--express-window", "TIME", "How long a window of express jobs stays open.", Span("express_window"), "25ms"
)
POOL_SIZE: Final = Setting(
    "--pool-size", "N", "How many connections handlers may use at most.", Count("pool_size"), "10"
)
PROCESS_SLOTS: Final = Setting(
    "--process-slots", "N", "How many processes run handlers at most; else as many as jobs run at once.",
    CountOrOff("process_slots"), "off",
)  # fmt: skip
MAX_JOBS_PER_PROCESS: Final = Setting(
    "--max-jobs-per-process", "N", "Replace a process of handlers after so many jobs.",
    CountOrOff("max_jobs_per_process"), "off",
)  # fmt: skip
MAX_PROCESS_RSS: Final = Setting(
    "--max-process-rss", "SIZE", "Replace a process of handlers whose memory is larger after a job.",
    SizeOrOff("max_process_rss"), "off",
)  # fmt: skip
HEARTBEAT_INTERVAL: Final = Setting(
    "--heartbeat-interval", "TIME", "How often the worker says that it lives; at most a quarter of --dead-after.",
    Span("heartbeat_interval"), "5s",
)  # fmt: skip
DEAD_AFTER: Final = Setting(
    "--dead-after", "TIME", "Without a heartbeat for so long it is dead, and others run its jobs.",
    Span("dead_after"), "20s",
)  # fmt: skip
STUCK_AFTER: Final = Setting(
    "--stuck-after", "TIME", "An event loop that hangs for so long ends the heartbeat.", SpanOrOff("stuck_after"), "off"
)
BLOCKED_AFTER: Final = Setting(
    "--blocked-after", "TIME", "Name a handler in the log that holds the event loop for so long.",
    SpanOrOff("blocked_after"), "1s",
)  # fmt: skip
HEALTH_ADDRESS: Final = Setting(
    "--health-address", "HOST:PORT", "Answer /live, /ready and /health there over HTTP.", AddressOrOff(), "off"
)
HEALTH_FILE: Final = Setting(
    "--health-file", "FILE", "Write this file every second while it is ready.", FileOrOff(), "off"
)
RETRY_TRACEBACK: Final = Setting(
    "--retry-traceback", "none|short|full", "How much traceback is logged of a failure that is tried again.",
    OneOf(RetryTraceback), "none",
)  # fmt: skip
DLQ_PROCESSOR_INTERVAL: Final = Setting(
    "--dlq-processor-interval", "TIME", "How often to move what other programs failed for good to the dead letters.",
    SpanOrOff("dlq_processor_interval"), "1m",
    foreign=Foreign("DLQ_PROCESSOR_INTERVAL_SECS", NumberOrOff(Number("dlq_processor_interval", _SECOND))),
)  # fmt: skip
STALE_LOCK_CLEANUP_INTERVAL: Final = Setting(
    "--stale-lock-cleanup-interval", "TIME", "How often to look for locks that nobody will open.",
    SpanOrOff("stale_lock_cleanup_interval"), "1m",
)  # fmt: skip
STALE_QUEUE_LOCK_TIMEOUT: Final = Setting(
    "--stale-queue-lock-timeout", "TIME", "The age at which another program's lock of a queue is stale.",
    Span("stale_queue_lock_timeout"), "4h",
)  # fmt: skip
STALE_JOB_LOCK_TIMEOUT: Final = Setting(
    "--stale-job-lock-timeout", "TIME", "The age at which another program's lock of a job is stale.",
    Span("stale_job_lock_timeout"), "4h",
)  # fmt: skip
PROCESSES: Final = Setting(
    "--processes", "N", "Run N worker processes under a supervisor, which restarts those that die.",
    CountOrOff("processes"), "off",
)  # fmt: skip
MAX_JOBS: Final = Setting(
    "--max-jobs", "N", "Replace a worker process after about so many attempts.", CountOrOff("max_jobs"), "off"
)
MAX_RSS: Final = Setting(
    "--max-rss", "SIZE", "Replace a worker process that has more memory than this.", SizeOrOff("max_rss"), "off"
)
LOG_LEVEL: Final = Setting("--log-level", "debug|info|warning|error", "How much to log.", OneOf(LogLevel), "info")
JSON: Final = Switch(
    "--json", "", "Log JSON, an object a line.", YesOrNo(), "off", foreign=Foreign("LOG_FORMAT", LogForm())
)

SETTINGS: Final[tuple[Setting[Any], ...]] = tuple(value for value in globals().values() if isinstance(value, Setting))
VARIABLES: Final = frozenset(name for setting in SETTINGS for name in setting.variables)
"""Every variable of the environment that the shell reads."""
