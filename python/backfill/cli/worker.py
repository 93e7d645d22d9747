"""`backfill worker`: run a registry's tasks until a signal, then drain."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backfill.cli.common import DsnOption, ExitCode, SchemaOption, duration, required_dsn, run_steadily, size
from backfill.cli.ending import end_soon
from backfill.cli.logs import LogLevel, set_up_logs
from backfill.cli.streams import never_wait_for_readers
from backfill.logs import RetryTraceback

if TYPE_CHECKING:
    from backfill.cli.signals import Signals
    from backfill.worker import QueueConfig, WorkerRunner

logger = logging.getLogger("backfill.cli.worker")


def command(
    registry: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:REGISTRY...",
            help="Where the TaskRegistry is, such as app.jobs:tasks; app.jobs where that module has only one. Several are "
            "worked together.",
        ),
    ],
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", help="How many jobs run at once.")] = 10,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", metavar="GLOB", help="Only jobs of serial queues that match; may be repeated."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="GLOB", help="Only jobs of tasks that match; may be repeated."),
    ] = None,
    poll_interval: Annotated[
        str, typer.Option("--poll-interval", metavar="TIME", help="How often to look where nothing wakes it.")
    ] = "2s",
    listen_dsn: Annotated[
        str | None,
        typer.Option(
            "--listen-dsn",
            envvar="BACKFILL_LISTEN_DSN",
            metavar="DSN",
            show_default=False,
            help="Where to hear of new jobs, round a pooler.",
        ),
    ] = None,
    no_listen: Annotated[
        bool, typer.Option("--no-listen", help="Poll only, as behind a pooler.", show_default=False)
    ] = False,
    shutdown_timeout: Annotated[
        str,
        typer.Option("--shutdown-timeout", metavar="TIME", help="How long running jobs may take to end at a stop."),
    ] = "30s",
    ahead_bytes: Annotated[
        str, typer.Option("--ahead-bytes", metavar="SIZE", help="How much payload may be claimed ahead of what runs.")
    ] = "32MB",
    health_address: Annotated[
        str | None,
        typer.Option(
            "--health-address",
            metavar="HOST:PORT",
            show_default=False,
            help="Answer /live, /ready and /health there over HTTP.",
        ),
    ] = None,
    health_file: Annotated[
        Path | None,
        typer.Option(
            "--health-file", metavar="FILE", show_default=False, help="Write this file every second while it is ready."
        ),
    ] = None,
    retry_traceback: Annotated[
        RetryTraceback,
        typer.Option("--retry-traceback", help="How much traceback is logged of a failure that is tried again."),
    ] = RetryTraceback.NONE,
    log_level: Annotated[LogLevel, typer.Option("--log-level", help="How much to log.")] = LogLevel.INFO,
    json_logs: Annotated[bool, typer.Option("--json", help="Log JSON, an object a line.", show_default=False)] = False,
    dsn: DsnOption = None,
    schema: SchemaOption = "graphile_worker",
) -> None:
    """Run the jobs of a registry's tasks.

    The first Ctrl-C (or SIGTERM) stops claiming and waits for running jobs up to the shutdown timeout; the second
    interrupts them at once, and they go back to the queue. A third ends the process on the spot, whatever runs.
    """
    from backfill.cli.registry import load_registries
    from backfill.cli.signals import Signals
    from backfill.worker import WorkerConfig, WorkerRunner

    never_wait_for_readers()
    set_up_logs(log_level, as_json=json_logs)
    config = WorkerConfig(
        required_dsn(dsn),
        schema=schema,
        queues=[_lane(concurrency, tasks=task, queues=queue)],
        poll_interval=duration(poll_interval, "--poll-interval"),
        listen=not no_listen,
        listen_dsn=required_dsn(listen_dsn) if listen_dsn else None,
        shutdown_timeout=duration(shutdown_timeout, "--shutdown-timeout"),
        ahead_bytes=size(ahead_bytes, "--ahead-bytes"),
        health_address=health_address,
        health_file=health_file,
        retry_traceback=retry_traceback,
    )
    tasks = load_registries(registry)
    # What was imported stays: the collector need not look at it again while jobs come and go, which costs a tenth of the rate.
    gc.freeze()
    signals = Signals()

    async def work() -> ExitCode:
        runner = WorkerRunner(config, tasks)
        orderly = await _Shift(runner, signals).run()
        code = ExitCode.LEFT if runner.left else ExitCode.OK if orderly else ExitCode.INTERRUPTED
        end_soon(code)
        return code

    raise typer.Exit(run_steadily(work))


def _lane(concurrency: int, *, tasks: list[str] | None, queues: list[str] | None) -> QueueConfig:
    from backfill.worker import QueueConfig

    if not tasks and not queues:
        return QueueConfig.default_queue(concurrency)
    return QueueConfig("shell", concurrency, tasks=tasks or None, queues=queues or None)


class _Shift:
    """A runner under this process's signals: the first drains, the second hurries, the third ends the process."""

    def __init__(self, runner: WorkerRunner, signals: Signals) -> None:
        self._runner = runner
        self._came = signals
        self._stop = asyncio.Event()
        self._signals = 0
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> bool:
        """Work until a signal; whether the stop was an orderly one."""
        self._task = asyncio.current_task()
        self._came.watch(self._on_signal)
        try:
            while not await self._work():
                logger.error(
                    "a job has cancelled all tasks of its worker, which has let go of its jobs and starts again"
                )
        finally:
            self._came.leave()
        return self._signals < 2

    async def _work(self) -> bool:
        """Work until a signal; whether one came."""
        try:
            await self._runner.run_until_cancelled(self._stop)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._signals == 0 and task is not None:
                task.uncancel()
                return False
        return True

    def _on_signal(self, count: int) -> None:
        self._signals = count
        if count == 1:
            patience = self._runner.config.shutdown_timeout.total_seconds()
            logger.info("stopping: running jobs have %g s to end; another signal interrupts them at once", patience)
            self._stop.set()
            return
        logger.warning("stopping at once: running jobs are interrupted and given back")
        self._runner.hurry()
        if self._runner.worker_id is None and self._task is not None:  # it never got as far as starting
            self._task.cancel()
