"""Every field of the events that the Rust crate has too, as a plugin sees them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from backfill import (
    AfterJobRun,
    BackfillClient,
    BeforeJobRun,
    BeforeJobSchedule,
    HookRegistry,
    InvalidInput,
    JobComplete,
    JobFail,
    JobFetch,
    JobPermanentlyFail,
    JobStart,
    ShutdownReason,
    TaskRegistry,
    WorkerConfig,
    WorkerInit,
    WorkerRunner,
    WorkerShutdown,
    WorkerStart,
)

from plugins.waiting import Eventually

KINDS: tuple[type[Any], ...] = (
    WorkerInit, WorkerStart, WorkerShutdown, JobFetch, JobStart, JobComplete, JobFail, JobPermanentlyFail, BeforeJobRun,
    AfterJobRun, BeforeJobSchedule,
)  # fmt: skip


class Notes:
    """Notes every event, by its class."""

    def __init__(self) -> None:
        self.seen: dict[type[Any], list[Any]] = {}

    def register(self, hooks: HookRegistry) -> None:
        """Listen to all of them."""
        for kind in KINDS:
            hooks.on(kind, self._note)

    def _note(self, event: Any) -> None:
        self.seen.setdefault(type(event), []).append(event)


async def test_events_have_the_fields_of_the_crate(dsn: str, eventually: Eventually) -> None:
    """Of a worker's life, of a job that completes, one that fails once, and one that fails for good."""
    notes = Notes()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(kind: str) -> str:
        if kind == "retry":
            raise ValueError(kind)
        if kind == "dead":
            raise InvalidInput(kind)
        return kind

    async with BackfillClient(dsn, plugins=[notes]) as client:
        ids = {kind: (await client.enqueue(handler.job(kind), priority=3)).id for kind in ("done", "retry", "dead")}
    runner = WorkerRunner(WorkerConfig(dsn, concurrency=2, poll_interval=timedelta(seconds=1)), tasks, plugins=[notes])
    async with runner:
        worker = runner.worker_id
        await eventually(lambda: {JobComplete, JobFail, JobPermanentlyFail} <= set(notes.seen))
    one = {kind: events[0] for kind, events in notes.seen.items()}
    assert set(one) == set(KINDS)
    init = one[WorkerInit]
    assert isinstance(init, WorkerInit)
    assert (init.schema, init.concurrency) == ("graphile_worker", 2)
    assert "dbname=" in init.database
    start, end = one[WorkerStart], one[WorkerShutdown]
    assert (start.worker_id, start.deps, end.worker_id, end.reason) == (worker, None, worker, ShutdownReason.GRACEFUL)
    for kind in (JobFetch, JobStart, BeforeJobRun):
        assert {event.job.id for event in notes.seen[kind]} == set(ids.values())
        assert {event.worker_id for event in notes.seen[kind]} == {worker}
    assert {event.payload for event in notes.seen[BeforeJobRun]} == set(ids)
    complete, fail, dead = one[JobComplete], one[JobFail], one[JobPermanentlyFail]
    assert [event.job.id for event in (complete, fail, dead)] == list(ids.values())
    assert {complete.worker_id, fail.worker_id, dead.worker_id} == {worker}
    assert complete.duration >= timedelta(0)
    assert (fail.error.splitlines()[0], fail.will_retry) == ("ValueError: retry", True)
    assert dead.error.splitlines()[0] == "InvalidInput: dead"
    after = {event.job.id: event for event in notes.seen[AfterJobRun]}
    assert (after[ids["done"]].result, after[ids["done"]].worker_id) == ("done", worker)
    assert after[ids["retry"]].duration >= timedelta(0)
    before = one[BeforeJobSchedule]
    assert (before.identifier, before.payload, before.spec.priority) == ("t", "done", 3)


async def test_an_event_is_of_one_run(dsn: str) -> None:
    """The drain of a script emits the job's events too."""
    notes = Notes()
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler() -> None:
        await asyncio.sleep(0)

    async with BackfillClient(dsn) as client:
        added = await client.enqueue(handler.job())
    await WorkerRunner(WorkerConfig(dsn), tasks, plugins=[notes]).process_available_jobs()
    assert [event.job.id for event in notes.seen[JobComplete]] == [added.id]
