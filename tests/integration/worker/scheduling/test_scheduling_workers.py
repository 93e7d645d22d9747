"""Workers that schedule, on a real database and by its time."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, LiteralString, NamedTuple

import pytest

from backfill import (
    BackfillClient,
    BeforeJobSchedule,
    ContinueWith,
    CronJobScheduled,
    CronTick,
    Fail,
    HookRegistry,
    JobScheduleResult,
    Queue,
    Skip,
    TaskRegistry,
    WorkerConfig,
    WorkerRunner,
)
from backfill.client.verbs import schedules as verbs
from backfill.cron import Schedule
from backfill.storage.connection import connect
from backfill.worker.scheduling import service as module

from hearing import Heard
from plugins.waiting import Eventually
from reading import rows, value

SECOND = timedelta(seconds=1)
KNOWN: LiteralString = "select identifier, known_since, last_execution from graphile_worker._private_known_crontabs"
JOBS: LiteralString = """
    select tasks.identifier as task, jobs.payload, jobs.priority, jobs.max_attempts, queues.queue_name as queue,
      jobs.run_at, jobs.key
    from graphile_worker._private_jobs as jobs
    join graphile_worker._private_tasks as tasks on tasks.id = jobs.task_id
    left join graphile_worker._private_job_queues as queues on queues.id = jobs.job_queue_id
    order by jobs.id"""


class Added(NamedTuple):
    """A job that was added."""

    task: str
    payload: dict[str, Any]
    priority: int
    max_attempts: int
    queue: str | None
    run_at: datetime
    key: str | None

    @property
    def run(self) -> datetime:
        """The run that it is for."""
        return datetime.fromisoformat(self.payload["_cron"]["ts"])


async def _jobs(dsn: str) -> list[Added]:
    return [Added(*row) for row in await rows(dsn, JOBS)]


def _registry(*schedules: Schedule, plugins: list[Any] | None = None) -> TaskRegistry[None]:
    """A registry whose only task is not the one that is scheduled, so that the jobs stay."""
    tasks = TaskRegistry(crontab=schedules, plugins=plugins or [])

    @tasks.task("other")
    async def other() -> None: ...

    return tasks


def _runs(found: list[Added], task: str = "beat") -> list[datetime]:
    return [job.run for job in found if job.task == task]


async def test_each_second_has_its_job(dsn: str, eventually: Eventually) -> None:
    """Three workers enqueue the runs of an item of each second: each run once, in time, and none is left out."""
    schedule = Schedule("beat", every=SECOND, payload={"to": "boss"})
    runners = [WorkerRunner(WorkerConfig(dsn), _registry(schedule)) for _ in range(3)]
    async with runners[0], runners[1], runners[2]:
        found = await eventually(lambda: _jobs(dsn), right=lambda found: len(found) >= 4)
    runs = _runs(found)
    assert [later - earlier for earlier, later in pairwise(runs)] == [SECOND] * (len(runs) - 1)
    assert all(job.payload["to"] == "boss" and not job.payload["_cron"]["backfilled"] for job in found)
    assert [job.run_at for job in found] == runs


async def test_a_handler_knows_its_run(dsn: str, eventually: Eventually) -> None:
    """From the crontab to the handler: the job of a run is claimed and run, and the handler sees which run it is."""
    tasks = TaskRegistry()
    seen = list[datetime | None]()

    @tasks.cron(every=SECOND)
    @tasks.task("beat")
    async def beat(_payload: dict[str, Any], ctx: Any) -> None:
        seen.append(ctx.scheduled_at)

    async with WorkerRunner(WorkerConfig(dsn), tasks):
        await eventually(lambda: len(seen), right=lambda count: count >= 2)
    assert seen[0] is not None
    assert seen[1] == seen[0] + SECOND


async def test_settings_come_from_the_item_then_from_the_task(dsn: str, eventually: Eventually) -> None:
    """What an item does not say, its task says, as for other jobs."""
    plain = Schedule("report", every=SECOND, identifier="plain")
    own = Schedule("report", every=SECOND, identifier="own", priority=3, queue="mine", max_attempts=2, job_key="k")
    tasks = TaskRegistry(crontab=[plain, own])

    @tasks.task("report", priority=-7, queue=Queue.serial("reports"), max_attempts=5)
    async def report() -> None: ...

    config = WorkerConfig(dsn, concurrency=1, forbidden_flags=["x"])
    async with BackfillClient(dsn) as client:
        await client.pause(task="report")
        async with WorkerRunner(config, tasks):
            found = await eventually(lambda: _jobs(dsn), right=lambda found: {"k", None} <= {job.key for job in found})
    by_key = {job.key: job for job in found}
    assert by_key[None][2:5] == (-7, 5, "reports")
    assert by_key["k"][2:5] == (3, 2, "mine")


class _Answering:
    """Answers in a given way for each item, and notes which runs it was asked about."""

    def __init__(self) -> None:
        self.asked: list[BeforeJobSchedule] = []

    def register(self, hooks: HookRegistry) -> None:
        hooks.on(BeforeJobSchedule, self.answer)

    async def answer(self, event: BeforeJobSchedule) -> JobScheduleResult | None:
        self.asked.append(event)
        match event.identifier:
            case "skipped":
                return Skip()
            case "failed":
                return Fail("not today")
            case "raised" if len([one for one in self.asked if one.identifier == "raised"]) == 1:
                raise ZeroDivisionError("secret")
            case "changed":
                return ContinueWith({"tenant": "acme"})
            case "listed":
                return ContinueWith([1])
        return None


async def test_interceptors_decide_about_jobs(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """They may refuse a run, which is done with, or change its payload; one that raises is asked again."""
    plugin, heard = _Answering(), Heard()
    names = ["skipped", "failed", "raised", "changed", "listed"]
    tasks = _registry(*(Schedule(name, every=SECOND) for name in names), plugins=[plugin, heard])
    async with WorkerRunner(WorkerConfig(dsn), tasks):
        await eventually(lambda: _jobs(dsn), right=lambda found: len(_runs(found, "raised")) >= 2)
        found = await _jobs(dsn)
        known = {identifier: last for identifier, _, last in await rows(dsn, KNOWN)}
    assert {job.task for job in found} == {"raised", "changed"}
    assert known["skipped"] is not None
    assert known["failed"] is not None
    assert known["listed"] is None
    changed = next(job for job in found if job.task == "changed")
    assert changed.payload["tenant"] == "acme"
    assert changed.payload["_cron"]["backfilled"] is False
    first, second = _runs(found, "raised")[:2]
    assert second - first == SECOND
    text = "\n".join(record.message for record in caplog.records if record.levelno >= logging.WARNING)
    assert "'failed': its run at" in text
    assert "not today" in text
    assert "secret" not in text
    ticks = [event for event in heard.events if isinstance(event, CronTick)]
    jobs = [event for event in heard.events if isinstance(event, CronJobScheduled)]
    assert {schedule.identifier for tick in ticks for schedule in tick.schedules} == set(names)
    assert max(event.scheduled_at for event in jobs) <= max(tick.timestamp for tick in ticks)
    assert {event.schedule.identifier for event in jobs} == {"raised", "changed"}
    assert all(event.spec.run_at is not None for event in plugin.asked)
    assert {event.schedule for event in plugin.asked} == set(names)


async def test_what_operators_say_is_heard_at_once(dsn: str, eventually: Eventually) -> None:
    """A change wakes the scheduler; after a pause that has returned no run is added."""
    tasks = _registry(Schedule("beat", "0 0 1 1 *"))
    async with WorkerRunner(WorkerConfig(dsn), tasks), BackfillClient(dsn) as client:
        await eventually(lambda: rows(dsn, KNOWN))
        await client._run(verbs.change_schedule("beat", "* * * * * beat ?every=1s", "ops"))
        await eventually(lambda: _jobs(dsn), timeout=10)
        await client._run(verbs.pause_schedule("beat", "ops"))
        before = await _jobs(dsn)
        await client._run(verbs.add_schedule("extra", "* * * * * extra ?every=1s", "ops"))
        await eventually(lambda: _jobs(dsn), right=lambda found: len(_runs(found, "extra")) >= 2, timeout=10)
        after = await _jobs(dsn)
        assert _runs(after) == _runs(before)
        await client._run(verbs.resume_schedule("beat", "ops"))
        resumed = datetime.now(UTC)
        found = await eventually(
            lambda: _jobs(dsn), right=lambda found: len(_runs(found)) > len(_runs(before)), timeout=10
        )
    assert all(run > resumed - SECOND for run in _runs(found)[len(_runs(before)) :])


async def test_a_worker_may_declare_without_scheduling(dsn: str, eventually: Eventually) -> None:
    """A worker without scheduling declares its items, and another one enqueues their runs."""
    silent = WorkerRunner(WorkerConfig(dsn, scheduling=False), _registry(Schedule("beat", every=SECOND)))
    async with silent:
        assert await value(dsn, "select count(*) from graphile_worker.backfill_workers where is_scheduling") == 0
        async with WorkerRunner(WorkerConfig(dsn), _registry()):
            await eventually(lambda: _jobs(dsn))


async def test_a_run_of_what_is_available_schedules_nothing(dsn: str) -> None:
    """`process_available_jobs` neither declares nor schedules."""
    await WorkerRunner(WorkerConfig(dsn), _registry(Schedule("beat", every=SECOND))).process_available_jobs()
    assert await rows(dsn, KNOWN) == []
    assert await rows(dsn, "select * from graphile_worker.backfill_crontabs") == []


async def _do(dsn: str, statement: LiteralString) -> None:
    async with await connect(dsn, application_name="test") as connection:
        await connection.execute(statement)


async def test_a_scheduler_survives_errors(dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the database says, the worker goes on; it warns once, and enqueues all runs afterwards."""
    caplog.set_level(logging.INFO, module.__name__)
    async with WorkerRunner(WorkerConfig(dsn), _registry(Schedule("beat", every=SECOND))):
        await eventually(lambda: _jobs(dsn))
        await _do(dsn, "alter table graphile_worker._private_known_crontabs rename to away")
        await eventually(lambda: caplog.messages, right=lambda said: "could not be scheduled" in "".join(said))
        before = datetime.now(UTC)
        await eventually(lambda: datetime.now(UTC), right=lambda now: now > before + 2 * SECOND)
        await _do(dsn, "alter table graphile_worker.away rename to _private_known_crontabs")
        found = await eventually(
            lambda: _jobs(dsn), right=lambda found: bool(found) and found[-1].run > before + 3 * SECOND
        )
    runs = _runs(found)
    assert [later - earlier for earlier, later in pairwise(runs)] == [SECOND] * (len(runs) - 1)
    assert not any(job.payload["_cron"]["backfilled"] for job in found)
    said = [record.levelno for record in caplog.records if record.name == module.__name__]
    assert said == [logging.WARNING, logging.INFO]
