"""What a registry declares, and what its handlers get: by a real worker, whose scheduler adds the jobs."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import process_tasks
from backfill import BackfillClient, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.cron import Schedule
from backfill.storage.schedules import crontab_of

from plugins.waiting import Eventually
from reading import rows, value

CRONTAB = "@daily report {to: 'boss'}\n*/10 * * * * sync ?tz=Europe/Berlin"


@dataclass
class Report:
    """A payload of a type."""

    to: str


def registry(crontab: str = CRONTAB) -> TaskRegistry[None]:
    """A registry with a task and some schedules."""
    tasks: TaskRegistry[None] = TaskRegistry(crontab=crontab)

    @tasks.task("report")
    async def report(payload: Report) -> None: ...

    return tasks


async def declared(dsn: str) -> list[tuple[Any, ...]]:
    """What the rows of workers say that their code declares."""
    return await rows(
        dsn,
        """
        select worker.crontab, crontab.items
        from graphile_worker.backfill_workers worker
        left join graphile_worker.backfill_crontabs crontab on crontab.digest = worker.crontab
        """,
    )


async def test_a_workers_row_says_what_its_code_declares(dsn: str) -> None:
    """Its row has the digest; the items stand under it, once for all workers of the same code, and outlive them."""
    expected = crontab_of(registry().schedules)
    assert expected is not None
    async with WorkerRunner(WorkerConfig(dsn), registry()), WorkerRunner(WorkerConfig(dsn), registry()):
        assert await declared(dsn) == [(expected.digest, dict(expected.items))] * 2
        assert await value(dsn, "select count(*) from graphile_worker.backfill_crontabs") == 1
    assert await declared(dsn) == []
    assert await value(dsn, "select count(*) from graphile_worker.backfill_crontabs") == 1


async def test_a_worker_that_does_not_schedule_declares_all_the_same(dsn: str) -> None:
    """Other workers schedule for it. Code without schedules declares nothing."""
    async with WorkerRunner(WorkerConfig(dsn, scheduling=False), registry()):
        [(digest, _)] = await declared(dsn)
        assert digest is not None
    async with WorkerRunner(WorkerConfig(dsn), registry("")):
        assert await declared(dsn) == [(None, None)]


async def test_a_worker_that_only_runs_what_is_due_declares_nothing(dsn: str) -> None:
    """It neither schedules nor declares, so that a script does not bring the schedules of its code into force."""
    seen = list[list[tuple[Any, ...]]]()
    tasks = registry()

    @tasks.task("looks")
    async def looks() -> None:
        seen.append(await declared(dsn))

    async with BackfillClient(dsn) as client:
        await client.enqueue("looks")
    await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs(raise_failures=True)
    assert seen == [[(None, None)]]
    assert await value(dsn, "select count(*) from graphile_worker.backfill_crontabs") == 0


async def test_a_worker_warns_of_jobs_that_it_could_not_run(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """It does not know the task, or the payload does not fit the handler. What fits is not told."""
    tasks = registry("@daily sync\n@daily report ?id=bad {pages: 3}\n@daily report {to: 'boss'}\n@hourly report ?id=b")
    async with WorkerRunner(WorkerConfig(dsn), tasks):
        pass
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    unfit = "payload does not fit the handler of task 'report', so its jobs will fail: payload: Object missing required"
    assert told == [
        "schedule 'sync': its task 'sync' is none of this worker's, so its jobs wait for a worker that knows it",
        f"schedule 'bad': its {unfit} field `to`",
        f"schedule 'b': its {unfit} field `to`",
    ]


@dataclass
class Region:
    """A payload whose class raises an error of its own."""

    name: str

    def __post_init__(self) -> None:
        """Refuse all regions."""
        raise LookupError(f"no region {self.name}")


async def test_a_worker_warns_of_payloads_that_are_never_seen(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """The handler takes none, or its class raises something; the worker starts, and no value of a payload is logged."""
    tasks: TaskRegistry[None] = TaskRegistry(
        crontab="@daily sync {a: 'hidden'}\n@daily sync ?id=plain\n@daily sync ?id=b {}"
    )

    @tasks.task("sync")
    async def sync() -> None: ...

    @tasks.cron("@daily", payload={"name": "hidden"})
    @tasks.task("clean")
    async def clean(payload: Region) -> None: ...

    async with WorkerRunner(WorkerConfig(dsn), tasks):
        pass
    way_out = "give the handler a parameter for the payload, or leave the payload out"
    unfit = "payload does not fit the handler of task 'clean', so its jobs will fail"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"schedule 'sync': it has a payload, but the handler of task 'sync' takes none; {way_out}",
        f"schedule 'clean': its {unfit}: its class raises LookupError",
    ]
    assert "hidden" not in caplog.text


async def test_scheduled_jobs_run_with_their_payloads_and_their_runs(dsn: str) -> None:
    """The decorated handler gets its own type, and each run once, in order; the context says which it is."""
    tasks: TaskRegistry[None] = TaskRegistry()
    came = asyncio.Queue[tuple[Report, datetime | None, bool]]()

    @tasks.cron(every=timedelta(seconds=1), payload=Report("boss"), queue="one")
    @tasks.task("report")
    async def report(payload: Report, ctx: WorkerContext[None]) -> None:
        came.put_nowait((payload, ctx.scheduled_at, ctx.backfilled))

    async with WorkerRunner(WorkerConfig(dsn), tasks), asyncio.timeout(60):
        got = [await came.get() for _ in range(3)]
    assert {(payload.to, backfilled) for payload, _, backfilled in got} == {("boss", False)}
    runs = [at for _, at, _ in got if at is not None]
    assert [run - runs[0] for run in runs] == [timedelta(seconds=number) for number in range(3)]
    assert runs[0].tzinfo is UTC
    assert runs[0].microsecond == 0


@pytest.mark.parametrize("where", ["process", "thread"])
async def test_handlers_in_processes_and_threads_know_their_run(dsn: str, where: str) -> None:
    """A typed payload is read without the scheduler's key there too."""
    mark = {"ts": "2026-01-01T04:00:00.000Z", "backfilled": True}
    tasks = process_tasks.registry(where, keep=timedelta(hours=1))
    async with BackfillClient(dsn) as client:
        jobs = [
            await client.enqueue("scheduled", {"number": 5, "_cron": mark}),
            await client.enqueue("scheduled", {"number": 6}),
        ]
        await WorkerRunner(WorkerConfig(dsn, concurrency=1), tasks).process_available_jobs(raise_failures=True)
        results = [await client.result(job, timeout=timedelta(seconds=10)) for job in jobs]
    assert results == [[5, "2026-01-01T04:00:00+00:00", True], [6, None, False]]


async def test_a_new_session_declares_again(dsn: str, eventually: Eventually) -> None:
    """A worker that was given up goes on under another id, and its row says what its code declares."""
    async with WorkerRunner(WorkerConfig(dsn, heartbeat_interval=timedelta(milliseconds=200)), registry()) as runner:
        before = runner.worker_id
        await rows(dsn, "delete from graphile_worker.backfill_workers")
        await eventually(lambda: runner.worker_id != before)
        [(digest, _)] = await eventually(lambda: declared(dsn))
        assert digest is not None


def test_the_example_is_a_schedule() -> None:
    """The schedules of these tests are what their texts say."""
    assert registry().schedules == (
        Schedule("report", "0 0 * * *", payload={"to": "boss"}),
        Schedule("sync", "*/10 * * * *", timezone="Europe/Berlin"),
    )
