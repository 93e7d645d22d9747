"""What a worker says of itself in the log when it starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backfill.client.lent import SERVICES_MOST
from backfill.errors import PayloadDecodeError
from backfill.express import express_in
from backfill.payloads import encode
from backfill.payloads.scheduled import Run, with_run
from backfill.storage.windows import WINDOW_LINES
from backfill.tasks import TaskRegistry
from backfill.worker.config import WorkerConfig
from backfill.worker.lanes.lane import Lane
from backfill.worker.lanes.making import unmatched_tasks
from backfill.worker.pipeline.hot import LINES

if TYPE_CHECKING:
    from backfill.cron.schedule import Schedule
    from backfill.task import Task

logger = logging.getLogger(__name__)


def announce(
    config: WorkerConfig, registry: TaskRegistry[Any], worker_id: str, lanes: Sequence[Lane], *, declares: bool
) -> None:
    """Log that a worker starts, which connections it will have, and which tasks no lane of it takes.

    Args:
        config: the worker's settings.
        registry: the tasks that it knows, and their schedules.
        worker_id: its id.
        lanes: its lanes, with the concurrency that each has now.
        declares: whether it declares the schedules to the fleet.
    """
    tasks = registry.identifiers()
    for name in unmatched_tasks(config.lanes, tasks):
        logger.warning("task %r matches no lane: its jobs wait for another worker", name)
    rest = 4 if config.listen else 3  # the first hot line, the heartbeat's, the services', and the listener's
    express = WINDOW_LINES if config.express is not False and express_in(registry) else 0
    # To these come the other hot lines, the services' second connection, the handlers', the one that hears of results,
    # and the express lines.
    most = rest + (LINES - 1) + (SERVICES_MOST - 1) + config.pool_size + 1 + express
    logger.info(
        "worker %s starts: %d tasks, lanes %s, %d connections at rest and at most %d (and what bulk calls of "
        "handlers add)",
        worker_id, len(tasks), ", ".join(f"{lane.config.name}({lane.concurrency})" for lane in lanes),
        rest, most, extra={"worker_id": worker_id},
    )  # fmt: skip
    if declares:
        _warn_of_schedules(registry)


def _warn_of_schedules(registry: TaskRegistry[Any]) -> None:
    """Warn of schedules whose jobs this worker cannot run: it does not know the task, or the payload does not fit.

    A payload that no handler would ever see is told too.
    """
    for schedule in registry.schedules:
        task = registry.get(schedule.task)
        if task is None:
            logger.warning(
                "schedule %r: its task %r is none of this worker's, so its jobs wait for a worker that knows it",
                schedule.identifier, schedule.task,
            )  # fmt: skip
        elif task.shape.payload is None:
            if schedule.payload:
                logger.warning(
                    "schedule %r: it has a payload, but the handler of task %r takes none; give the handler a "
                    "parameter for the payload, or leave the payload out",
                    schedule.identifier, schedule.task,
                )  # fmt: skip
        elif (reason := _misfit(task, schedule)) is not None:
            logger.warning(
                "schedule %r: its payload does not fit the handler of task %r, so its jobs will fail: %s",
                schedule.identifier, schedule.task, reason,
            )  # fmt: skip


def _misfit(task: Task[Any, Any], schedule: Schedule) -> str | None:
    """Why the handler of a task cannot read the payload of a schedule; None if it can.

    The payload's class may have code of its own, which may raise anything: this is told too, and the worker starts.
    """
    try:
        task.decode(with_run(encode(schedule.payload), Run(datetime.now(UTC), backfilled=False)))
    except PayloadDecodeError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - see above; its text may hold values of the payload
        return f"its class raises {type(error).__qualname__}"
    return None
