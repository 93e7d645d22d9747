"""A session: a worker under one id, from its first heartbeat to its last settlement.

A worker that was given up by another goes on with a new session; the clients of its services and handlers stay.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import psycopg

from backfill.batches import batches_in
from backfill.client import BackfillClient
from backfill.client.lent import ServicesClient
from backfill.limits import declared
from backfill.logs import CURRENT, RetryTraceback
from backfill.said import stripping
from backfill.storage.schedules import crontab_of
from backfill.storage.shares import EffectiveLimit
from backfill.storage.workers import WorkerRow
from backfill.tasks import TaskRegistry
from backfill.worker.config import WorkerConfig
from backfill.worker.control.breakers import Breakers
from backfill.worker.control.cancelled_jobs import CancelledJobs
from backfill.worker.control.concurrency import LaneConcurrency, described
from backfill.worker.control.controls import Controls
from backfill.worker.control.limited_tasks import LimitedTasks
from backfill.worker.control.paused_queues import PausedQueuesDuty
from backfill.worker.control.pauses import Pauses
from backfill.worker.control.reader import ControlReader
from backfill.worker.execution.outcomes import Collect
from backfill.worker.execution.sentinel import Sentinel
from backfill.worker.execution.stragglers import Stragglers
from backfill.worker.execution.traced import executor_for
from backfill.worker.execution.worker_hooks import WorkerHooks
from backfill.worker.express.loop import WindowLoop
from backfill.worker.express.made import make_windows
from backfill.worker.handler_pool import HandlerPool
from backfill.worker.lanes.lane import Lane
from backfill.worker.lanes.making import make_lanes
from backfill.worker.limits.sources import Sources
from backfill.worker.liveness.beat import Beat
from backfill.worker.liveness.health import Pulse
from backfill.worker.liveness.lookout import Lookout
from backfill.worker.liveness.neighbour_watch import NeighbourWatch
from backfill.worker.liveness.neighbours import Neighbours
from backfill.worker.liveness.places import Place, Surroundings
from backfill.worker.pipeline.claimer import Claimer
from backfill.worker.pipeline.hot import LINES, ConnectionLostError, HotConnections
from backfill.worker.pipeline.locks import Locks
from backfill.worker.pipeline.pump import PipelineLoop, PipelineState
from backfill.worker.pipeline.settler import Settler
from backfill.worker.pipeline.stalls import Stalls
from backfill.worker.scheduling.news import ScheduleNews
from backfill.worker.service import Service
from backfill.worker.service_lists import ATTENDANTS, PUMPS
from backfill.worker.services import STOP_SECONDS, ServiceGroup
from backfill.worker.upkeep.counters import Counters
from backfill.worker.upkeep.metering import Metering
from backfill.worker.upkeep.recoverer import Recoverer

PROTOCOL: Final = 3
"""The version of the behaviour on which other workers may rely.

From 3 on, claims and renewals make a job's `updated_at` equal to its `locked_at`, so that others can recognize a job
that was replaced or removed while it ran (parts/written_since.sql).
"""
SETTLE_GRACE: Final = 10.0
"""Seconds for which a worker that ends waits until the database has taken its last settlements."""
LAST_TURN_SECONDS: Final = 2.0
"""Seconds that the turns still under way after `SETTLE_GRACE` may take to end."""


class WorkerSession:
    """The parts of a worker that carry its id.

    Args:
        config: the settings of the deployment.
        registry: the tasks of the program.
        client: the handlers' client.
        own: the services' client, which is open.
        deps: what the lifespan yielded.
        progressed: called after each turn and settlement.
        lost: called when another worker has given this session up.
        interrupted: called with a KeyboardInterrupt that a handler raised, where it may come from a Ctrl-C.
        pulse: told of signs that the worker is live and ready.
        stragglers: the handlers of earlier sessions that still run, which keep their slots in this one.
        collect: called with the job and the error of each failed attempt.
        hooks: the callbacks of the worker's plugins.
        pool: the child processes in which handlers run.
        schedule_news: set when operators may have said something of recurring jobs.
        declares: whether it declares the schedules of the registry to the fleet, and enqueues their runs; a worker
            that only runs what is due does neither.

    Attributes:
        worker_id: the worker's id, which is new for each session.
        executor: runs its jobs.
        station: what its pumps share.
        own: the services' client.
        beat: its heartbeat.
        counters: writes the counts of its attempts.
        metering: tells the metrics of its process of them.
        recoverer: recovers the jobs that dead workers held.
        neighbours: looks at the processes of the other workers on this machine.
        control: reads what operators say to the fleet.
        lanes: its lanes, in the order in which they are served.
        pauses: which tasks are paused.
        breakers: opens and closes the circuit breakers of its tasks.
        sentinel: notes which job cancels all tasks.
        pumps: claim and settle.
        windows: open windows, where a task is express.
        abandoned: whether it was given up, and has let go of everything.
    """

    worker_id: str
    own: ServicesClient
    beat: Beat
    counters: Counters
    metering: Metering
    recoverer: Recoverer
    neighbours: NeighbourWatch
    control: ControlReader
    breakers: Breakers
    lanes: list[Lane]
    sentinel: Sentinel
    pumps: list[PipelineLoop]
    windows: list[WindowLoop]

    def __init__(
        self,
        config: WorkerConfig,
        registry: TaskRegistry[Any],
        client: BackfillClient,
        own: ServicesClient,
        deps: Any,
        *,
        progressed: Callable[[], None],
        lost: Callable[[], None],
        interrupted: Callable[[KeyboardInterrupt], None],
        pulse: Pulse,
        stragglers: Stragglers,
        collect: Collect | None = None,
        hooks: WorkerHooks,
        pool: HandlerPool,
        schedule_news: asyncio.Event,
        declares: bool,
    ) -> None:
        self.worker_id = f"backfill_{secrets.token_hex(9)}"
        self.own = own
        self._config = config
        self._crontab = crontab_of(registry.schedules) if declares else None
        self._schedules = declares and config.scheduling
        tasks, dsn = registry.identifiers(), config.required_dsn()
        self.executor = executor_for(
            hooks.registry.tracer,
            registry,
            worker_id=self.worker_id,
            client=client,
            deps=deps,
            retry=config.retry,
            traceback=RetryTraceback(config.retry_traceback),
            collect=collect,
            hooks=hooks if hooks.attend else None,
        )
        self.executor.batches = batches_in(registry)
        pool.attach(self.executor, self.worker_id)
        lanes = self.lanes = make_lanes(
            config.lanes, schema=config.schema, tasks=tasks, forbidden_flags=tuple(config.forbidden_flags),
            accepted_flags=tuple(config.accepted_flags), ahead_bytes=config.ahead_bytes,
            patience=seconds(config.poll_interval),
        )  # fmt: skip
        self.beat = Beat(config, self._row(tasks, declared(registry), Place.here(pool.children.now)), pulse)
        self.beat.lost, self.beat.regained = lost, self.executor.go_on
        self.executor.leased_until, self.executor.renew_lease = 0.0, self.beat.leased_until
        self.counters = Counters(
            own, worker=self.worker_id, spare=lambda: ServicesClient(dsn, schema=config.schema, min_size=1, max_size=1)
        )
        self._broken = self._limited = frozenset[str]()
        self.breakers = Breakers(own, registry, broken=self._break)
        self.metering = Metering(self.counters.to_database)
        locks = Locks(self.executor, schema=config.schema, worker=self.worker_id)
        self.hot = HotConnections(dsn, schema=config.schema, worker=self.worker_id, compare=locks.compare)
        limits = Sources(
            self.executor, lanes, schema=config.schema, worker=self.worker_id, patience=seconds(config.poll_interval),
            fleet=lambda: self.beat.fleet, stir=self._stir,
        )  # fmt: skip
        self.executor.kept_back = limits.withdraw_all
        settler = Settler(
            self.executor, limits, schema=config.schema, worker=self.worker_id, settled=progressed,
            listeners=(self.counters, self.breakers, self.metering, *hooks.listeners(self.worker_id)),
            look_soon=locks.look_soon,
        )  # fmt: skip
        self.recoverer = Recoverer(
            own, worker=self.worker_id, registry=registry, retry=config.retry, dead_after=seconds(config.dead_after),
            tell=hooks.observers.tell, buried=self.breakers.suspect,
        )  # fmt: skip
        dead_after, surroundings = seconds(config.dead_after), Surroundings.here()
        neighbours = Neighbours(self.worker_id, dead_after=dead_after, surroundings=surroundings)
        self.neighbours = NeighbourWatch(neighbours, gone=self.recoverer.gone)
        lookout = Lookout(self.worker_id, dead_after=dead_after, dead=self.recoverer.dead, watch=self.neighbours)
        cancelling, paused = self.executor.cancelling, self.executor.paused_queues
        self.pauses = Pauses(registry, pause=self._pause)
        concurrency = LaneConcurrency(own, worker=self.worker_id, lanes=lanes, executor=self.executor)
        self.control = ControlReader([
            Controls(own, [self.pauses, self.breakers, concurrency]),
            PausedQueuesDuty(own, queues=paused),
            LimitedTasks(own, registry, limit=self._limit),
            CancelledJobs(own, worker=self.worker_id, cancelling=cancelling),
            ScheduleNews(schedule_news),
        ])  # fmt: skip
        limits.read_again, paused.look_again = self.control.look, self.control.look_again
        self.beat.told, cancelling.look_again = self.control.look, self.control.look_again
        self.executor.stragglers = stragglers
        stragglers.occupy(lanes, self.executor.dispatch)
        claimer = Claimer(
            self.executor, lanes, limits, schema=config.schema, worker=self.worker_id, tasks=tasks,
            poll_interval=seconds(config.poll_interval), stir=self._stir, fleet=lambda: self.beat.fleet,
            lookout=lookout, lost=lost, pulse=pulse,
        )  # fmt: skip
        paused.resumed = self._resumed
        self.station = PipelineState(
            config.schema,
            self.worker_id,
            tasks,
            self.hot,
            self.executor,
            settler,
            locks,
            claimer,
            limits,
            Stalls(self.executor, lanes, limits),
        )
        self.station.claimed, self.hot.reconnected = self.metering.claimed, self.metering.reconnected
        self.executor.ended, self.executor.thirsty = self.station.ended, self.station.stir
        self.windows = make_windows(config, registry, lanes, self.station, turned=progressed)
        self.pumps = [PipelineLoop(self.station, line, turned=progressed) for line in range(LINES)]
        self.abandoned = False
        self.sentinel = Sentinel()
        self._attendants, self._pumping = ServiceGroup(ATTENDANTS), ServiceGroup(PUMPS)
        self.executor.worker_cancelled, self.executor.interrupted = self._was_cancelled, interrupted

    async def open(self) -> None:
        """Connect and write the worker's row; where that fails, close again what was opened.

        Raises:
            DatabaseConnectionError: the server cannot be reached.
            psycopg.Error: the server refused.
        """
        try:
            with stripping():
                await self.hot.open()
                await self.beat.first()
                await self.control.look_first()
                await self.counters.learn_clock()
        except BaseException:
            await self.close()
            raise

    async def start(self, *, background: bool) -> list[Service]:
        """Start to work; return the services that run now. In the background some of them look after other workers."""
        await self._attendants.start(self, self._config, background=background)
        try:
            await self._pumping.start(self, self._config, background=background)
        except BaseException:
            await self._attendants.stop()
            raise
        return self.services

    @property
    def services(self) -> list[Service]:
        """The services that were started."""
        return [*self._attendants.services, *self._pumping.services]

    async def resume(self) -> None:
        """Start the services again that a drain needs and that somebody else has cancelled."""
        await asyncio.gather(self._attendants.resume(), self._pumping.resume())

    async def drain(self, timeout: float, hurry: asyncio.Event) -> None:
        """Stop claiming, and let running jobs end, for at most `timeout` seconds, or until `hurry` is set.

        Handlers that cannot be ended still run then, and their jobs are held until the executor lets go of them.
        """
        self.station.claimer.close()
        draining = asyncio.ensure_future(self.executor.drain(timeout))
        hurrying = asyncio.ensure_future(hurry.wait())
        await asyncio.wait([draining, hurrying], return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not draining.done():
            draining.cancel()
            await asyncio.wait([draining])
            await self.executor.drain(0)
        else:
            draining.result()

    async def settle(self) -> None:
        """Write the ends of all attempts, and stop all services."""
        await self._pumping.start(self, self._config)  # the session may be given up before its pumps were started
        asyncio.get_running_loop().call_later(SETTLE_GRACE, self.hot.give_up.set)
        failed = await self._pumping.stop(SETTLE_GRACE + LAST_TURN_SECONDS)
        # The other services must not be left running, least of all the heartbeat. Their failures were logged already.
        await self._attendants.stop(LAST_TURN_SECONDS if self.hot.in_doubt else STOP_SECONDS)
        self.executor.close()
        if failed:
            raise failed[0]

    async def close(self) -> None:
        """Delete the row and close the connections, since the worker ended in good order."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.hot.close)
            if not self.hot.in_doubt:  # else the database does not answer; the row shows others that the worker is dead
                await self.beat.remove()

    async def abandon(self) -> None:
        """Cancel all that runs and let go of everything, since others have this session's jobs now.

        Its settlements match no rows, which is logged. Jobs that a claim has locked since then under its id go back.
        """
        self.station.claimer.close()
        await self.executor.drain(0)
        self.executor.let_go()  # their slots stay taken in the next session
        await self.settle()
        try:
            async with self.hot.alone() as wire:
                await self.station.locks.compare(wire)
        except (ConnectionLostError, psycopg.Error, TimeoutError, OSError):
            pass  # its row says that it was given up, and the worker that recovers it looks again
        await self.hot.close()
        self.abandoned = True

    def _was_cancelled(self) -> bool:
        """Whether somebody has cancelled this worker's tasks, other than the job in whose context this is called."""
        job = CURRENT.get()
        if job is not None and job is self.sentinel.cancelled_by:
            return False
        return any(service.was_cancelled for service in self.services)

    def _pause(self, tasks: frozenset[str]) -> None:
        """Let these tasks be paused, and no others: first in what is claimed, then among the jobs that are held."""
        self.station.claimer.leave_out("paused", tasks)
        self.station.limits.pause(tasks)
        self.executor.paused.replace(tasks)

    def _break(self, tasks: frozenset[str]) -> None:
        """Let the breakers of these tasks be open, and no others: what is claimed of them without a limit goes back."""
        self.station.claimer.leave_out("broken", tasks)
        self._broken = tasks
        self.executor.broken.add(tasks | self._limited)

    def _limit(self, limits: Mapping[str, EffectiveLimit]) -> dict[str, list[int]]:
        """Let these limits hold, by the names of tasks: limited tasks are looked for apart from all others.

        Returns:
            The ids of jobs that run already and that limits begin to count, by the limits' tasks.
        """
        self._limited = frozenset(limits)
        self.station.claimer.leave_out("limited", self._limited)
        self.executor.broken.add(self._broken | self._limited)
        return self.station.limits.apply(limits)

    def _stir(self) -> None:
        self.station.stir()

    def _resumed(self, queues: Sequence[int]) -> None:
        """Look for the jobs of queues that are not paused any more."""
        self.station.claimer.freed_queue(queues, resumed=True)
        self.station.claimer.wake()

    def _row(self, tasks: tuple[str, ...], limits: dict[str, Any], place: Place | None) -> WorkerRow:
        return WorkerRow(
            self.worker_id, socket.gethostname(), os.getpid(), PROTOCOL, described(self.lanes), list(tasks), _version(),
            self._config.dead_after, limits, None if place is None else place.to_json(), crontab=self._crontab,
            schedules=self._schedules,
        )  # fmt: skip


def seconds(span: timedelta) -> float:
    """A span in seconds."""
    return span.total_seconds()


@cache
def _version() -> str:
    """The version of backfill that this process runs; read only once, since the package may be replaced meanwhile."""
    return version("backfill")
