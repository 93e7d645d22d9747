"""Express tasks in tests: they are proven after one attempt, and a worker is there once its lanes are in windows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, NewJob, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from plugins.waiting import wait_until
from reading import rows, value

WARM = "warm up"
"""The payload of the jobs by which tasks are proven."""
LONG = timedelta(seconds=1)
"""The longest window that there may be: for tests that look at one while it is open."""
LEFT: LiteralString = "select count(*) from graphile_worker._private_jobs"
ROW: LiteralString = "select attempts, locked_by from graphile_worker._private_jobs where id = %s"
FREE: LiteralString = """
select count(*) from (select from graphile_worker._private_jobs where id = %s for update skip locked) as free
"""
SESSIONS: LiteralString = """
select pid from pg_stat_activity
where datname = current_database() and application_name like 'backfill express %'
"""
END_SESSIONS: LiteralString = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where datname = current_database() and application_name like 'backfill express %'
"""
Handler = Callable[[Any, WorkerContext[Any]], Awaitable[None]]


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each express task is proven in this process once one of its attempts has ended, and stays so however slow."""
    monkeypatch.setattr("backfill.worker.express.proofs.NEEDED", 1)
    monkeypatch.setattr("backfill.worker.express.proofs.MOST_SLOW", 1.0)


def short(tasks: TaskRegistry[Any], name: str, **options: Any) -> Callable[[Handler], Handler]:
    """Make a handler that of an express task; it is not called for the jobs that prove the task."""

    def register(handler: Handler) -> Handler:
        @tasks.task(name, express=True, **options)
        async def run(payload: Any, ctx: WorkerContext[Any]) -> None:
            if payload != WARM:
                await handler(payload, ctx)

        return handler

    return register


@asynccontextmanager
async def in_windows(
    dsn: str, tasks: TaskRegistry[Any], *, plugins: Any = (), proves: bool = True, **settings: Any
) -> AsyncIterator[WorkerRunner]:
    """A worker of ten slots whose express tasks are proven, and whose lanes all give their jobs to windows.

    Args:
        dsn: the database, whose queue is empty.
        tasks: the tasks of the worker.
        plugins: those of the worker.
        proves: whether to wait for that.
        settings: other settings of the worker.
    """
    config = WorkerConfig(dsn, **{"concurrency": 10} | settings)
    async with WorkerRunner(config, tasks, plugins=plugins) as runner:
        if proves:
            await prove(dsn, runner, tasks)
        yield runner


async def prove(dsn: str, runner: WorkerRunner[Any], tasks: TaskRegistry[Any]) -> None:
    """Have jobs of each express task run until the worker opens windows; others may run some of them."""
    names = [task.identifier for task in tasks if task.express]
    async with BackfillClient(dsn) as client:

        async def add() -> bool:
            for name in names:
                await client.enqueue_bulk(NewJob(name, WARM) for _ in range(20))
                await wait_until(lambda: value(dsn, LEFT), (0).__eq__)
            return all_in_windows(runner)

        await wait_until(add)


def all_in_windows(runner: WorkerRunner[Any]) -> bool:
    """Whether windows take the parallel jobs of all lanes of a worker."""
    assert runner._parts is not None
    return all(lane.in_windows for lane in runner._parts.one.lanes)


async def is_free(dsn: str, job: int) -> bool:
    """Whether a claim of somebody else would get a job's row: it is there, and nobody has locked it."""
    return bool(await value(dsn, FREE, job))


async def row(dsn: str, job: int) -> tuple[int, str | None] | None:
    """The attempts of a job and its worker, as its row says; None where it is gone."""
    found = await rows(dsn, ROW, job)
    return found[0] if found else None
