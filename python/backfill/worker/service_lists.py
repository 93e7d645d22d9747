"""Lists the services of a worker. Each list is one group, which starts in its order and stops in reverse.

A worker starts its probes first, then the attendants and the pumps of its session, then its upkeep. It stops these
groups in the reverse order, except that the upkeep stops after the pumps have settled the attempts that ended.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from backfill.metrics.books import process_metrics
from backfill.metrics.prometheus import page_of
from backfill.worker.address import parse_address
from backfill.worker.execution.watchdog import Watchdog
from backfill.worker.pipeline.listener import Listener
from backfill.worker.scheduling.jobs import JobMaker
from backfill.worker.scheduling.scheduler import Scheduler
from backfill.worker.scheduling.service import SchedulerService
from backfill.worker.services import ServiceFactory
from backfill.worker.upkeep.cleaner import Cleaner
from backfill.worker.upkeep.counters import CounterFolder
from backfill.worker.upkeep.gauges import Gauges
from backfill.worker.upkeep.limits import LimitKeeper
from backfill.worker.upkeep.progress import ProgressWriter
from backfill.worker.upkeep.sweeper import Sweeper
from backfill.worker.upkeep.unknown import UnknownTasks

if TYPE_CHECKING:
    from backfill.worker.process import WorkerProcess
    from backfill.worker.service import Service
    from backfill.worker.session import WorkerSession


def _http_probe(process: WorkerProcess) -> Service:
    from backfill.worker.liveness.probe import HttpProbe  # noqa: PLC0415 (an HTTP server, which few workers need)

    assert process.config.health_address is not None  # noqa: S101 - the factory applies only then
    books = process_metrics()
    page = page_of(books.snapshot)
    if page is not None:
        books.want()
    address = parse_address("WorkerConfig.health_address", process.config.health_address)
    return HttpProbe(address, process.health, page)


def _file_probe(process: WorkerProcess) -> Service:
    from backfill.worker.liveness.probe import FileProbe  # noqa: PLC0415 (in the same module as the server)

    assert process.config.health_file is not None  # noqa: S101 - the factory applies only then
    return FileProbe(Path(process.config.health_file), process.health)


def _listener(process: WorkerProcess) -> Service:
    return Listener(
        process.config.listen_dsn or process.config.required_dsn(),
        schema=process.config.schema,
        worker=process.one.worker_id,
        wake=process.wake,
        hear=process.hear,
        claimed=lambda: process.one.executor.claimed,
        control=process.look_at_control,
        reconnected=lambda: process.one.metering.reconnected(),  # noqa: PLW0108 (another session may work by then)
    )


def _sweeper(process: WorkerProcess) -> Service:
    assert process.config.dlq_processor_interval is not None  # noqa: S101 - the factory applies only then
    return Sweeper(
        process.own,
        interval=process.config.dlq_processor_interval.total_seconds(),
        buried=lambda: process.one.breakers.suspect(),  # noqa: PLW0108 - another session may work by then
    )


def _cleaner(process: WorkerProcess) -> Service:
    config = process.config
    assert config.stale_lock_cleanup_interval is not None  # noqa: S101 - the factory applies only then
    return Cleaner(
        process.own,
        config=config,
        interval=config.stale_lock_cleanup_interval.total_seconds(),
        worker=lambda: process.one.worker_id,
    )


def _watchdog(process: WorkerProcess) -> Service:
    assert process.config.blocked_after is not None  # noqa: S101 - the factory applies only then
    return Watchdog(
        limit=process.config.blocked_after.total_seconds(),
        under_way=process.under_way,
        found=lambda running: process.one.station.holds_loop(running),  # noqa: PLW0108 - the session may change
    )


def _scheduler(process: WorkerProcess) -> Service:

    scheduler = Scheduler(
        process.own,
        JobMaker(process.registry, process.hooks.registry),
        worker=lambda: process.one.worker_id,
        schedules=process.registry.schedules,
        tell=process.hooks.observers.tell,
    )
    return SchedulerService(scheduler, process.schedule_news)


def _gauges(process: WorkerProcess) -> Service:
    return Gauges(
        process.own, worker=lambda: process.one.worker_id, lanes=lambda: process.one.lanes, pulse=process.pulse
    )


def _progress(session: WorkerSession) -> Service:
    return ProgressWriter(session.own, worker=session.worker_id, book=session.executor.progress)


def _has_windows(session: WorkerSession) -> bool:
    return bool(session.windows)


HTTP_PROBE: Final = "health probe"
PROBES: Final[tuple[ServiceFactory[WorkerProcess], ...]] = (
    ServiceFactory(HTTP_PROBE, _http_probe, lambda config: config.health_address is not None, background=True),
    ServiceFactory("health file", _file_probe, lambda config: config.health_file is not None, background=True),
)
"""The probes, which answer programs that watch over the worker; they start before all other parts, and end last."""

ATTENDANTS: Final[tuple[ServiceFactory[WorkerSession], ...]] = (
    ServiceFactory("beat", lambda session: session.beat, drains=True),
    ServiceFactory("counters", lambda session: session.counters, drains=True),
    ServiceFactory("breakers", lambda session: session.breakers, drains=True),
    ServiceFactory("progress", _progress, drains=True),
    ServiceFactory("control reader", lambda session: session.control),
    ServiceFactory("sentinel", lambda session: session.sentinel),
    ServiceFactory("recoverer", lambda session: session.recoverer, background=True),
    ServiceFactory("neighbour watch", lambda session: session.neighbours, background=True),
    ServiceFactory(
        "unknown tasks", lambda session: UnknownTasks(session.own, worker=session.worker_id), background=True
    ),
)
"""The services of a session beside its pumps: they have its worker id, and go on until the pumps have settled all."""

PUMPS: Final[tuple[ServiceFactory[WorkerSession], ...]] = (
    ServiceFactory("pump 1", lambda session: session.pumps[0], drains=True),
    ServiceFactory("pump 2", lambda session: session.pumps[1], drains=True),
    ServiceFactory("express line 1", lambda session: session.windows[0], wanted=_has_windows, drains=True),
    ServiceFactory("express line 2", lambda session: session.windows[1], wanted=_has_windows, drains=True),
)
"""The pumps, which claim and settle, and the loops of the express lines.

Of a session's services they start last and stop first.
"""

UPKEEP: Final[tuple[ServiceFactory[WorkerProcess], ...]] = (
    ServiceFactory("folder", lambda process: CounterFolder(process.own), background=True),
    ServiceFactory("keeper", lambda process: process.keeper, background=True),
    ServiceFactory("held queues", lambda process: process.held_queues, background=True),
    ServiceFactory("left attempts", lambda process: process.left_attempts, background=True),
    ServiceFactory(
        "limits", lambda process: LimitKeeper(process.own, worker=lambda: process.one.worker_id), background=True
    ),
    ServiceFactory("scheduler", _scheduler, lambda config: config.scheduling, background=True),
    ServiceFactory("listener", _listener, lambda config: config.listen, background=True),
    ServiceFactory("sweeper", _sweeper, lambda config: config.dlq_processor_interval is not None, background=True),
    ServiceFactory("cleaner", _cleaner, lambda config: config.stale_lock_cleanup_interval is not None, background=True),
    ServiceFactory("gauges", _gauges, background=True),
    ServiceFactory("watchdog", _watchdog, lambda config: config.blocked_after is not None, background=True),
)
"""The services that look after the queue and the process, whatever the worker's id is now."""
