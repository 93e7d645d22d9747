"""Hooks: code that plugins register to be called at points in the life of workers and jobs.

The event and its context are one: a callback gets an instance of the event's class. There are two kinds. An observer is
told that something happened, and its answer counts for nothing (`events`). An interceptor is asked before or after
something happens, and its answer decides what follows (`answers`). `registry` holds the callbacks. The worker and the
client call them.
"""

from backfill.hooks.answers import (
    AfterJobRun,
    BeforeJobRun,
    BeforeJobSchedule,
    Continue,
    ContinueWith,
    Fail,
    HookResult,
    JobScheduleResult,
    Skip,
)
from backfill.hooks.events import (
    CronJobScheduled,
    CronTick,
    FailReason,
    InterruptReason,
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
    ShutdownReason,
    WorkerInit,
    WorkerRecovered,
    WorkerShutdown,
    WorkerStart,
)
from backfill.hooks.failures import HookFailures
from backfill.hooks.log_plugin import LoggingPlugin
from backfill.hooks.registry import HookRegistry, Plugin, answer_of, checked_plugins, composed

__all__ = [
    "AfterJobRun",
    "BeforeJobRun",
    "BeforeJobSchedule",
    "Continue",
    "ContinueWith",
    "CronJobScheduled",
    "CronTick",
    "Fail",
    "FailReason",
    "HookFailures",
    "HookRegistry",
    "HookResult",
    "InterruptReason",
    "JobCancelled",
    "JobComplete",
    "JobDiscarded",
    "JobFail",
    "JobFetch",
    "JobInterrupted",
    "JobPermanentlyFail",
    "JobScheduleResult",
    "JobSnoozed",
    "JobStart",
    "LeaseLost",
    "LoggingPlugin",
    "ObservedEvent",
    "Plugin",
    "ShutdownReason",
    "Skip",
    "WorkerInit",
    "WorkerRecovered",
    "WorkerShutdown",
    "WorkerStart",
    "answer_of",
    "checked_plugins",
    "composed",
]
