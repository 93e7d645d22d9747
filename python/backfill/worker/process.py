"""One start of a worker: its connections, its current session, and the services that look after the queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from backfill.client.lent import SERVICES_MOST, LentClient, ServicesClient
from backfill.errors import BackfillError
from backfill.hooks.events import LeaseLost, ShutdownReason, WorkerStart
from backfill.hooks.failures import HookTally
from backfill.hooks.registry import HookRegistry
from backfill.said import named, stripped
from backfill.storage.backoff import Backoff
from backfill.storage.connection import shown
from backfill.storage.until import done_unless, within
from backfill.tasks import TaskRegistry
from backfill.worker.announcing import announce
from backfill.worker.config import WorkerConfig
from backfill.worker.events import Tally, WorkerStopped, emit
from backfill.worker.execution.forks import ForkGuard
from backfill.worker.execution.interrupts import raise_again
from backfill.worker.execution.outcomes import Collect
from backfill.worker.execution.stragglers import Stragglers
from backfill.worker.execution.worker_hooks import WorkerHooks
from backfill.worker.handler_pool import HandlerPool
from backfill.worker.liveness.beat import TURN_SECONDS
from backfill.worker.liveness.children import Children
from backfill.worker.liveness.health import LIVE_WITHIN, READY_WITHIN, STARTING, Pulse, WorkerHealth
from backfill.worker.pipeline.hot import QUERY_TIMEOUT
from backfill.worker.service import Service
from backfill.worker.service_lists import HTTP_PROBE, PROBES, UPKEEP
from backfill.worker.services import ServiceGroup
from backfill.worker.session import WorkerSession
from backfill.worker.stop import Stop
from backfill.worker.upkeep.end_partitions import EndPartitions
from backfill.worker.upkeep.held_queues import HeldQueues
from backfill.worker.upkeep.left_attempts import LeftAttempts

if TYPE_CHECKING:
    from backfill.worker.execution.held_job import HeldJob
    from backfill.worker.liveness.probe import HttpProbe

logger = logging.getLogger(__name__)

_FLUSH_PATIENCE: Final = 1.0
_CLOSE_SECONDS: Final = 10.0
"""How long a client may take to close at the end; its pool waits up to five seconds for what is under way."""


class WorkerProcess:
    """The parts that a runner starts and stops.

    Args:
        config: the settings of the deployment.
        registry: the tasks of the program.
        attended: whether somebody waits for `failed`.
        collect: called with the job and the error of each failed attempt.
        hooks: the callbacks of the worker's plugins.
        tally: counts what fails of them.

    Attributes:
        config: the settings of the deployment.
        registry: the tasks of the program.
        hooks: the callbacks of the worker's plugins, and what those share who call them.
        schedule_news: set when operators may have said something of recurring jobs.
        own: the services' client, once it is open.
        pool: the child processes in which handlers run.
        keeper: makes and drops the partitions of ends.
        held_queues: frees the queues that are held for ended jobs.
        left_attempts: deletes the records of attempts whose jobs are gone.
        one: the session that works now.
        failed: a future that gets the error of the first part that failed, or a handler's KeyboardInterrupt that may be
            a Ctrl-C.
        attended: whether somebody waits for `failed`.
        hurry: set when a shutdown must not wait any more.
        pulse: what is known about the worker's health.
        reason: why the worker is being stopped, as far as its runner knows.
        stragglers: handlers that still run although they should have ended, under whichever id they began.
    """

    own: ServicesClient
    keeper: EndPartitions
    held_queues: HeldQueues
    left_attempts: LeftAttempts
    one: WorkerSession

    def __init__(
        self,
        config: WorkerConfig,
        registry: TaskRegistry[Any],
        *,
        attended: bool,
        collect: Collect | None = None,
        hooks: HookRegistry | None = None,
        tally: HookTally | None = None,
    ) -> None:
        self.hooks = WorkerHooks(HookRegistry() if hooks is None else hooks, tally or HookTally(), self._interrupted)
        self._tell = self.hooks.observers.tell
        self.reason: ShutdownReason | None = None
        self._collect = collect
        self.attended = attended
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.hurry, self.schedule_news = asyncio.Event(), asyncio.Event()
        self.pulse = Pulse()
        self.stragglers = Stragglers()
        self._began = time.monotonic()
        self._tally = Tally()
        self.config = config
        self.registry = registry
        self._stack = AsyncExitStack()
        # The guard is made first and closed last, since a lifespan may fork too, for example a pool of processes.
        self._stack.callback(ForkGuard().close)
        self.pool = HandlerPool(config, registry, self.hurry)
        self._stack.push_async_callback(self.pool.close)
        self._probes = ServiceGroup(PROBES)
        self._upkeep = ServiceGroup(UPKEEP)
        self._watchers: dict[Service, asyncio.Task[None]] = {}
        self._progress = asyncio.Event()
        self._closing = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None  # the last one, also where it only starts the new session now
        self._background = True
        self._stop = Stop(
            config, self._upkeep, hurry=self.hurry, stragglers=self.stragglers, progress=self._progress,
            session=lambda: getattr(self, "one", None), renewing=lambda: self._renewal, end_hooks=self._end_hooks,
        )  # fmt: skip

    async def open(self, *, background: bool) -> None:
        """Do all that may fail at the start: connect, check the schema, enter the lifespan, write the worker's row."""
        config, self._background = self.config, background
        self._stack.push_async_callback(self._probes.stop)
        await self._probes.start(self, config, background=background)
        dsn, schema = config.required_dsn(), config.schema
        # The services have a client apart from the handlers', so that handlers that hold all of its connections do not
        # keep a service from its work.
        self.own = ServicesClient(dsn, schema=schema, min_size=1, max_size=SERVICES_MOST)
        self._stack.push_async_callback(within, _CLOSE_SECONDS, self.own.close)
        await self.own.open()
        self.pool.children = Children(self.own, worker=lambda: self.one.worker_id)
        await self.hooks.tell_init(config)
        # The handlers' client is opened by its first use, so that a worker whose handlers do not use it has no extra
        # connection.
        client = self._client = LentClient(dsn, schema=schema, min_size=0, max_size=config.pool_size)
        client.use(self.hooks.registry)
        self._stack.push_async_callback(within, _CLOSE_SECONDS, client.take_back)
        lifespan = self.registry.lifespan
        self._deps = None if lifespan is None else await self._stop.lifespan.enter(lifespan(client))
        keeps = {task.keep for task in self.registry if task.keep is not None}
        self.keeper = EndPartitions(self.own, keeps)
        interval = config.dead_after.total_seconds()
        self.held_queues = HeldQueues(self.own, interval=interval, worker=lambda: self.one.worker_id)
        self.left_attempts = LeftAttempts(self.own, worker=lambda: self.one.worker_id)
        # The worker's row is written last, since nothing writes its heartbeats until it is started.
        one = self._incarnation()
        await one.open()
        self.one = one
        announce(config, self.registry, one.worker_id, one.lanes, declares=background)

    async def start(self) -> None:
        """Start the services that run in the background."""
        await self._begin(self.one)
        self._attend(await self._upkeep.start(self, self.config))

    @property
    def left(self) -> int:
        """How many jobs were still locked when the worker had ended, since the database did not take their ends."""
        return self._stop.left

    @property
    def tally(self) -> Tally:
        """How the attempts ended so far, under all of its ids; any thread may ask."""
        if not hasattr(self, "one"):
            return self._tally
        return self._tally if self.one.abandoned else self._tally + self.one.executor.tally

    @property
    def services(self) -> list[Service]:
        """The services that look after the queue and the process, once they are started."""
        return self._upkeep.services

    @property
    def health_port(self) -> int | None:
        """The port on which the HTTP probe listens; None where there is none."""
        ports = [cast("HttpProbe", one).port for one in self._probes.services if one.name == HTTP_PROBE]
        return ports[0] if ports else None

    def health(self, live_within: timedelta = LIVE_WITHIN, ready_within: timedelta = READY_WITHIN) -> WorkerHealth:
        """The worker's health; any thread may ask."""
        if not hasattr(self, "one"):
            return STARTING
        one = self.one
        return self.pulse.health(
            worker_id=one.worker_id, held=len(one.executor.held), unsettled=one.station.settler.pending,
            live_within=live_within, ready_within=ready_within, hung=self.stragglers.hung,
            lanes=len(self.config.lanes), paused=one.pauses.tasks, all_paused=one.pauses.are_all,
        )  # fmt: skip

    async def run_available(self) -> int:
        """Claim and run jobs until a look from the start finds none and none runs; return how many jobs were run."""
        await self._begin(self.one)
        await self.held_queues.tend()
        earlier = 0
        while True:
            one = self.one
            executor, station, before = one.executor, one.station, one.executor.claimed
            station.claimer.doubt()
            station.claimer.wake()
            while one is self.one and (
                self._renewing is not None
                or not (station.claimer.sated and len(executor.held) <= station.settler.refused)
            ):
                if self._renewing is None and len(executor.held) <= station.settler.refused:
                    station.claimer.insist()  # no job runs that would have to wait for an expensive look
                await self._progress_or_failure()
            if one is not self.one:  # the worker was given up and has a new id: the jobs that it held may wait again
                earlier += executor.started
            elif executor.claimed == before:
                await self.keeper.tend()
                await self.left_attempts.tend()
                return earlier + executor.started

    async def flush_counters(self) -> None:
        """Write the counts, once the attempts that have ended are settled."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_PATIENCE):
                while not self.one.station.is_settled:
                    await self._progress_or_failure()
        await self.one.counters.flush()

    async def close(self) -> None:
        """Stop claiming, let running jobs end by the deadline, give the rest back, settle, and close everything.

        After a cancellation it may be called again, and goes on where it stopped: nothing is closed before all is
        settled.
        """
        self._closing.set()
        self.pulse.stopping = True
        for watcher in self._watchers.values():
            watcher.cancel()
        failed: BaseException | None = None
        for step in self._stop.steps:
            try:
                await step()
            except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - raised below, once the rest is closed
                failed = failed or error
        async with self._stack:
            if failed is not None:
                raise failed

    async def _end_hooks(self, until: float) -> None:
        """Tell observers that the worker has stopped, and give them time up to the shutdown's deadline."""
        worker_id = self.one.worker_id if hasattr(self, "one") else None
        await self.hooks.end(worker_id, self.failed, self.reason, until=until, hurry=self.hurry)

    def tell_end(self) -> None:
        """Log that the worker has stopped, and what it did, unless it never worked."""
        if hasattr(self, "one"):
            emit(WorkerStopped(self.one.worker_id, time.monotonic() - self._began, self.tally, self.left))

    def wake(self) -> None:
        """Have the session that works now look, since there may be jobs."""
        self.one.station.claimer.wake()

    def under_way(self) -> HeldJob | None:
        """The attempt of the current session whose code the event loop runs at this moment; any thread may ask."""
        return self.one.executor.under_way()

    def hear(self, count: int) -> None:
        """Take note that another process has added `count` jobs."""
        self.one.station.claimer.hear(count)

    def look_at_control(self) -> None:
        """Have the session that works now look at what operators say, since there may be something new."""
        self.one.control.look()

    def _incarnation(self) -> WorkerSession:
        return WorkerSession(
            self.config, self.registry, self._client, self.own, self._deps,
            progressed=self._progress.set, lost=self._lost,
            interrupted=self._interrupted, pulse=self.pulse, stragglers=self.stragglers, collect=self._collect,
            hooks=self.hooks, pool=self.pool, schedule_news=self.schedule_news, declares=self._background,
        )  # fmt: skip

    def _lost(self) -> None:
        """Handle that another worker has given this one up."""
        if self._renewing is not None:
            return
        if not self._closing.is_set():
            self._renewal = self._renewing = asyncio.ensure_future(self._go_on())
        elif not self.hurry.is_set():
            # The drain need not wait any more, since others have the worker's jobs.
            emit(LeaseLost(self.one.worker_id, len(self.one.executor.held)), self._tell)
            self.hurry.set()

    def _interrupted(self, error: KeyboardInterrupt) -> None:
        """Handle a KeyboardInterrupt from a handler that may be a Ctrl-C.

        Whoever waits for the worker drains it and gets the error. Where nobody waits, since the worker runs beside its
        owner's code, the error ends the loop, as it would from any other task.
        """
        if not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()
        if not self.attended:
            asyncio.get_running_loop().call_soon(raise_again, error)

    async def _go_on(self) -> None:
        """Renew the worker, and keep its health live meanwhile, however long that takes."""
        turning = asyncio.ensure_future(self._turn())
        try:
            await self._renew()
        except Exception as error:  # somebody must hear that the worker cannot go on
            stripped(error, context=True)
            logger.critical("the worker was given up and cannot go on", exc_info=error)
            if not self.failed.done():
                self.failed.set_exception(error)
                self.failed.exception()
        finally:
            turning.cancel()
            await asyncio.wait([turning])
            self._progress.set()

    async def _turn(self) -> None:
        while True:
            self.pulse.turned = time.monotonic()
            await asyncio.sleep(TURN_SECONDS)

    async def _renew(self) -> None:
        """Let go of the jobs that others have now, and go on under a new id."""
        old = self.one
        emit(LeaseLost(old.worker_id, len(old.executor.held)), self._tell)
        for service in old.services:
            if (watcher := self._watchers.pop(service, None)) is not None:
                watcher.cancel()
        await old.abandon()
        self._tally += old.executor.tally
        backoff = Backoff()
        while not self._closing.is_set():
            one = self._incarnation()
            try:
                opened = await done_unless(self._closing, one.open(), timeout=QUERY_TIMEOUT)
            except Exception as error:  # noqa: BLE001 - a dsn's function may raise anything; it is asked again
                logger.log(backoff.level(), "the worker cannot go on yet: %s", shown(error))
                await backoff.wait(self._closing)
                continue
            if not opened:
                return
            self.one = one
            self._renewing = None
            if not self._closing.is_set():
                await self._begin(one, replaces=old.worker_id)
                logger.warning("worker %s goes on as %s", old.worker_id, one.worker_id)
            return

    async def _progress_or_failure(self) -> None:
        """Wait until a pump has taken a turn or a part has failed. Raises what the part failed with."""
        progress = asyncio.ensure_future(self._progress.wait())
        try:
            waited: list[asyncio.Future[Any]] = [progress, self.failed]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            progress.cancel()
        self._progress.clear()
        if self.failed.done():
            self.failed.result()

    async def _begin(self, one: WorkerSession, replaces: str | None = None) -> None:
        """Have a session begin to work."""
        self._tell(WorkerStart(one.worker_id, self._deps, replaces))
        self._attend(await one.start(background=self._background))

    def _attend(self, services: Sequence[Service]) -> None:
        for service in services:
            self._watchers[service] = asyncio.ensure_future(self._watch(service))

    async def _watch(self, service: Service) -> None:
        task = service.task
        if task is None:
            return
        await asyncio.wait([task])
        if self.failed.done() or (service is self.one.beat and self._renewing is not None):
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            stripped(error, context=True)
        logger.critical(
            "the worker's %s ended: %s", service.name, "cancelled" if error is None else named(error), exc_info=error
        )
        self.failed.set_exception(error or BackfillError(f"the worker's {service.name} ended by itself"))
        self.failed.exception()  # read here, so that asyncio does not warn where nobody waits for the runner
