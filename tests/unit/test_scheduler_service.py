"""When a scheduler looks, and how it is stopped: the service alone, with looks that the test makes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from backfill import (
    BeforeJobSchedule,
    CronJobScheduled,
    CronTick,
    Fail,
    HookRegistry,
    JobScheduleResult,
    LoggingPlugin,
    Queue,
    TaskRegistry,
)
from backfill.cron import Schedule, due_at
from backfill.cron.due import DueRun
from backfill.errors import DatabaseConnectionError
from backfill.hooks import composed
from backfill.worker.scheduling import jobs
from backfill.worker.scheduling.jobs import JobMaker
from backfill.worker.scheduling.news import ScheduleNews
from backfill.worker.scheduling.scheduler import Scheduler
from backfill.worker.scheduling.service import SchedulerService

from plugins.waiting import Eventually
from schedule_tables import START


class Looks(Scheduler):
    """Looks that do what the test says."""

    def __init__(self) -> None:
        self.count = 0
        self.wait = 3_600.0
        self.errors: list[BaseException] = []
        self.hangs = False

    async def look(self) -> float:
        """Count, fail, hang, or say when to look again."""
        self.count += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.errors:
            raise self.errors.pop(0)
        return self.wait


@pytest.fixture
async def looks() -> Looks:
    """The looks."""
    return Looks()


@pytest.fixture
def news() -> asyncio.Event:
    """What wakes the service."""
    return asyncio.Event()


@pytest.fixture
async def service(looks: Looks, news: asyncio.Event) -> AsyncIterator[SchedulerService]:
    """The service, which the test starts."""
    one = SchedulerService(looks, news)
    yield one
    await one.stop(5)


async def test_it_looks_at_its_start_and_when_the_look_said(
    service: SchedulerService, looks: Looks, eventually: Eventually
) -> None:
    """The first look comes at once, and each further one when the last one said."""
    looks.wait = 0.01
    service.start()
    await eventually(lambda: looks.count >= 5)


async def test_news_wake_it(
    service: SchedulerService, looks: Looks, news: asyncio.Event, eventually: Eventually
) -> None:
    """It looks when operators may have said something, and only some times a second, however often it hears so."""
    duty = ScheduleNews(news)
    service.start()
    await eventually(lambda: looks.count == 1)
    await duty.look(news=True)
    await eventually(lambda: looks.count == 2)
    await duty.look(news=False)
    assert not news.is_set()
    for _ in range(1_000):
        news.set()
        await asyncio.sleep(0)
    assert looks.count < 20


async def test_errors_are_tried_again_and_told_once(
    service: SchedulerService, looks: Looks, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the database says, it goes on, with one warning for an outage, and one line when it is over."""
    caplog.set_level(logging.INFO)
    looks.errors = [DatabaseConnectionError("away"), psycopg.OperationalError("gone"), TimeoutError(), OSError("net")]
    service.start()
    await eventually(lambda: looks.count == 5)
    await eventually(lambda: len(caplog.records) >= 2)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
    assert "away" in caplog.messages[0]


async def test_a_stop_ends_a_look_that_hangs(service: SchedulerService, looks: Looks, eventually: Eventually) -> None:
    """A look that waits for the database does not hold up a stop, nor does the pause after an error."""
    looks.hangs = True
    service.start()
    await eventually(lambda: looks.count == 1)
    async with asyncio.timeout(5):
        await service.stop(5)
    assert service.task is not None
    assert service.task.done()


async def test_a_fault_of_the_code_is_not_hidden(looks: Looks, news: asyncio.Event) -> None:
    """An error that is none of the database's ends the service, which its owner then tells."""
    service = SchedulerService(looks, news)
    looks.errors = [ZeroDivisionError("a fault")]
    service.start()
    assert service.task is not None
    await asyncio.wait([service.task])
    with pytest.raises(ZeroDivisionError):
        await service.stop(5)


def _tasks() -> TaskRegistry[None]:
    tasks = TaskRegistry()

    @tasks.task("mail", queue=_queue_of)
    async def mail(payload: dict[str, Any]) -> None: ...

    @tasks.task("digest", key_of=lambda payload: f"digest:{payload['user']}", unique_for=timedelta(days=1))
    async def digest(payload: dict[str, Any]) -> None: ...

    return tasks


def _queue_of(payload: dict[str, Any]) -> Queue:
    return Queue.serial_for("user", payload["user"])


async def test_a_queue_may_depend_on_the_payload(caplog: pytest.LogCaptureFixture) -> None:
    """A task that chooses its queue by the payload does so for scheduled jobs too; if it cannot, there is no queue."""
    maker = JobMaker(_tasks(), HookRegistry())
    made = await maker.make(Schedule("mail", "@hourly", payload={"user": 7}), DueRun(START), 0)
    assert made.queue == "user:7"
    assert not caplog.records
    made = await maker.make(Schedule("mail", "@hourly"), DueRun(START), 0)
    assert made.queue is None
    assert "'mail'" in caplog.text


async def test_a_key_may_depend_on_the_payload(caplog: pytest.LogCaptureFixture) -> None:
    """A task finds the key for scheduled jobs too, unless the item has one; if it cannot, there is no key."""
    maker = JobMaker(_tasks(), HookRegistry())
    made = await maker.make(Schedule("digest", "@hourly", payload={"user": 7}), DueRun(START), 0)
    assert made.job_key == "digest:7"
    made = await maker.make(Schedule("digest", "@hourly", job_key="own"), DueRun(START), 0)
    assert (made.job_key, caplog.records) == ("own", [])
    made = await maker.make(Schedule("digest", "@hourly"), DueRun(START), 0)
    assert made.job_key is None
    assert "'digest'" in caplog.text


async def test_jitter_puts_a_job_off() -> None:
    """The job may begin later than its run, by what all schedulers compute alike."""
    schedule = Schedule("a", "@hourly", jitter=timedelta(minutes=10))
    made = await JobMaker(TaskRegistry(), HookRegistry()).make(schedule, DueRun(START, backfilled=True), 4)
    assert made.run_at == due_at(schedule, START) > START
    assert (made.run, made.revision, made.max_attempts, made.priority) == (START, 4, 8, 0)
    assert made.payload == b'{"_cron":{"ts":"2026-01-01T12:00:00.000Z","backfilled":true}}'


class _Slow:
    def register(self, hooks: HookRegistry) -> None:
        hooks.on(BeforeJobSchedule, self.answer)

    async def answer(self, _event: BeforeJobSchedule) -> JobScheduleResult:
        await asyncio.Event().wait()
        return Fail("never")


async def test_a_slow_interceptor_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interceptor that does not answer counts as one that raised, so that other runs go on."""
    monkeypatch.setattr(jobs, "ANSWER_SECONDS", 0.01)
    with pytest.raises(TimeoutError):
        await JobMaker(TaskRegistry(), composed([_Slow()])).make(Schedule("a", "@hourly"), DueRun(START), 0)


async def test_the_log_tells_of_runs(caplog: pytest.LogCaptureFixture) -> None:
    """LoggingPlugin has a line for each event of recurring jobs, with fields, and without payloads."""
    caplog.set_level(logging.DEBUG)
    hooks, schedule = composed([LoggingPlugin()]), Schedule("a", "@hourly", identifier="b", payload={"key": "secret"})
    for event in (CronTick(START, (schedule,), "w"), CronJobScheduled(schedule, START, 7, "w")):
        for callback in hooks.callbacks(type(event)):
            callback(event)  # type: ignore[arg-type]
    tick, added = caplog.records
    assert (tick.levelno, tick.message) == (logging.DEBUG, "worker w finds runs due of 1 recurring jobs")
    assert (added.levelno, added.message) == (
        logging.INFO,
        "worker w has enqueued job 7 of 'b' for 2026-01-01 12:00:00 UTC",
    )
    assert [added.__dict__[name] for name in ("event", "schedule", "job_id", "task")] == [
        "CronJobScheduled",
        "b",
        7,
        "a",
    ]
    assert "secret" not in str(added.__dict__)
