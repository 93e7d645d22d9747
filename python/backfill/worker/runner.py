"""The runner: puts a worker's parts together, starts them in order, and stops them in order by a deadline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from backfill.errors import ConfigurationError, TaskDefinitionError
from backfill.hooks.events import ShutdownReason
from backfill.hooks.failures import HookFailures, HookTally
from backfill.hooks.registry import Plugin, checked_plugins, composed, distinct
from backfill.middleware import is_async, name_of
from backfill.records import Job
from backfill.tasks import TaskRegistry
from backfill.worker.config import WorkerConfig
from backfill.worker.events import Tally
from backfill.worker.execution.interrupts import ctrl_c_came
from backfill.worker.execution.outcomes import Collect
from backfill.worker.liveness.health import ABSENT, LIVE_WITHIN, READY_WITHIN, WorkerHealth
from backfill.worker.process import WorkerProcess
from backfill.worker.reachable import refuse_unreachable
from backfill.worker.service import finish

logger = logging.getLogger(__name__)


class WorkerRunner:
    """A worker: claims the jobs of a registry's tasks and runs them, until it is stopped.

    Jobs run at least once. The worker survives the loss of the database: it keeps what it knows, connects again, and
    then settles. It handles no signals.

    Args:
        config: the settings of the deployment.
        registry: the tasks of the program. Its plugins are the worker's too.
        plugins: more plugins of this worker; their callbacks come after those of the registry's plugins.

    Raises:
        ConfigurationError: the registry has no task, or `plugins` holds something that is no plugin.
        TaskDefinitionError: an annotation of a handler cannot be resolved, or names a type that cannot be sent; or a
            handler expects `ctx.deps` of some type, and the registry has no lifespan that makes them; or a handler with
            `run_in="process"` could not be found by a child process.
    """

    def __init__(self, config: WorkerConfig, registry: TaskRegistry[Any], *, plugins: Iterable[Plugin] = ()) -> None:
        if not len(registry):
            raise ConfigurationError("registry: it has no task; import the modules that register them first")
        for task in registry:
            task.resolve()  # so that a wrong annotation is reported now, and not by each attempt
        _refuse_missing_deps(registry)
        _tell_unused_middleware(registry)
        refuse_unreachable(registry)
        _ = registry.schedules  # so that @tasks.cron on a function that is no task is reported now
        self.config = config
        self.registry = registry
        self.plugins = distinct([*registry.plugins, *checked_plugins(plugins)])
        self._hooks = composed(self.plugins)
        self._hook_tally = HookTally()
        self._reason: ShutdownReason | None = None
        self._parts: WorkerProcess | None = None
        self._starting: WorkerProcess | None = None
        self._changing = asyncio.Lock()
        self._left = 0
        self._last_tally = Tally()

    @property
    def worker_id(self) -> str | None:
        """The id of the running worker; None when it does not run.

        The worker gets a new id at each start, and each time another worker has given it up.
        """
        return None if self._parts is None else self._parts.one.worker_id

    @property
    def dlq_processor_enabled(self) -> bool:
        """Whether this worker moves jobs that other programs failed for good to the dead letters.

        `WorkerConfig(dlq_processor_interval=...)` says so. Jobs that the worker itself fails for good are moved at once
        in any case.
        """
        return self.config.dlq_processor_interval is not None

    async def run(self) -> None:
        """Work until cancelled; then drain up to the shutdown's deadline and raise the cancellation.

        Raises:
            DatabaseConnectionError: the server cannot be reached at the start.
            SchemaError: the schema is missing or of another version.
            HandlersStillRunningError: the worker has ended, but handlers still run, since nothing can end them; it
                comes in place of the cancellation.
            BackfillError: a part of the worker failed for good.
        """
        async with self:
            await asyncio.shield(self._attended().failed)

    async def run_until_cancelled(self, stop: asyncio.Event, *, started: asyncio.Event | None = None) -> None:
        """Work until the event is set (or the call is cancelled); then drain up to the shutdown's deadline.

        Args:
            stop: ends the worker when it is set.
            started: is set once the worker has started, for a caller who must know that before it goes on.

        Raises:
            HandlersStillRunningError: the worker has ended, but handlers still run, since nothing can end them.
            BackfillError: what `run` raises, for the same reasons.
        """
        async with self:
            failed, stopped = self._attended().failed, asyncio.ensure_future(stop.wait())
            if started is not None:
                started.set()
            waiting: list[asyncio.Future[Any]] = [failed, stopped]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if failed.done():
                    failed.result()
            finally:
                stopped.cancel()
                await asyncio.wait([stopped])

    async def process_available_jobs(self, *, raise_failures: bool = False) -> int:
        """Run the jobs that are due until none is left, and return how many were run; retries that are due count too.

        It is meant for tests, cron and scripts. It neither listens nor polls, and leaves jobs for later alone.

        Args:
            raise_failures: whether to raise what failed attempts raised, once no job is left. The jobs are written as
                usual: each waits for its retry, or is a dead letter. Tests of handlers should set this, since otherwise
                they pass although the handler raised.

        Raises:
            ConfigurationError: this runner is running in the background.
            HandlersStillRunningError: the call was cancelled and the worker has ended, but handlers still run.
            ExceptionGroup: attempts failed and `raise_failures` is set. It holds the handlers' own exceptions, in the
                order in which they were raised, each with a note that names its job, task and attempt. It is a
                BaseExceptionGroup where one of them is not an Exception, such as SystemExit.
        """
        failures = list[tuple[Job, BaseException]]()
        if self._parts is not None:
            raise ConfigurationError("process_available_jobs: this runner is running already")
        collect = (lambda job, error: failures.append((job, error))) if raise_failures else None
        parts = await self._start(background=False, collect=collect)
        try:
            ran = await parts.run_available()
        except BaseException as error:
            parts.reason = self._reason_for(error)
            await self._end()
            _refuse_running(parts, error)
            raise
        await self._end()
        if failures:
            raise _group(failures, ran)
        return ran

    async def __aenter__(self) -> Self:
        """Start in the background."""
        await self._start(background=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain up to the shutdown's deadline. Raises what a part failed with, unless the block itself has raised.

        Raises:
            HandlersStillRunningError: the worker has ended, but handlers still run, and the block has raised nothing
                but a cancellation.
        """
        parts = self._parts
        if parts is not None:
            parts.reason = self._reason_for(error)
        await self._end()
        if parts is None:
            return
        if parts.failed.done() and not parts.failed.cancelled() and error is None:
            parts.failed.result()
        _refuse_running(parts, error)

    def health(self, *, live_within: timedelta = LIVE_WITHIN, ready_within: timedelta = READY_WITHIN) -> WorkerHealth:
        """The worker's health, without asking the database; any thread may call this.

        Args:
            live_within: how long ago its event loop may have turned last. If a handler blocks the loop for longer, the
                worker is not live.
            ready_within: how long ago the database may have last answered a claim; at least one is made every 2
                seconds.
        """
        return ABSENT if self._parts is None else self._parts.health(live_within, ready_within)

    @property
    def health_port(self) -> int | None:
        """The port on which health probes are answered, also where `health_address` has port 0; None where none is."""
        return None if self._parts is None else self._parts.health_port

    @property
    def left(self) -> int:
        """How many jobs the last stop left locked, since the database did not take their ends before the deadline.

        Other workers run them again once they have seen this one dead.
        """
        return self._left

    @property
    def tally(self) -> Tally:
        """How the attempts of the running worker ended so far, or those of the last one; any thread may ask."""
        parts = self._parts
        return self._last_tally if parts is None else parts.tally

    @property
    def hook_failures(self) -> HookFailures:
        """How often callbacks of plugins failed or were not called, since this runner was made."""
        return self._hook_tally.so_far

    def stopping_for(self, reason: ShutdownReason) -> None:
        """Say why the worker is about to be stopped, for its WorkerShutdown event.

        A program that stops its worker when a signal comes should call this in the signal's handler; the shell does. If
        nobody says why, the reason is an error where a part of the worker or the code around it failed, a signal after
        a Ctrl-C, and else graceful.
        """
        self._reason = ShutdownReason(reason)

    def hurry(self) -> None:
        """End a shutdown's waiting now: jobs that still run are interrupted and given back.

        A start that was broken off is hurried too: the end of the lifespan has a few seconds more.
        """
        for parts in (self._parts, self._starting):
            if parts is not None:
                parts.hurry.set()

    async def flush_counters(self) -> None:
        """Write the counts now instead of within 5 seconds, for tests; attempts that have ended are settled first.

        It waits for settlements for at most a second. Where the worker does not run, all counts are written already.

        Raises:
            DatabaseConnectionError: the database is away; the counts are kept.
        """
        if self._parts is not None:
            await self._parts.flush_counters()

    def _reason_for(self, error: BaseException | None) -> ShutdownReason:
        """Why the worker stops, if its block of code was left in this way."""
        if self._reason is not None:
            return self._reason
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, asyncio.CancelledError) and ctrl_c_came()):
            return ShutdownReason.SIGNAL
        return ShutdownReason.ERROR if isinstance(error, Exception) else ShutdownReason.GRACEFUL

    def _attended(self) -> WorkerProcess:
        """The parts, marked as ones for whose failure the caller waits."""
        assert self._parts is not None  # noqa: S101 - it was started a moment ago
        self._parts.attended = True
        return self._parts

    async def _start(self, *, background: bool, collect: Collect | None = None) -> WorkerProcess:
        async with self._changing:
            if self._parts is not None:
                raise ConfigurationError("this runner is running already")
            parts = WorkerProcess(
                self.config,
                self.registry,
                attended=not background,
                collect=collect,
                hooks=self._hooks,
                tally=self._hook_tally,
            )
            self._starting = parts
            try:
                await parts.open(background=background)
                self._parts = parts
                if background:
                    await parts.start()
            except BaseException:
                try:
                    await finish(parts.close)
                finally:
                    self._parts = None
                    parts.tell_end()
                raise
            finally:
                self._starting = None
            return parts

    async def _end(self) -> None:
        parts = self._parts
        try:
            await finish(self._stop)
        finally:
            self._reason = None
            if parts is not None and self._parts is parts:
                self._last_tally = parts.tally
                self._parts = None
                parts.tell_end()

    async def _stop(self) -> None:
        async with self._changing:
            parts = self._parts
            if parts is not None:
                await parts.close()
                self._left = parts.left


def _refuse_running(parts: WorkerProcess, error: BaseException | None) -> None:
    """Raise HandlersStillRunningError where handlers still run, unless the caller has another error than that it ends.

    Args:
        parts: the worker, which has ended.
        error: what the caller's own code has raised.
    """
    if error is None or isinstance(error, asyncio.CancelledError):
        parts.stragglers.refuse_running()


def _group(failures: list[tuple[Job, BaseException]], ran: int) -> BaseExceptionGroup[BaseException]:
    """The errors of failed attempts as one group, each with a note that names its job."""
    errors = list[BaseException]()
    for job, error in failures:
        error.add_note(f"in job {job.id} ({job.task_identifier}), attempt {job.attempts} of {job.max_attempts}")
        if not any(error is other for other in errors):  # a handler may raise the same instance again
            errors.append(error)
    return BaseExceptionGroup(f"{len(failures)} of {ran} attempts failed", errors)


def _refuse_missing_deps(registry: TaskRegistry[Any]) -> None:
    """Refuse handlers that expect `ctx.deps` where no lifespan makes them, since each of their attempts would fail."""
    if registry.lifespan is not None:
        return
    way = (
        "and the worker's registry has no lifespan that makes them. Run the registry that has it, and choose tasks by "
        "the "
        "worker's queues, or make this one by TaskRegistry(lifespan=...)"
    )
    if registry.deps is not None:
        raise TaskDefinitionError(f"registry: its handlers expect ctx.deps of type {registry.deps.__qualname__}, {way}")
    for task in registry:
        if task.deps_name is not None:
            raise TaskDefinitionError(
                f"task {task.identifier!r}: its handler expects ctx.deps of type {task.deps_name}, {way}"
            )


def _tell_unused_middleware(registry: TaskRegistry[Any]) -> None:
    """Warn of synchronous middleware that wraps no handler, since all of them are async."""
    used = {id(function) for task in registry if not task.shape.is_async for function in registry.middleware_of(task)}
    known = {id(function): function for task in registry for function in registry.middleware_of(task)}
    for number, function in known.items():
        if number not in used and not is_async(function):
            logger.warning(
                "middleware %s is synchronous and wraps no handler, since all are async: write it as `async def`",
                name_of(function),
            )
