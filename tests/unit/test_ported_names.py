"""Names of the Rust crate that stand for values, types and settings, as programs that come from it use them."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args

import pytest

from backfill import (
    DEFAULT_STALE_JOB_LOCK_TIMEOUT,
    DEFAULT_STALE_LOCK_CLEANUP_INTERVAL,
    DEFAULT_STALE_QUEUE_LOCK_TIMEOUT,
    Continue,
    ContinueWith,
    Fail,
    HookRegistry,
    HookResult,
    JobScheduleResult,
    Plugin,
    Priority,
    Skip,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)


def test_the_constants_of_cleanup() -> None:
    """They have the crate's values."""
    assert timedelta(minutes=5) == DEFAULT_STALE_QUEUE_LOCK_TIMEOUT
    assert timedelta(minutes=30) == DEFAULT_STALE_JOB_LOCK_TIMEOUT
    assert timedelta(seconds=60) == DEFAULT_STALE_LOCK_CLEANUP_INTERVAL
    assert WorkerConfig().stale_lock_cleanup_interval == DEFAULT_STALE_LOCK_CLEANUP_INTERVAL


def test_the_levels_of_priority() -> None:
    """They have the crate's numbers."""
    levels = [Priority.EMERGENCY, Priority.FAST_HIGH, Priority.FAST_DEFAULT, Priority.BULK_DEFAULT]
    assert [*levels, Priority.BULK_LOW, Priority.BULK_LOWEST] == [-20, -10, -5, 0, 5, 10]


def test_the_answers_of_interceptors() -> None:
    """The crate's enums are unions of classes here."""
    assert set(get_args(HookResult)) == {Continue, Skip, Fail}
    assert set(get_args(JobScheduleResult)) == {Continue, ContinueWith, Skip, Fail}


def test_the_settings_of_a_worker() -> None:
    """Each `with_...` of the crate's configuration is an argument."""
    hour = timedelta(hours=1)
    config = WorkerConfig(
        dsn="postgresql:///",
        schema="jobs",
        concurrency=3,
        poll_interval=timedelta(milliseconds=200),
        dlq_processor_interval=hour,
        stale_lock_cleanup_interval=hour,
        stale_queue_lock_timeout=hour,
        stale_job_lock_timeout=hour,
    )
    assert (config.schema, config.slots, config.poll_interval) == ("jobs", 3, timedelta(milliseconds=200))
    assert config.stale_queue_lock_timeout == config.stale_job_lock_timeout == hour


@pytest.mark.parametrize(("interval", "enabled"), [(timedelta(seconds=1), True), (None, False)])
def test_whether_a_worker_sweeps_dead_letters(interval: timedelta | None, enabled: bool) -> None:
    """A runner says so, as the crate's does; it follows the setting."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler() -> None: ...

    assert WorkerRunner(WorkerConfig(dlq_processor_interval=interval), tasks).dlq_processor_enabled is enabled


def test_a_plugin_registers() -> None:
    """An object with the crate's method `register` is a plugin; no class of ours is its base."""

    class Mine:
        def register(self, hooks: HookRegistry) -> None:
            assert isinstance(hooks, HookRegistry)

    plugin: Plugin = Mine()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler() -> None: ...

    assert WorkerRunner(WorkerConfig(), tasks, plugins=[plugin]).plugins == (plugin,)
    assert plugin.register(HookRegistry()) is None
