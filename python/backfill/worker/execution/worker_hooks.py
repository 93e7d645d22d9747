"""The hooks of one worker, from its start to its end: its callbacks, and what it tells of itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from backfill.hooks.answers import AfterJobRun, BeforeJobRun
from backfill.hooks.events import JobFetch, JobStart, ShutdownReason, WorkerInit, WorkerShutdown
from backfill.hooks.failures import HookTally
from backfill.hooks.registry import HookRegistry
from backfill.storage.connection import redacted, resolve
from backfill.worker.config import WorkerConfig
from backfill.worker.execution.job_events import ENDS, JobEvents
from backfill.worker.execution.observers import Observers
from backfill.worker.execution.settled import SettledListener


class WorkerHooks:
    """The callbacks of a worker's plugins, and what those share who call them.

    Args:
        registry: the callbacks.
        tally: counts what fails.
        interrupted: called with a KeyboardInterrupt that an observer raised, where it may come from a Ctrl-C.

    Attributes:
        registry: the callbacks.
        observers: calls the observers.
        tally: counts what fails.
    """

    def __init__(
        self, registry: HookRegistry, tally: HookTally, interrupted: Callable[[KeyboardInterrupt], None]
    ) -> None:
        self.registry = registry
        self.tally = tally
        self.observers = Observers(registry, tally, interrupted)
        self._ended = False

    @property
    def attend(self) -> bool:
        """Whether a callback wants to know of jobs that are claimed, start or run."""
        asked = any(self.registry.callbacks(event) for event in (BeforeJobRun, AfterJobRun))
        return asked or self.observers.hear(JobFetch, JobStart)

    def listeners(self, worker_id: str) -> tuple[SettledListener, ...]:
        """The settler's listeners that tell observers how attempts ended; none where nobody observes that."""
        return (JobEvents(self.observers, worker_id),) if self.observers.hear(*ENDS) else ()

    async def tell_init(self, config: WorkerConfig) -> None:
        """Tell that a worker is being started."""
        if not self.observers.hear(WorkerInit):
            return
        try:
            database = redacted(await resolve(config.required_dsn()))
        except Exception:  # noqa: BLE001 - a dsn's function may raise anything, and the worker is connected already
            database = "(unknown)"
        concurrency = sum(lane.concurrency for lane in config.lanes)
        self.observers.tell(WorkerInit(database, config.schema, concurrency))

    async def end(
        self,
        worker_id: str | None,
        failed: asyncio.Future[None],
        reason: ShutdownReason | None,
        *,
        until: float,
        hurry: asyncio.Event,
    ) -> None:
        """Tell that the worker has stopped, and wait for the observers; it may be called again after a cancellation.

        Args:
            worker_id: the worker's last id; None where it never worked.
            failed: has the error of the first part of the worker that failed.
            reason: why the worker was stopped, as far as its runner knows.
            until: the shutdown's deadline, in monotonic seconds.
            hurry: set when the shutdown must not wait any more.
        """
        if worker_id is not None and not self._ended:
            self._ended = True
            failure = failed.exception() if failed.done() else None
            if isinstance(failure, KeyboardInterrupt):
                reason = ShutdownReason.SIGNAL
            elif failure is not None:
                reason = ShutdownReason.ERROR
            self.observers.tell(WorkerShutdown(worker_id, reason or ShutdownReason.GRACEFUL))
        await self.observers.close(until - time.monotonic(), hurry)
