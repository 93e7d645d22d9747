"""The runner: puts a worker's parts together, starts them in order, and stops them in order by a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self

from backfill.client import BackfillClient
from backfill.errors import BackfillError, ConfigurationError
from backfill.storage.workers import WorkerRow
from backfill.tasks import TaskRegistry
from backfill.worker.beat import Beat
from backfill.worker.claimer import Claimer
from backfill.worker.config import WorkerConfig
from backfill.worker.counters import CounterFolder, Counters
from backfill.worker.executor import Executor
from backfill.worker.hot import LINES, HotConnections
from backfill.worker.keeper import Keeper
from backfill.worker.lane import make_lanes, unmatched_tasks
from backfill.worker.listener import Listener
from backfill.worker.pump import Pump, Station
from backfill.worker.service import Service, finish
from backfill.worker.settler import Settler
from backfill.worker.sweeper import Sweeper
from backfill.worker.unknown import UnknownTasks

logger = logging.getLogger(__name__)

PROTOCOL: Final = 1
_SETTLE_GRACE: Final = timedelta(seconds=10)
_FLUSH_PATIENCE: Final = 1.0


class WorkerRunner:
    """A worker: claims the jobs of a registry's tasks and runs them, until it is stopped.

    Jobs run at least once. It survives a lost database: it keeps what it knows, connects again, and settles then. It
    touches no signals.

    Args:
        config: the deployment's facts.
        registry: the code's.

    Raises:
        ConfigurationError: the registry has no task.
    """

    def __init__(self, config: WorkerConfig, registry: TaskRegistry[Any]) -> None:
        if not len(registry):
            raise ConfigurationError("registry: it has no task; import the modules that register them first")
        self.config = config
        self.registry = registry
        self._parts: _Parts | None = None
        self._changing = asyncio.Lock()

    @property
    def worker_id(self) -> str | None:
        """The id of the running worker, made anew at each start; None when it does not run."""
        return None if self._parts is None else self._parts.worker_id

    async def run(self) -> None:
        """Work until cancelled; then drain up to the shutdown's deadline and let the cancellation go on.

        Raises:
            DatabaseConnectionError: the server cannot be reached at the start.
            SchemaError: the schema is missing or of another version.
            BackfillError: a part of the worker failed for good.
        """
        async with self:
            await self._failure()

    async def run_until_cancelled(self, stop: asyncio.Event) -> None:
        """Work until the event is set (or the call is cancelled); then drain up to the shutdown's deadline."""
        async with self:
            waiting = {asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._failure())}
            try:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    async def process_available_jobs(self) -> int:
        """Run what is due until nothing is left, and return how many jobs were run; retries that are due count too.

        For tests, cron and scripts. It neither listens nor polls, and jobs for later are left alone.

        Raises:
            ConfigurationError: this runner is running in the background.
        """
        if self._parts is not None:
            raise ConfigurationError("process_available_jobs: this runner is running already")
        parts = await self._start(background=False)
        try:
            return await parts.run_available()
        finally:
            await finish(self._stop())

    async def __aenter__(self) -> Self:
        """Start in the background."""
        await self._start(background=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain up to the shutdown's deadline; raises what a part failed with, if nothing else is on its way."""
        failed = None if self._parts is None else self._parts.failed
        await finish(self._stop())
        if failed is not None and failed.done() and not failed.cancelled() and error is None:
            failed.result()

    def hurry(self) -> None:
        """End a shutdown's waiting now: what still runs is interrupted and given back."""
        if self._parts is not None:
            self._parts.hurry.set()

    async def flush_counters(self) -> None:
        """Write what is counted now instead of within 5 seconds, for tests; what has ended is settled first.

        Under load it waits for settlements a second at most. Where the worker does not run, all is written already.

        Raises:
            DatabaseConnectionError: the database is away; the counts are kept.
        """
        if self._parts is not None:
            await self._parts.flush_counters()

    async def _failure(self) -> None:
        if self._parts is not None:
            await asyncio.shield(self._parts.failed)

    async def _start(self, *, background: bool) -> _Parts:
        async with self._changing:
            if self._parts is not None:
                raise ConfigurationError("this runner is running already")
            parts = _Parts(self.config, self.registry)
            try:
                await parts.open()
            except BaseException:
                await finish(parts.close())
                raise
            self._parts = parts
            if background:
                parts.start()
            return parts

    async def _stop(self) -> None:
        async with self._changing:
            parts, self._parts = self._parts, self._parts
            try:
                if parts is not None:
                    await parts.close()
            finally:
                self._parts = None


class _Parts:
    """One start of a worker: its id and the parts made for it."""

    def __init__(self, config: WorkerConfig, registry: TaskRegistry[Any]) -> None:
        self.worker_id = f"backfill_{secrets.token_hex(9)}"
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.hurry = asyncio.Event()
        self._config = config
        self._registry = registry
        self._stack = AsyncExitStack()
        self._services: list[Service] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._progress = asyncio.Event()

    async def open(self) -> None:
        """Connect, check the schema, enter the lifespan and write the worker's row: all that may fail at the start."""
        config, tasks, dsn = self._config, self._registry.identifiers(), self._config.required_dsn()
        client = self._client = BackfillClient(dsn, schema=config.schema, min_size=1, max_size=config.pool_size)
        await self._stack.enter_async_context(client)
        self._hot = HotConnections(
            dsn, schema=config.schema, worker=self.worker_id, held=lambda: list(self._executor.held)
        )
        await self._hot.open()
        self._stack.push_async_callback(self._hot.close)
        self._beat = Beat(dsn, schema=config.schema, row=self._row(tasks), interval=_seconds(config.heartbeat_interval))
        self._stack.push_async_callback(self._beat.remove)
        await self._beat.first()
        deps = None
        if self._registry.lifespan is not None:
            deps = await self._stack.enter_async_context(self._registry.lifespan(client))
        self._make_parts(client, deps, tasks)
        await self._counters.learn_clock()
        self._announce(tasks)

    def start(self) -> None:
        """Start what runs in the background."""
        self._services = [*self._pumps, self._beat, self._counters]
        self._services += [CounterFolder(self._client), UnknownTasks(self._client, worker=self.worker_id)]
        if self._config.listen:
            dsn = self._config.listen_dsn or self._config.required_dsn()
            claimer = self._station.claimer
            self._services.append(Listener(dsn, worker=self.worker_id, wake=claimer.wake, hear=claimer.hear))
        if self._config.dlq_processor_interval is not None:
            self._services.append(Sweeper(self._client, interval=_seconds(self._config.dlq_processor_interval)))
        self._services.append(self._keeper)
        for service in self._services:
            service.start()
        self._watchers = [asyncio.ensure_future(self._watch(service)) for service in self._services]

    async def run_available(self) -> int:
        """Claim and run until a look from the start finds nothing and nothing runs."""
        self._services = [*self._pumps, self._beat, self._counters]
        for service in self._services:
            service.start()
        self._watchers = [asyncio.ensure_future(self._watch(service)) for service in self._services]
        executor, claimer, settler = self._executor, self._station.claimer, self._station.settler
        while True:
            before = executor.claimed
            claimer.wake()
            while not (claimer.sated and len(executor.held) <= settler.refused):
                await self._progress_or_failure()
            if executor.claimed == before:
                await self._keeper.tend()
                return executor.started

    async def flush_counters(self) -> None:
        """Write what is counted, once what has ended is settled."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_PATIENCE):
                while not self._station.settler.idle:
                    await self._progress_or_failure()
        await self._counters.flush()

    async def close(self) -> None:
        """Stop claiming, let what runs end by the deadline, give the rest back, settle, and close everything."""
        for watcher in self._watchers:
            watcher.cancel()
        async with self._stack:
            if not hasattr(self, "_station"):
                return
            self._station.claimer.close()
            await self._drain()
            for pump in self._pumps:
                pump.start()
            asyncio.get_running_loop().call_later(_seconds(_SETTLE_GRACE), self._hot.give_up.set)
            for pump in reversed(self._pumps):
                await pump.stop(2 * _seconds(_SETTLE_GRACE))
            for service in self._services:
                if service not in self._pumps:
                    await _quietly(service)
            self._executor.close()

    def _make_parts(self, client: BackfillClient, deps: Any, tasks: tuple[str, ...]) -> None:
        config = self._config
        self._executor = Executor(
            self._registry, worker_id=self.worker_id, client=client, deps=deps, retry=config.retry
        )
        keeps = {task.keep for task in self._registry if task.keep is not None}
        self._keeper = Keeper(client, keeps)
        self._counters = Counters(client, worker=self.worker_id)
        settler = Settler(
            self._executor, schema=config.schema, worker=self.worker_id, settled=self._progress.set,
            count=self._counters.count,
        )  # fmt: skip
        lanes = make_lanes(
            tuple(config.queues), schema=config.schema, tasks=tasks, forbidden_flags=tuple(config.forbidden_flags)
        )
        claimer = Claimer(
            self._executor, lanes, schema=config.schema, worker=self.worker_id, tasks=tasks,
            poll_interval=_seconds(config.poll_interval), stir=self._stir, fleet=lambda: self._beat.fleet,
        )  # fmt: skip
        self._station = Station(config.schema, self.worker_id, tasks, self._hot, self._executor, settler, claimer)
        self._executor.ended, self._executor.thirsty = self._station.ended, self._station.stir
        self._pumps = [Pump(self._station, line, turned=self._progress.set) for line in range(LINES)]

    async def _progress_or_failure(self) -> None:
        """Wait for a turn; raises what a part failed with."""
        progress = asyncio.ensure_future(self._progress.wait())
        try:
            waited: list[asyncio.Future[Any]] = [progress, self.failed]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            progress.cancel()
        self._progress.clear()
        if self.failed.done():
            self.failed.result()

    async def _drain(self) -> None:
        draining = asyncio.ensure_future(self._executor.drain(_seconds(self._config.shutdown_timeout)))
        hurrying = asyncio.ensure_future(self.hurry.wait())
        await asyncio.wait([draining, hurrying], return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not draining.done():
            draining.cancel()
            await asyncio.wait([draining])
            await self._executor.drain(0)
        else:
            draining.result()

    async def _watch(self, service: Service) -> None:
        task = service.task
        if task is None:
            return
        await asyncio.wait([task])
        if self.failed.done():
            return
        error = None if task.cancelled() else task.exception()
        logger.critical("the worker's %s ended: %s", service.name, error, exc_info=error)
        self.failed.set_exception(error or BackfillError(f"the worker's {service.name} ended by itself"))
        self.failed.exception()  # looked at here, so that a runner nobody waits for does not warn of it

    def _stir(self) -> None:
        self._station.stir()

    def _row(self, tasks: tuple[str, ...]) -> WorkerRow:
        lanes = [{"name": lane.name, "concurrency": lane.concurrency} for lane in self._config.queues]
        return WorkerRow(
            self.worker_id, socket.gethostname(), os.getpid(), PROTOCOL, lanes, list(tasks), version("backfill")
        )

    def _announce(self, tasks: tuple[str, ...]) -> None:
        lanes = tuple(self._config.queues)
        for name in unmatched_tasks(lanes, tasks):
            logger.warning("task %r matches no lane: its jobs wait for another worker", name)
        rest = 4 if self._config.listen else 3
        most = rest + LINES - 2 + self._config.pool_size
        logger.info(
            "worker %s starts: %d tasks, lanes %s, %d connections at rest and at most %d",
            self.worker_id, len(tasks), ", ".join(f"{lane.name}({lane.concurrency})" for lane in lanes),
            rest, most, extra={"worker_id": self.worker_id},
        )  # fmt: skip


def _seconds(span: timedelta) -> float:
    return span.total_seconds()


async def _quietly(service: Service) -> None:
    """Stop a service whose failure has been told already."""
    with contextlib.suppress(Exception):
        await service.stop(5.0)
