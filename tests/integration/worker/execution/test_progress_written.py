"""How workers write progress: in one statement a second, nothing for jobs that say nothing, and whatever is refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, RetryPolicy, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner

from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
KEPT = "select count(*) from graphile_worker.backfill_progress"
DUE = f"update {JOBS} set run_at = now() - interval '1 second'"
HOUR = timedelta(hours=1)
LATER = RetryPolicy(9, HOUR, HOUR, 1.0, 0.0)
Context = WorkerContext[None]


async def run(dsn: str, tasks: TaskRegistry[Any], times: int = 1) -> None:
    """Run what is due, so often, and make what waits due before each time."""
    for _ in range(times):
        await rows(dsn, DUE)
        await WorkerRunner(WorkerConfig(dsn, retry=LATER), tasks).process_available_jobs()


async def test_an_unreadable_checkpoint_puts_the_job_off(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """The handler does not begin without it, and the attempt does not count."""
    tasks, seen = TaskRegistry[None](), []

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        seen.append((context.attempt, context.checkpointed))
        context.checkpoint(1)
        raise ValueError("no")

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(step, {})
        await run(dsn, tasks)
        await rows(dsn, "alter table graphile_worker.backfill_progress rename to elsewhere")
        await run(dsn, tasks)
        row = await client.get_job(job)
        assert row is not None
        assert row.attempts == 1
        assert row.run_at is not None
        assert row.run_at > datetime.now(UTC) + timedelta(seconds=5)
        assert [record.getMessage().split(":")[0] for record in caplog.records if "checkpoint" in record.message] == [
            f"job {job.id} (t)"
        ]
        await rows(dsn, "alter table graphile_worker.elsewhere rename to backfill_progress")
        await run(dsn, tasks)
    assert seen == [(1, None), (2, 1)]


async def test_a_refused_word_holds_up_nothing(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the database refuses a word, the words of other jobs are written, and so is the end of its attempt."""
    await rows(
        dsn, "alter table graphile_worker.backfill_progress add constraint plain check (note is distinct from 'bad')"
    )
    tasks, go = TaskRegistry[None](), asyncio.Event()

    @tasks.task("t")
    async def step(note: str, context: Context) -> None:
        context.set_progress(1, note=note)
        await go.wait()
        context.set_progress(2, note=note)
        raise ValueError("no")

    async with BackfillClient(dsn) as client:
        jobs = [await client.enqueue(step, note) for note in ("good", "bad", "fine", "well")]
        async with WorkerRunner(WorkerConfig(dsn, retry=LATER), tasks):
            await eventually(lambda: client.progress(jobs), lambda found: len(found) == 3)
            await eventually(lambda: "the database refuses its progress" in caplog.text)
            go.set()
            await eventually(
                lambda: value(dsn, f"select count(*) from {JOBS} where locked_by is null"), lambda ended: ended == 4
            )
        found = await client.progress(jobs)
    assert {found[job.id].note: found[job.id].done for job in jobs if job.id in found} == {
        "good": 2,
        "fine": 2,
        "well": 2,
    }
    assert "written without its progress" in caplog.text


async def test_an_outage_loses_no_word(dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture) -> None:
    """While nothing can be written, the handler goes on; afterwards its latest word is written."""
    tasks, go = TaskRegistry[None](), asyncio.Event()

    @tasks.task("t")
    async def step(_: dict[str, Any], context: Context) -> None:
        context.set_progress(1)
        await go.wait()
        context.set_progress(2)
        await asyncio.Event().wait()

    config = WorkerConfig(dsn, shutdown_timeout=timedelta(seconds=0))
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks):
        await rows(dsn, "alter table graphile_worker.backfill_progress rename to elsewhere")
        job = await client.enqueue(step, {})
        await eventually(lambda: "the progress of jobs could not be written" in caplog.text)
        go.set()
        await rows(dsn, "alter table graphile_worker.elsewhere rename to backfill_progress")
        await eventually(lambda: client.progress(job))
        await eventually(lambda: client.progress(job), lambda found: found is not None and found.done == 2)


async def test_jobs_that_say_nothing_cost_nothing(dsn: str) -> None:
    """Neither a row, nor a statement: the table's triggers never fire."""
    await rows(dsn, COUNT_STATEMENTS)
    tasks = TaskRegistry[None]()

    @tasks.task("t")
    async def step(number: int, context: Context) -> None:
        if number % 2:
            raise ValueError("no")

    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(step, range(20))
        await run(dsn, tasks, 2)
    assert await value(dsn, "select count(*) from counted") == 0


COUNT_STATEMENTS: LiteralString = """
    create table counted (at timestamptz default clock_timestamp());
    create function count_one() returns trigger language plpgsql as $$
      begin insert into counted default values; return null; end $$;
    create trigger counting after update on graphile_worker.backfill_progress
      for each statement execute function count_one()"""
"""Both statements that write progress hold one update, which fires such a trigger once for all rows."""


async def test_a_thousand_jobs_cost_one_statement_a_second(dsn: str, eventually: Eventually) -> None:
    """They say something all the time, and run for several seconds; statements are counted by a trigger."""
    await rows(dsn, COUNT_STATEMENTS)
    tasks, go = TaskRegistry[None](), asyncio.Event()

    @tasks.task("t")
    async def step(number: int, context: Context) -> None:
        done = 0
        while not go.is_set():
            done += 1
            context.set_progress(done, note=str(number))
            await asyncio.wait([waiting], timeout=0.2)

    waiting = asyncio.ensure_future(go.wait())
    config = WorkerConfig(dsn, concurrency=1_000)
    many: LiteralString = "select count(*) from graphile_worker.backfill_progress where done >= 5"
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(step, range(1_000))
        async with WorkerRunner(config, tasks):
            await eventually(lambda: value(dsn, many), lambda found: found == 1_000)
            await eventually(lambda: value(dsn, "select count(*) from counted"), lambda found: found >= 5)
            go.set()
    gaps = await rows(dsn, "select extract(epoch from at - lag(at) over (order by at))::float8 from counted")
    assert all(gap is None or gap >= 0.95 for (gap,) in gaps), gaps
    assert await value(dsn, KEPT) == 0
