"""What a worker says of itself in the log when it starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from backfill.client.lent import SERVICES_MOST
from backfill.worker.config import WorkerConfig
from backfill.worker.lanes.lane import Lane, unmatched_tasks
from backfill.worker.pipeline.hot import LINES

logger = logging.getLogger(__name__)


def announce(config: WorkerConfig, tasks: tuple[str, ...], worker_id: str, lanes: Sequence[Lane]) -> None:
    """Log that a worker starts, which connections it will have, and which tasks no lane of it takes.

    Args:
        config: the worker's settings.
        tasks: the names of the tasks that it knows.
        worker_id: its id.
        lanes: its lanes, with the concurrency that each has now.
    """
    for name in unmatched_tasks(config.lanes, tasks):
        logger.warning("task %r matches no lane: its jobs wait for another worker", name)
    rest = 4 if config.listen else 3  # the first hot line, the heartbeat's, the services', and the listener's
    # To these come the other hot lines, the services' second connection, the handlers', and the one that hears of
    # results.
    most = rest + (LINES - 1) + (SERVICES_MOST - 1) + config.pool_size + 1
    logger.info(
        "worker %s starts: %d tasks, lanes %s, %d connections at rest and at most %d (and what bulk calls of "
        "handlers add)",
        worker_id, len(tasks), ", ".join(f"{lane.config.name}({lane.concurrency})" for lane in lanes),
        rest, most, extra={"worker_id": worker_id},
    )  # fmt: skip
