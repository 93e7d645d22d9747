"""A worker in a program that does something else too, such as serving requests, on the same event loop.

The host starts it with its own start, ends it with its own stop, and can tell at any time whether it still works.
Frameworks' ties in `contrib` use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import timedelta
from typing import Any

from backfill.said import named, stripped
from backfill.worker.liveness.health import LIVE_WITHIN, READY_WITHIN, WorkerHealth
from backfill.worker.runner import WorkerRunner
from backfill.worker.service import Service, finish

logger = logging.getLogger(__name__)


class HostedWorker(Service):
    """Runs a worker in a task of its own, from `begin` to `end`; it handles no signals.

    Where the worker ends before it was asked to, since a part of it failed for good, this is logged as CRITICAL, and
    its health is neither live nor ready from then on. It is not started again: whoever watches the host does that.

    Args:
        runner: the worker; nobody else runs it meanwhile.
    """

    def __init__(self, runner: WorkerRunner) -> None:
        super().__init__("hosted worker")
        self._runner = runner
        self._started = asyncio.Event()
        self._ended: WorkerHealth | None = None

    async def begin(self) -> None:
        """Start the worker, and return once it works. If the call is cancelled or fails, nothing of it is left.

        Raises:
            DatabaseConnectionError: the server cannot be reached.
            SchemaError: the schema is missing or of another version.
            BackfillError: what else `WorkerRunner.run` raises at its start.
        """
        self.start()
        task, started = self._task, asyncio.ensure_future(self._started.wait())
        assert task is not None  # noqa: S101 - it was started a moment ago
        waiting: list[asyncio.Future[Any]] = [task, started]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            with contextlib.suppress(
                Exception
            ):  # what the start fails with: the caller does not want the worker any more
                await finish(self.stop)
            raise
        finally:
            started.cancel()
            await asyncio.wait([started])
        if not self._started.is_set():
            task.result()
        task.add_done_callback(self._tell)

    async def end(self) -> None:
        """Drain the worker up to its shutdown's deadline; once it has begun, a cancellation waits for its end.

        Raises:
            HandlersStillRunningError: the worker has ended, but handlers still run, since nothing can end them.
            BackfillError: a part of the worker failed while it stopped. What it failed with earlier was logged then.
        """
        if self._ended is None:
            await finish(self.stop)

    def health(self, *, live_within: timedelta = LIVE_WITHIN, ready_within: timedelta = READY_WITHIN) -> WorkerHealth:
        """The worker's health, without asking the database; any thread may call this.

        Args:
            live_within: how long ago the event loop may have turned last.
            ready_within: how long ago the database may have last answered a claim.
        """
        return self._ended or self._runner.health(live_within=live_within, ready_within=ready_within)

    async def _run(self) -> None:
        await self._runner.run_until_cancelled(self._stopping, started=self._started)

    def _tell(self, task: asyncio.Task[None]) -> None:
        """Say that the worker has ended, unless it was asked to."""
        if self._stopping.is_set():
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            stripped(error, context=True)
        why = "somebody cancelled its task" if error is None else named(error)
        self._ended = WorkerHealth(live=False, ready=False, reasons=(f"it has ended: {why}",))
        logger.critical("the worker of this program has ended, and runs no more jobs: %s", why, exc_info=error)
