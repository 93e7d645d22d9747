"""What operators say through `client.schedules`, and what a worker that schedules makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from backfill import BackfillClient, EndHow, ScheduleState, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.cron import Schedule

from plugins.waiting import Eventually

NIGHTLY = "0 4 * * * report"
MINUTE = timedelta(minutes=1)


def declaring(crontab: str) -> TaskRegistry[None]:
    """A registry that declares a crontab and has both of its tasks."""
    tasks: TaskRegistry[None] = TaskRegistry(crontab=crontab)

    @tasks.task("report")
    async def report() -> None: ...

    @tasks.task("other")
    async def other() -> None: ...

    return tasks


async def test_an_item_that_no_code_declares(dsn: str, eventually: Eventually) -> None:
    """A worker adds and runs its jobs; the list shows the last run, and the last job with its end."""
    tasks = TaskRegistry()
    seen: list[tuple[object, datetime | None]] = []

    @tasks.task("report", keep=timedelta(hours=1))
    async def report(payload: dict[str, Any], ctx: WorkerContext) -> None:
        seen.append((payload.get("to"), ctx.scheduled_at))

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), tasks):
        await client.schedules.add(Schedule("report", every=timedelta(seconds=1), payload={"to": "boss"}))
        info = await eventually(
            lambda: client.schedules.get("report"), right=lambda info: info.last_end is not None, timeout=30
        )
        assert (info.last_job_state, info.last_end) == ("ended", EndHow.COMPLETED)
        assert info.last_job_run is not None
        assert info.last_job_run in [run for _, run in seen]
        assert (info.declared_by, info.schedulers) == (0, 1)
        await client.schedules.remove("report")
        assert await client.schedules.list() == []
    assert {to for to, _ in seen} == {"boss"}


async def test_a_triggered_job_is_run(dsn: str, eventually: Eventually) -> None:
    """Its handler is told the moment of the call as its run; the item's own runs stay as they were."""
    tasks = TaskRegistry(crontab=NIGHTLY)
    seen: list[datetime | None] = []

    @tasks.task("report")
    async def report(ctx: WorkerContext) -> None:
        seen.append(ctx.scheduled_at)

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), tasks):
        await eventually(lambda: client.schedules.get("report"), right=lambda info: info.known_since is not None)
        await client.schedules.trigger("report")
        await eventually(lambda: len(seen), right=lambda count: count == 1)
        info = await client.schedules.get("report")
    assert seen[0] is not None
    assert abs(seen[0] - datetime.now(UTC)) < MINUTE
    assert (info.last_run, info.last_job_id, info.state) == (None, None, ScheduleState.ACTIVE)


async def test_a_deployment(dsn: str, eventually: Eventually) -> None:
    """Between two workers an item rests, and keeps since when it is known; what was changed stays changed."""

    async def known(client: BackfillClient) -> datetime:
        info = await eventually(lambda: client.schedules.get("report"), right=lambda info: info.known_since is not None)
        assert info.known_since is not None
        return info.known_since

    async with BackfillClient(dsn) as client:
        async with WorkerRunner(WorkerConfig(dsn), declaring(f"{NIGHTLY}\n0 4 * * * other")):
            since = await known(client)
            await client.schedules.change("other", "0 6 * * * other")
        resting = await client.schedules.get("report")
        assert (resting.state, resting.known_since, resting.line) == (ScheduleState.RESTING, since, NIGHTLY)
        async with WorkerRunner(WorkerConfig(dsn), declaring("0 5 * * * report\n0 5 * * * other")):
            other, report = await client.schedules.list()
            assert (report.state, report.known_since, report.line) == (ScheduleState.ACTIVE, since, "0 5 * * * report")
            assert (other.line, other.code_line) == ("0 6 * * * other", "0 5 * * * other")
