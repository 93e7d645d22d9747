"""The events that observers hear of, with real jobs: which come, in which order, and with what in them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest
from psycopg.conninfo import make_conninfo

from backfill import (
    BackfillClient,
    Discard,
    FailReason,
    HookRegistry,
    InterruptReason,
    JobComplete,
    JobFail,
    JobFetch,
    JobInterrupted,
    JobPermanentlyFail,
    JobSnoozed,
    LeaseLost,
    LoggingPlugin,
    NewJob,
    ShutdownReason,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerInit,
    WorkerRecovered,
    WorkerRunner,
    WorkerShutdown,
    WorkerStart,
)
from backfill.jobs import JobSpec

from hearing import Heard
from plugins.waiting import Eventually
from reading import rows, value

SECOND = timedelta(seconds=1)
JOBS: LiteralString = "select count(*) from graphile_worker._private_jobs"
DUE: LiteralString = "update graphile_worker._private_jobs set run_at = now() - interval '1 second'"
GIVE_UP: LiteralString = "update graphile_worker.backfill_workers set given_up_at = now()"
DEAD: LiteralString = """
insert into graphile_worker.backfill_workers (id, host, pid, protocol, version, heartbeat_at, given_up_at)
values ('backfill_dead', 'elsewhere', 7, 3, '0', now() - interval '1 hour', now())
"""


def _tasks() -> tuple[TaskRegistry[None], asyncio.Event]:
    """A registry whose one task ends as its payload says; `hold` waits for the event."""
    tasks: TaskRegistry[None] = TaskRegistry()
    release = asyncio.Event()

    @tasks.task("t")
    async def handler(payload: str) -> str:
        if payload == "fail":
            raise ValueError("no")
        if payload == "snooze":
            raise Snooze(timedelta(hours=1))
        if payload == "discard":
            raise Discard("not wanted")
        if payload == "hold":
            await release.wait()
        return payload

    return tasks, release


async def _add(dsn: str, *payloads: str, **spec: Any) -> None:
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk([NewJob("t", payload, JobSpec(**spec)) for payload in payloads])


async def test_the_events_of_a_job_come_in_order(dsn: str) -> None:
    """From the worker's start to its end, also in a runner that runs what is due and ends."""
    tasks, _ = _tasks()
    heard = Heard()
    await _add(dsn, "well")
    assert await WorkerRunner(WorkerConfig(dsn), tasks, plugins=[heard]).process_available_jobs() == 1
    assert heard.names == ["WorkerInit", "WorkerStart", "JobFetch", "JobStart", "JobComplete", "WorkerShutdown"]
    worker = heard.only(WorkerStart).worker_id
    assert {event.worker_id for event in heard.events if hasattr(event, "worker_id")} == {worker}
    assert heard.only(JobComplete).duration > timedelta(0)
    assert (heard.only(JobComplete).job.id, heard.only(JobFetch).job.payload) == (heard.only(JobFetch).job.id, "well")
    assert heard.only(WorkerShutdown).reason is ShutdownReason.GRACEFUL


async def test_each_way_to_end_has_its_event(dsn: str) -> None:
    """One event for each attempt that had begun, once its end is written; the last failure has one of its own."""
    tasks, _ = _tasks()
    heard = Heard()
    await _add(dsn, "well", "snooze", "discard")
    await _add(dsn, "fail", max_attempts=2)
    runner = WorkerRunner(WorkerConfig(dsn), tasks, plugins=[heard])
    await runner.process_available_jobs()
    ends = {payload: heard.of(payload)[2:] for payload in ("well", "snooze", "discard", "fail")}
    assert ends == {
        "well": ["JobComplete"], "snooze": ["JobSnoozed"], "discard": ["JobDiscarded"], "fail": ["JobFail"],
    }  # fmt: skip
    failed = heard.only(JobFail)
    assert (failed.will_retry, failed.reason, failed.error[:14]) == (True, FailReason.ERROR, "ValueError: no")
    assert heard.only(JobSnoozed).delay == timedelta(hours=1)
    heard.events.clear()
    await rows(dsn, DUE)
    await runner.process_available_jobs()
    assert heard.of("fail") == ["JobFetch", "JobStart", "JobPermanentlyFail"]
    assert heard.only(JobPermanentlyFail).error[:14] == "ValueError: no"


async def test_time_limits_say_so(dsn: str) -> None:
    """A timeout and a deadline are the reasons of a failure; a deadline that is over means that nothing starts."""
    tasks, _ = _tasks()
    heard = Heard()
    await _add(dsn, "hold", timeout=timedelta(milliseconds=50))
    async with BackfillClient(dsn) as client:
        await client.enqueue("t", "late", deadline=datetime.now(UTC) + timedelta(milliseconds=1))
    await WorkerRunner(WorkerConfig(dsn), tasks, plugins=[heard]).process_available_jobs()
    assert heard.of("hold") == ["JobFetch", "JobStart", "JobFail"]
    assert heard.only(JobFail).reason is FailReason.TIMEOUT
    assert heard.of("late") == ["JobFetch", "JobPermanentlyFail"]
    assert heard.only(JobPermanentlyFail).reason is FailReason.DEADLINE


async def test_a_stop_interrupts(dsn: str, eventually: Eventually) -> None:
    """An attempt that runs past the shutdown's deadline is told as interrupted, before the worker's last event."""
    tasks, _ = _tasks()
    heard = Heard()
    await _add(dsn, "hold")
    config = WorkerConfig(dsn, shutdown_timeout=timedelta(milliseconds=100))
    async with WorkerRunner(config, tasks, plugins=[heard]):
        await eventually(lambda: "JobStart" in heard.names)
    assert heard.names[-2:] == ["JobInterrupted", "WorkerShutdown"]
    assert heard.only(JobInterrupted).reason is InterruptReason.SHUTDOWN
    assert await value(dsn, JOBS) == 1


async def test_a_lost_lease_is_told(dsn: str, eventually: Eventually) -> None:
    """The worker that was given up tells so, its attempt counts for nothing, and it starts under a new id."""
    tasks, release = _tasks()
    heard = Heard()
    await _add(dsn, "hold")
    config = WorkerConfig(dsn, dead_after=4 * SECOND, heartbeat_interval=SECOND / 5)
    async with WorkerRunner(config, tasks, plugins=[heard]):
        await eventually(lambda: "JobStart" in heard.names)
        await rows(dsn, GIVE_UP)
        # Another worker has the job for now, so that this one does not claim it again before it knows of the loss.
        await rows(dsn, "update graphile_worker._private_jobs set locked_by = 'backfill_other', locked_at = now()")
        await eventually(lambda: heard.names.count("WorkerStart") == 2)
        await rows(dsn, "update graphile_worker._private_jobs set locked_by = null, locked_at = null")
        release.set()
        await eventually(lambda: "JobComplete" in heard.names)
    first, second = [event for event in heard.events if isinstance(event, WorkerStart)]
    assert (first.replaces, second.replaces) == (None, first.worker_id)
    assert (heard.only(LeaseLost).worker_id, heard.only(LeaseLost).jobs) == (first.worker_id, 1)
    assert heard.only(JobInterrupted).reason is InterruptReason.LOST
    assert heard.only(WorkerShutdown).worker_id == second.worker_id
    # It recovers itself too, as it would any other worker that was given up.
    told = ("WorkerInit", "WorkerStart", "LeaseLost", "JobInterrupted", "WorkerShutdown")
    names = [name for name in heard.names if name in told]
    assert names == ["WorkerInit", "WorkerStart", "LeaseLost", "JobInterrupted", "WorkerStart", "WorkerShutdown"]


async def test_a_recovered_worker_is_told(dsn: str, eventually: Eventually) -> None:
    """By the worker that recovered it."""
    tasks, _ = _tasks()
    heard = Heard()
    await _add(dsn, "well")
    await rows(dsn, DEAD)
    await rows(
        dsn, "update graphile_worker._private_jobs set locked_by = 'backfill_dead', locked_at = now(), attempts = 1"
    )
    config = WorkerConfig(dsn, dead_after=4 * SECOND, heartbeat_interval=SECOND / 5)
    async with WorkerRunner(config, tasks, plugins=[heard]) as runner:
        await eventually(lambda: "WorkerRecovered" in heard.names)
        recovered = heard.only(WorkerRecovered)
        assert (recovered.worker_id, recovered.by, recovered.jobs) == ("backfill_dead", runner.worker_id, 1)


async def test_the_start_tells_no_password(dsn: str) -> None:
    """WorkerInit names the database; what the lifespan yields is there when the worker starts."""
    heard = Heard()

    @asynccontextmanager
    async def lifespan(client: BackfillClient) -> AsyncGenerator[list[int]]:
        yield [1]

    tasks = TaskRegistry(lifespan=lifespan, plugins=[heard])
    tasks.task("t")(_nothing)
    secret = make_conninfo(dsn, password="hunter22")
    await WorkerRunner(WorkerConfig(secret), tasks).process_available_jobs()
    started = heard.only(WorkerInit)
    assert "dbname=" in started.database
    assert "hunter22" not in repr(heard.events)
    assert (started.schema, started.concurrency) == ("graphile_worker", 10)
    assert heard.only(WorkerStart).deps == [1]


async def _nothing(payload: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("how", "reason"),
    [("event", "graceful"), ("cancelled", "graceful"), ("told", "signal"), ("error", "error"), ("part", "error")],
)
async def test_the_end_says_why(dsn: str, eventually: Eventually, how: str, reason: str) -> None:
    """By what stopped the worker: its program, a signal that the program told of, or an error in or around it."""
    tasks, _ = _tasks()
    heard, stop = Heard(), asyncio.Event()
    runner = WorkerRunner(WorkerConfig(dsn), tasks, plugins=[heard])

    async def work() -> None:
        if how == "error":
            async with runner:
                raise LookupError
        await runner.run_until_cancelled(stop)

    working = asyncio.ensure_future(work())
    if how != "error":
        await eventually(lambda: runner.worker_id)
    if how == "told":
        runner.stopping_for(ShutdownReason.SIGNAL)
    if how == "part":
        assert runner._parts is not None
        runner._parts.failed.set_exception(RuntimeError("broken"))
    if how == "cancelled":
        working.cancel()
    stop.set()
    await asyncio.wait([working])
    assert working.cancelled() or isinstance(working.exception(), (LookupError, RuntimeError, type(None)))
    assert heard.only(WorkerShutdown).reason == reason


async def test_plugins_are_called_in_order_and_once(dsn: str) -> None:
    """The registry's first, then those of the registries that it includes, then the runner's; each object once."""
    called = list[str]()

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def register(self, hooks: HookRegistry) -> None:
            hooks.on(JobComplete, lambda _: called.append(self.name))

    first, included, last = Named("registry"), Named("included"), Named("runner")
    other: TaskRegistry[Any] = TaskRegistry(plugins=[included, first])
    other.task("t")(_nothing)
    tasks: TaskRegistry[None] = TaskRegistry(plugins=[first])
    tasks.include(other)
    await _add(dsn, "well")
    await WorkerRunner(WorkerConfig(dsn), tasks, plugins=[last, included]).process_available_jobs()
    assert called == ["registry", "included", "runner"]


async def test_an_observer_that_fails_stops_nothing(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises, sync or async; it is counted, and the log names its class and place but not its message."""
    heard = Heard()

    class Bad:
        def register(self, hooks: HookRegistry) -> None:
            hooks.on(JobComplete, self.sync)
            hooks.on(JobComplete, self.later)

        def sync(self, event: JobComplete) -> None:
            if event.job.payload == "exit":
                raise SystemExit(3)
            raise ValueError(event.job.payload)

        async def later(self, event: JobComplete) -> None:
            await asyncio.sleep(0)
            raise asyncio.CancelledError(event.job.payload)

    tasks, _ = _tasks()
    await _add(dsn, "secret-1", "exit", "secret-2")
    runner = WorkerRunner(WorkerConfig(dsn), tasks, plugins=[Bad(), heard])
    with caplog.at_level(logging.INFO):
        await runner.process_available_jobs()
    assert heard.names.count("JobComplete") == 3
    assert (runner.hook_failures.failed, runner.hook_failures.dropped) == (6, 0)
    assert dict(runner.hook_failures.by_event) == {"JobComplete": 6}
    assert "Bad.sync of JobComplete failed: ValueError at" in caplog.text
    assert "Bad.later of JobComplete failed: CancelledError at" in caplog.text
    assert "secret" not in caplog.text
    assert await value(dsn, JOBS) == 0


async def test_a_hanging_observer_does_not_hold_up_a_stop(dsn: str) -> None:
    """It is cut off and counted; the other observers have heard of everything."""
    heard, tasks = Heard(), _tasks()[0]

    class Hanging:
        def register(self, hooks: HookRegistry) -> None:
            hooks.on(JobComplete, self.wait)

        async def wait(self, _event: JobComplete) -> None:
            await asyncio.Event().wait()

    await _add(dsn, *(["well"] * 150))
    runner = WorkerRunner(WorkerConfig(dsn, shutdown_timeout=SECOND), tasks, plugins=[Hanging(), heard])
    began = asyncio.get_running_loop().time()
    await runner.process_available_jobs()
    assert asyncio.get_running_loop().time() - began < 30
    assert heard.names.count("JobComplete") == 150
    assert runner.hook_failures.dropped == 150
    assert await value(dsn, JOBS) == 0


async def test_the_logging_plugin_tells_all_without_payloads(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """A line for each event, with its fields in the record; a level may be changed, and an event left out."""
    tasks, _ = _tasks()
    await _add(dsn, "secret-payload", "fail")
    plugin = LoggingPlugin(levels={JobFetch: logging.INFO, WorkerStart: None})
    with caplog.at_level(logging.DEBUG, "backfill.events"):
        await WorkerRunner(WorkerConfig(dsn), tasks, plugins=[plugin]).process_available_jobs()
    told = [record for record in caplog.records if record.name == "backfill.events"]
    assert [record.__dict__["event"] for record in told] == [
        "WorkerInit", "JobFetch", "JobFetch", "JobStart", "JobStart", "JobComplete", "JobFail", "WorkerShutdown",
    ]  # fmt: skip
    assert [record.levelname for record in told[1:]] == ["INFO", "INFO", "DEBUG", "DEBUG", "INFO", "WARNING", "INFO"]
    done = told[5].__dict__
    assert (done["task"], done["attempt"], done["duration"] > 0) == ("t", 1, True)
    assert told[6].__dict__["reason"] == "error"
    assert "secret-payload" not in caplog.text + repr([record.__dict__ for record in told])
