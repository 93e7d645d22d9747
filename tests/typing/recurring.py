"""Recurring jobs: what declares them, and that the decorator keeps the types of tasks and handlers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_type

from backfill import Task, TaskRegistry, WorkerContext
from backfill.cron import Schedule


@dataclass
class Report:
    to: str


tasks = TaskRegistry(crontab="@daily other")
others = TaskRegistry(crontab=[Schedule("other", "@daily")])


@tasks.cron("@daily", tz="Europe/Berlin", payload=Report("boss"))
@tasks.cron(every=timedelta(hours=1), id="hourly")
@tasks.task("above")
async def above(payload: Report, ctx: WorkerContext[None]) -> int:
    assert_type(ctx.scheduled_at, datetime | None)
    assert_type(ctx.backfilled, bool)
    return 1


@tasks.task("below")
@tasks.cron("@daily")
def below(payload: Report) -> str:
    return payload.to


assert_type(above, Task[Report, int])
assert_type(below, Task[Report, str])
tasks.schedule("@daily x", Schedule("x", "@daily"), [Schedule("x", "@daily")])
assert_type(tasks.schedules, tuple[Schedule, ...])

TaskRegistry(crontab=5)  # error: type
tasks.schedule(5)  # error: Schedule
tasks.cron(5)  # error: "str
tasks.cron("@daily", tz=5)  # error: "str"
tasks.cron("@daily", every=60)  # error: "timedelta
tasks.cron("@daily", zone="UTC")  # error: zone
