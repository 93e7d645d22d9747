"""`backfill worker`: run the jobs of a registry's tasks until a signal comes, then drain."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from backfill.cli import options
from backfill.cli.common import (
    DsnOption,
    ExitCode,
    SchemaOption,
    checked_dsn,
    explain,
    required_dsn,
    run_async,
    run_steadily,
)
from backfill.cli.durations import show_duration
from backfill.cli.ending import end_now, end_soon
from backfill.cli.logs import set_up_logs
from backfill.cli.settings import mistyped
from backfill.cli.streams import never_wait_for_readers
from backfill.errors import ConfigurationError, HandlersStillRunningError
from backfill.hooks.events import ShutdownReason

if TYPE_CHECKING:
    from backfill.cli.signals import Signals
    from backfill.cli.supervise.post import Limits
    from backfill.hooks import Plugin
    from backfill.worker import QueueConfig, WorkerConfig, WorkerRunner

logger = logging.getLogger("backfill.cli.worker")

beside: Final[list[Plugin]] = []
"""The plugins that this process's worker has beside those of its registry: `backfill dev` has one in its workers."""


def command(
    registry: Annotated[
        list[str],
        typer.Argument(metavar="MODULE:REGISTRY", hidden=True),  # its help would show Python's type; see below
    ],
    concurrency: Annotated[str | None, options.CONCURRENCY.as_option()] = None,
    queue: Annotated[list[str] | None, options.QUEUE.as_option()] = None,
    task: Annotated[list[str] | None, options.TASK.as_option()] = None,
    crontab: Annotated[list[str] | None, options.CRONTAB.as_option()] = None,
    forbidden_flag: Annotated[list[str] | None, options.FORBIDDEN_FLAG.as_option()] = None,
    accepted_flag: Annotated[list[str] | None, options.ACCEPTED_FLAG.as_option()] = None,
    poll_interval: Annotated[str | None, options.POLL_INTERVAL.as_option()] = None,
    listen: Annotated[bool | None, options.LISTEN.as_option()] = None,
    listen_dsn: Annotated[str | None, options.LISTEN_DSN.as_option()] = None,
    scheduling: Annotated[bool | None, options.SCHEDULING.as_option()] = None,
    shutdown_timeout: Annotated[str | None, options.SHUTDOWN_TIMEOUT.as_option()] = None,
    ahead_bytes: Annotated[str | None, options.AHEAD_BYTES.as_option()] = None,
    express: Annotated[bool | None, options.EXPRESS.as_option()] = None,
    express_window: Annotated[str | None, options.EXPRESS_WINDOW.as_option()] = None,
    pool_size: Annotated[str | None, options.POOL_SIZE.as_option()] = None,
    process_slots: Annotated[str | None, options.PROCESS_SLOTS.as_option()] = None,
    max_jobs_per_process: Annotated[str | None, options.MAX_JOBS_PER_PROCESS.as_option()] = None,
    max_process_rss: Annotated[str | None, options.MAX_PROCESS_RSS.as_option()] = None,
    heartbeat_interval: Annotated[str | None, options.HEARTBEAT_INTERVAL.as_option()] = None,
    dead_after: Annotated[str | None, options.DEAD_AFTER.as_option()] = None,
    stuck_after: Annotated[str | None, options.STUCK_AFTER.as_option()] = None,
    blocked_after: Annotated[str | None, options.BLOCKED_AFTER.as_option()] = None,
    health_address: Annotated[str | None, options.HEALTH_ADDRESS.as_option()] = None,
    health_file: Annotated[str | None, options.HEALTH_FILE.as_option()] = None,
    retry_traceback: Annotated[str | None, options.RETRY_TRACEBACK.as_option()] = None,
    dlq_processor_interval: Annotated[str | None, options.DLQ_PROCESSOR_INTERVAL.as_option()] = None,
    stale_lock_cleanup_interval: Annotated[str | None, options.STALE_LOCK_CLEANUP_INTERVAL.as_option()] = None,
    stale_queue_lock_timeout: Annotated[str | None, options.STALE_QUEUE_LOCK_TIMEOUT.as_option()] = None,
    stale_job_lock_timeout: Annotated[str | None, options.STALE_JOB_LOCK_TIMEOUT.as_option()] = None,
    processes: Annotated[str | None, options.PROCESSES.as_option()] = None,
    max_jobs: Annotated[str | None, options.MAX_JOBS.as_option()] = None,
    max_rss: Annotated[str | None, options.MAX_RSS.as_option()] = None,
    log_level: Annotated[str | None, options.LOG_LEVEL.as_option()] = None,
    json_logs: Annotated[bool | None, options.JSON.as_option()] = None,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Run the jobs of a registry's tasks.

    MODULE:REGISTRY is where the TaskRegistry is, such as app.jobs:tasks; app.jobs where that module has only one.
    Several are worked together.

    The first Ctrl-C (or SIGTERM) stops claiming and waits for running jobs up to the shutdown timeout; the second
    interrupts them at once, and they go back to the queue. A third ends the process on the spot, whatever runs.
    """
    from backfill.cli.crontabs import files_of, with_files
    from backfill.cli.registry import load_registries
    from backfill.cli.signals import Signals
    from backfill.cli.supervise.link import Link
    from backfill.cli.supervise.post import Limits
    from backfill.tasks import TaskRegistry
    from backfill.worker import WorkerConfig, WorkerRunner

    link = Link.found()
    never_wait_for_readers(by_line=link is not None)  # what a worker prints before it crashes is not to be lost
    as_json = options.JSON.is_on(json_logs)
    set_up_logs(
        options.LOG_LEVEL.value(log_level), as_json=as_json, process_number=None if link is None else link.number
    )
    if link is not None:
        link.start()
    for name, meant in {} if link else mistyped(options.VARIABLES).items():
        logger.warning("the environment has %s, which backfill does not read; was %s meant?", name, meant)
    _check_heartbeat(heartbeat_interval, dead_after)
    config = WorkerConfig(
        required_dsn(dsn),
        schema=options.SCHEMA.value(schema),
        queues=[
            _lane(
                options.CONCURRENCY.value(concurrency),
                tasks=options.TASK.values(task),
                queues=options.QUEUE.values(queue),
            )
        ],
        poll_interval=options.POLL_INTERVAL.value(poll_interval),
        shutdown_timeout=options.SHUTDOWN_TIMEOUT.value(shutdown_timeout),
        listen=options.LISTEN.is_on(listen),
        listen_dsn=_other_dsn(listen_dsn),
        scheduling=options.SCHEDULING.is_on(scheduling),
        forbidden_flags=options.FORBIDDEN_FLAG.values(forbidden_flag),
        accepted_flags=options.ACCEPTED_FLAG.values(accepted_flag),
        ahead_bytes=options.AHEAD_BYTES.value(ahead_bytes),
        express=options.EXPRESS.is_on(express),
        express_window=options.EXPRESS_WINDOW.value(express_window),
        pool_size=options.POOL_SIZE.value(pool_size),
        process_slots=options.PROCESS_SLOTS.value(process_slots),
        max_jobs_per_process=options.MAX_JOBS_PER_PROCESS.value(max_jobs_per_process),
        max_process_rss=options.MAX_PROCESS_RSS.value(max_process_rss),
        heartbeat_interval=options.HEARTBEAT_INTERVAL.value(heartbeat_interval),
        dead_after=options.DEAD_AFTER.value(dead_after),
        stuck_after=options.STUCK_AFTER.value(stuck_after),
        blocked_after=options.BLOCKED_AFTER.value(blocked_after),
        health_address=options.HEALTH_ADDRESS.value(health_address),
        health_file=options.HEALTH_FILE.value(health_file),
        retry_traceback=options.RETRY_TRACEBACK.value(retry_traceback),
        dlq_processor_interval=options.DLQ_PROCESSOR_INTERVAL.value(dlq_processor_interval),
        stale_lock_cleanup_interval=options.STALE_LOCK_CLEANUP_INTERVAL.value(stale_lock_cleanup_interval),
        stale_queue_lock_timeout=options.STALE_QUEUE_LOCK_TIMEOUT.value(stale_queue_lock_timeout),
        stale_job_lock_timeout=options.STALE_JOB_LOCK_TIMEOUT.value(stale_job_lock_timeout),
    )
    size, limits = (
        options.PROCESSES.value(processes),
        Limits(options.MAX_JOBS.value(max_jobs), options.MAX_RSS.value(max_rss)),
    )
    files = files_of(crontab)
    if link is None and (size is not None or limits != Limits()):
        with_files(TaskRegistry(), files)  # so that a wrong file is refused once, and not by each process
        raise typer.Exit(_supervise(config, size or 1, limits, prefixed=not as_json))
    tasks = with_files(load_registries(registry), files)
    _start_metrics(config)
    if link is not None:  # the supervisor answers for all of them
        config = replace(config, health_address=None, health_file=None)
    # What was imported stays in use, so the garbage collector need not look at it: that would cost a tenth of the rate.
    gc.freeze()
    signals = Signals(config.shutdown_timeout.total_seconds())

    async def work() -> ExitCode:
        runner = WorkerRunner(config, tasks, plugins=beside)
        shift = _Shift(runner, signals)
        if link is not None:
            link.attend(runner, is_stopping=lambda: shift.signals > 0)
            shift.ended = link.tell_last
        try:
            orderly = await shift.run()
        except HandlersStillRunningError as error:
            still_running, _, _advice = str(error).rpartition(". ")  # the advice is for programs of one's own
            logger.error("%s; the process ends now, and they end with it", still_running)
            end_now(ExitCode.LEFT if runner.left else ExitCode.STILL_RUNNING)
        except Exception as error:
            end_soon(explain(error)[1])
            raise
        code = ExitCode.LEFT if runner.left else ExitCode.OK if orderly else ExitCode.INTERRUPTED
        end_soon(code)
        return code

    raise typer.Exit(run_steadily(work))


def _start_metrics(config: WorkerConfig) -> None:
    """Keep metrics where the health address shows them, and give them to OpenTelemetry where its API is installed."""
    from backfill.metrics import opentelemetry, process_metrics, prometheus

    if config.health_address is not None and prometheus.is_installed():
        process_metrics().want()
    if opentelemetry.is_installed():
        opentelemetry.instrument()


def _supervise(config: WorkerConfig, size: int, limits: Limits, *, prefixed: bool) -> int:
    """Run worker processes under a supervisor until a signal comes, and return the exit code of the whole."""
    from backfill.cli.signals import LAST, Signals
    from backfill.cli.supervise.supervisor import HANG_SECONDS, Supervisor

    # The supervisor itself ends the processes at the last signal, so that it can end them before it ends; and it must
    # outlive the processes that it kills because they hang.
    signals = Signals(config.shutdown_timeout.total_seconds() + HANG_SECONDS, last=LAST + 1)

    async def work() -> int:
        return await Supervisor.of_this_program(config, size=size, limits=limits, prefixed=prefixed).run(signals)

    return run_async(work)


def _lane(concurrency: int, *, tasks: tuple[str, ...], queues: tuple[str, ...]) -> QueueConfig:
    """The worker's only lane: the default one or one with the given filters, which runs `concurrency` jobs at once."""
    from backfill.worker import QueueConfig

    if not tasks and not queues:
        return QueueConfig.default_queue(concurrency)
    return QueueConfig("shell", concurrency, tasks=tasks or None, queues=queues or None)


def _other_dsn(given: str | None) -> str | None:
    """The connection string to listen on; None if the worker listens on its own database's."""
    where, _ = options.LISTEN_DSN.found(given)
    text = options.LISTEN_DSN.value(given)
    return None if text is None else checked_dsn(where, text)


def _check_heartbeat(heartbeat_interval: str | None, dead_after: str | None) -> None:
    """Refuse heartbeats that are too rare for `--dead-after`; the error has the names by which the user set both."""
    often, patience = options.HEARTBEAT_INTERVAL.value(heartbeat_interval), options.DEAD_AFTER.value(dead_after)
    if often > patience / 4:
        raise ConfigurationError(
            f"{options.HEARTBEAT_INTERVAL.source(heartbeat_interval)} = {show_duration(often)}: expected at most "
            f"{show_duration(patience / 4)}, a quarter of {options.DEAD_AFTER.source(dead_after)} = "
            f"{show_duration(patience)}"
        )


class _Shift:
    """Runs a worker under this process's signals: the first drains, the second hurries, the third ends the process.

    Attributes:
        signals: how many signals have come.
        ended: called when the worker has ended.
    """

    def __init__(self, runner: WorkerRunner, signals: Signals) -> None:
        self._runner = runner
        self._came = signals
        self._stop = asyncio.Event()
        self.signals = 0
        self.ended: Callable[[], None] = lambda: None
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> bool:
        """Work until a signal comes, and return whether the stop was an orderly one."""
        self._task = asyncio.current_task()
        self._came.watch(self._on_signal)
        try:
            while not await self._work():
                logger.error(
                    "a job has cancelled all tasks of its worker, which has let go of its jobs and starts again"
                )
        finally:
            self._came.leave()
            self.ended()
        return self.signals < 2

    async def _work(self) -> bool:
        """Work until a signal comes; False if a job cancelled the worker instead."""
        try:
            await self._runner.run_until_cancelled(self._stop)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.signals == 0 and task is not None:
                task.uncancel()
                return False
        return True

    def _on_signal(self, count: int) -> None:
        self.signals = count
        if self._runner.worker_id is None and self._task is not None:
            logger.info("stopping%s: the worker has not started yet, and holds no job", " at once" * (count > 1))
            self._stop.set()
            self._task.cancel()
            if count > 1:
                self._runner.hurry()
            return
        if count == 1:
            patience = self._runner.config.shutdown_timeout.total_seconds()
            logger.info("stopping: running jobs have %g s to end; another signal interrupts them at once", patience)
            self._runner.stopping_for(ShutdownReason.SIGNAL)
            self._stop.set()
            return
        logger.warning("stopping at once: running jobs are interrupted and given back")
        self._runner.hurry()
