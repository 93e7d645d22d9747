"""The steps by which a worker stops, and what bounds each of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from backfill.storage.until import end_all, ended_in_time, until
from backfill.worker.config import WorkerConfig
from backfill.worker.execution.stragglers import Stragglers
from backfill.worker.lifespan import Lifespan
from backfill.worker.services import ServiceGroup
from backfill.worker.session import SETTLE_GRACE, WorkerSession, seconds

if TYPE_CHECKING:
    from backfill.worker.process import WorkerProcess

logger = logging.getLogger(__name__)


class Stop:
    """Stops a worker: the jobs first, those whose handlers cannot be ended last of them, then what served them.

    Args:
        config: the settings of the deployment.
        upkeep: the services that look after the queue.
        hurry: set when the stop must not wait any more.
        stragglers: the handlers that still run although they should have ended.
        progress: set when a pump has taken a turn.
        session: returns the session that works now; None before there is one.
        renewing: returns the last task that renewed a worker which was given up; None where none did.
        end_hooks: tells the observers of hooks that the worker has stopped; called with the stop's deadline, in
            monotonic seconds.

    Attributes:
        lifespan: the registry's lifespan.
        left: how many jobs were still locked when the worker had ended, since the database did not take their ends.
    """

    def __init__(
        self,
        config: WorkerConfig,
        upkeep: ServiceGroup[WorkerProcess],
        *,
        hurry: asyncio.Event,
        stragglers: Stragglers,
        progress: asyncio.Event,
        session: Callable[[], WorkerSession | None],
        renewing: Callable[[], asyncio.Task[None] | None],
        end_hooks: Callable[[float], Awaitable[None]],
    ) -> None:
        self.lifespan = Lifespan()
        self.left = 0
        self._timeout = seconds(config.shutdown_timeout)
        self._upkeep = upkeep
        self._hurry = hurry
        self._stragglers = stragglers
        self._progress = progress
        self._given_session = session
        self._renewing = renewing
        self._end_hooks = end_hooks
        self._until: float | None = None
        self._settled: WorkerSession | None = None

    @property
    def steps(self) -> tuple[Callable[[], Awaitable[Any]], ...]:
        """The steps in their order. Each may be called again where it was broken off, and then goes on."""
        return self._drain, self._give_back, self._let_go, self._tell_hooks, self._leave_lifespan

    async def _drain(self) -> None:
        """Let running jobs end, and write their ends; services that somebody else cancelled run again until then."""
        if self._until is None:
            self._until = time.monotonic() + self._timeout
        await self._end_renewal()
        if (session := self._session) is not None:
            await session.resume()
            await session.drain(self._left, self._hurry)
        if self._stragglers.running:
            await until(self._hurry, self._stragglers.wait(self._left))
        if session is not None:
            if session.executor.idle:
                await self._settle(session)
            else:
                await self._until_written(session)

    async def _give_back(self) -> None:
        """Give back the jobs whose handlers cannot be ended: last of all, since others may start them from then on.

        The lifespan ends before that, since a thread that still runs then may end the job in that time.
        """
        await self._upkeep.stop()  # its failures are ignored here, since each was logged when it came
        if (session := self._session) is not None:
            try:
                if not session.executor.idle:
                    await self._leave_lifespan()
            finally:
                session.executor.let_go()
                await self._settle(session)

    async def _settle(self, session: WorkerSession) -> None:
        """Settle a session, unless that was done."""
        if session is self._settled:
            return
        try:
            await session.settle()
        except Exception:  # what a service has failed with: all of them have ended
            self._settled = session
            raise
        self._settled = session

    async def _let_go(self) -> None:
        if (session := self._session) is not None:
            self.left = len(session.executor.held)
            await session.close()

    async def _tell_hooks(self) -> None:
        """Tell the observers before the lifespan ends, since they may use what it made."""
        await self._end_hooks(self._until or 0.0)

    async def _leave_lifespan(self) -> None:
        await self.lifespan.leave(self._until, self._hurry)

    @property
    def _session(self) -> WorkerSession | None:
        """The session that works now, unless there is none or it was given up."""
        session = self._given_session()
        return None if session is None or session.abandoned else session

    @property
    def _left(self) -> float:
        """How many seconds of the stop's time are left."""
        return max((self._until or 0.0) - time.monotonic(), 0.0)

    async def _end_renewal(self) -> None:
        """Wait until a worker that was given up has let go of its jobs, and cancel that where it takes too long."""
        renewing = self._renewing()
        if renewing is None:
            return
        patience = self._left + SETTLE_GRACE
        if not await ended_in_time(renewing, timeout=patience, hurry=self._hurry, least=SETTLE_GRACE):
            logger.warning("the worker was given up and does not let go of its jobs in time; it stops as it is")
            await end_all(renewing)

    async def _until_written(self, session: WorkerSession) -> None:
        """Wait until the ends of all attempts that have ended are written, for `SETTLE_GRACE` seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_GRACE):
                while not session.station.is_settled:
                    await self._progress.wait()
                    self._progress.clear()
