"""A worker process with recurring items, whose jobs do nothing: says on its output which worker it is.

Called as `recurring.py DSN CONCURRENCY DEAD_AFTER CRONTAB`; ends when its input is closed or on SIGTERM.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import uvloop
from stopping import told_to_stop

from backfill import QueueConfig, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.cron import parse_crontab

_dsn, _concurrency, _dead_after = sys.argv[1], int(sys.argv[2]), timedelta(seconds=float(sys.argv[3]))
_schedules = parse_crontab(sys.argv[4])

tasks: TaskRegistry[None] = TaskRegistry(crontab=_schedules)


async def _nothing(_: dict[str, Any], ctx: WorkerContext[None]) -> None:
    """A job of a recurring item knows its run."""
    assert ctx.scheduled_at is not None


for _name in {schedule.task for schedule in _schedules}:
    tasks.task(_name)(_nothing)


async def main() -> None:
    """Work until told to stop."""
    stop = told_to_stop()
    config = WorkerConfig(
        _dsn,
        queues=[QueueConfig.default_queue(_concurrency)],
        dead_after=_dead_after,
        heartbeat_interval=_dead_after / 4,
    )
    async with WorkerRunner(config, tasks) as runner:
        print(runner.worker_id, flush=True)
        await stop.wait()


uvloop.run(main())
