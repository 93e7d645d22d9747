"""Callbacks of hooks: those that fit their event, and those that do not."""

from __future__ import annotations

from typing import Any, assert_type

from backfill import (
    AfterJobRun,
    BeforeJobRun,
    BeforeJobSchedule,
    Continue,
    ContinueWith,
    Fail,
    HookFailures,
    HookRegistry,
    HookResult,
    JobComplete,
    JobFail,
    JobScheduleResult,
    LoggingPlugin,
    Plugin,
    Skip,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
    WorkerShutdown,
)

hooks = HookRegistry()


def completed(event: JobComplete) -> None:
    assert_type(event.duration.total_seconds(), float)


async def failed(event: JobFail) -> None:
    assert_type(event.error, str)


def ended(event: JobComplete | JobFail) -> None:
    assert_type(event.worker_id, str)


def before(event: BeforeJobRun) -> HookResult | None:
    return Skip() if event.payload == 1 else None


async def after(event: AfterJobRun) -> HookResult:
    return Fail("too small") if event.error is None else Continue()


def schedule(event: BeforeJobSchedule) -> JobScheduleResult:
    return ContinueWith({"payload": event.payload})


hooks.on(JobComplete, completed)
hooks.on(JobFail, failed)
hooks.on(JobComplete, ended)
hooks.on(JobFail, ended)
hooks.on(WorkerShutdown, print)
hooks.on(WorkerShutdown, lambda event: print(event.reason))
hooks.on(BeforeJobRun, before)
hooks.on(BeforeJobRun, lambda event: Skip())
hooks.on(AfterJobRun, after)
hooks.on(BeforeJobSchedule, schedule)

hooks.on(JobFail, completed)  # error: JobComplete
hooks.on(JobComplete, failed)  # error: JobFail
hooks.on(JobComplete, before)  # error: BeforeJobRun
hooks.on(BeforeJobRun, after)  # error: AfterJobRun
hooks.on(BeforeJobRun, schedule)  # error: BeforeJobSchedule
hooks.on(AfterJobRun, lambda event: True)  # error: AfterJobRun
hooks.on("JobComplete", print)  # error: overload


class Own:
    def register(self, hooks: HookRegistry) -> None:
        hooks.on(JobComplete, self.done)

    async def done(self, event: JobComplete) -> None: ...


class Wrong:
    def register(self) -> None: ...


own: Plugin = Own()
tasks = TaskRegistry(plugins=[own, LoggingPlugin()])
assert_type(tasks, TaskRegistry[None])
runner = WorkerRunner(WorkerConfig("postgresql:///"), tasks, plugins=[Own()])
assert_type(runner.hook_failures, HookFailures)
TaskRegistry(plugins=[Wrong()])  # error: Wrong
WorkerRunner(WorkerConfig("postgresql:///"), tasks, plugins=[Own])  # error: Own
anything: Any = runner.hook_failures.by_event["JobComplete"]
