"""Attempts in windows that do not complete: their jobs are claimed with the window's end, and settled as others are."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, LiteralString

import pytest

from backfill import (
    BackfillClient,
    Discard,
    JobCancelled,
    JobDiscarded,
    JobFail,
    JobPermanentlyFail,
    JobSnoozed,
    NewJob,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerContext,
)

from hearing import Heard
from plugins.express import LEFT, LONG, in_windows, row, short
from plugins.periods import work_for
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.usefixtures("proven")
HOUR = timedelta(hours=1)
JOB: LiteralString = """
select attempts, locked_by is null, last_error, (run_at - clock_timestamp()) > '50 minutes'::interval
from graphile_worker._private_jobs where id = %s
"""
DEAD: LiteralString = (
    "select original_job_id, failure_count, failure_reason, last_error from graphile_worker.backfill_dlq"
)


def _tasks(within: asyncio.Event | None = None) -> TaskRegistry[None]:
    """A task whose handler ends as its payload says, after the event if there is one."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @short(tasks, "t", retry=RetryPolicy(initial_delay=HOUR, max_delay=HOUR))
    async def handler(payload: str, ctx: WorkerContext[None]) -> None:
        assert ctx.attempt == 1
        if within is not None:
            await within.wait()
        if payload == "fail":
            raise ValueError("no")
        if payload == "snooze":
            raise Snooze(HOUR)
        if payload == "discard":
            raise Discard("not wanted")
        if payload == "hang":
            await asyncio.Event().wait()

    return tasks


async def test_each_way_to_end_is_written_as_it_is_for_other_attempts(dsn: str, eventually: Eventually) -> None:
    """Of one window: a failure counts, a snooze does not, and a discarded job is gone; those beside them complete."""
    heard = Heard()
    async with BackfillClient(dsn) as client, in_windows(dsn, _tasks(), express_window=LONG, plugins=[heard]):
        names = ["fail", "snooze", "discard", *["well"] * 20]
        outcome = await client.enqueue_bulk([NewJob("t", name) for name in names], return_ids=True)
        assert outcome.ids is not None
        failed, snoozed = outcome.ids[:2]
        await eventually(lambda: value(dsn, f"{LEFT} where locked_by is not null or attempts = 0"), (1).__eq__)
        await eventually(lambda: value(dsn, LEFT), (2).__eq__)
        [(*told, error, later)] = await rows(dsn, JOB, failed)
        assert (told, later) == ([1, True], True)
        assert error.startswith("ValueError: no")
        assert await rows(dsn, JOB, snoozed) == [(0, True, None, True)]
    kinds = [type(event) for event in heard.events]
    assert [kinds.count(kind) for kind in (JobFail, JobSnoozed, JobDiscarded)] == [1, 1, 1]
    assert await rows(dsn, DEAD) == []


@pytest.mark.parametrize("in_time", [True, False])
async def test_the_last_failure_is_a_dead_letter(dsn: str, eventually: Eventually, in_time: bool) -> None:
    """Also where the handler fails after its window has ended."""
    release = asyncio.Event()
    heard = Heard()
    if in_time:
        release.set()
    async with BackfillClient(dsn) as client, in_windows(dsn, _tasks(release), plugins=[heard]) as runner:
        job = await client.enqueue("t", "fail", max_attempts=1)
        assert job.id is not None
        if not in_time:
            await eventually(lambda: row(dsn, job.id or 0), (1, runner.worker_id).__eq__)
            release.set()
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    [letter] = await rows(dsn, DEAD)
    assert letter[:2] == (job.id, 1)
    assert "ValueError: no" in str(letter[3])
    assert [type(event) for event in heard.events].count(JobPermanentlyFail) == 1


async def test_a_failed_job_is_tried_again_the_ordinary_way(dsn: str, eventually: Eventually) -> None:
    """Its second attempt is the row's, and has the number 2."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen = list[tuple[int, tuple[int, str | None] | None]]()

    @short(tasks, "t", retry=RetryPolicy(initial_delay=timedelta(0), max_delay=timedelta(0)))
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        seen.append((ctx.attempt, await row(dsn, ctx.job.id)))
        if ctx.attempt < 3:
            raise ValueError("once more")

    async with BackfillClient(dsn) as client, in_windows(dsn, tasks, express_window=LONG) as runner:
        worker = runner.worker_id
        await client.enqueue("t", 1)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert seen == [(1, (0, None)), (2, (2, worker)), (3, (3, worker))]


async def test_a_timeout_ends_an_attempt_within_its_window(dsn: str, eventually: Eventually) -> None:
    """A task's timeout may be shorter than the window; the attempt has failed then."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @short(tasks, "t", timeout=timedelta(milliseconds=50), retry=RetryPolicy(initial_delay=HOUR, max_delay=HOUR))
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        await asyncio.Event().wait()

    async with BackfillClient(dsn) as client, in_windows(dsn, tasks, express_window=LONG):
        job = await client.enqueue("t", 1)
        await eventually(lambda: rows(dsn, JOB, job.id), lambda found: found[0][0] == 1 and found[0][1])
    [(attempts, _, error, _)] = await rows(dsn, JOB, job.id)
    assert attempts == 1
    assert "50" in error or "0.05" in error


async def test_a_cancel_reaches_a_handler_that_began_in_a_window(dsn: str, eventually: Eventually) -> None:
    """The request waits for the window's end at most; then the handler is cancelled, and the job is dead."""
    heard = Heard()
    async with BackfillClient(dsn) as client, in_windows(dsn, _tasks(), express_window=LONG, plugins=[heard]):
        job = await client.enqueue("t", "hang")
        assert job.id is not None
        await eventually(
            lambda: any(type(event).__name__ == "JobStart" and event.job.id == job.id for event in heard.events)
        )
        await client.cancel(job.id, reason="not needed")
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
    assert [type(event) for event in heard.events].count(JobCancelled) == 1


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(3), BaseException("odd")])
async def test_whatever_a_handler_raises_is_its_attempts_failure(
    dsn: str, eventually: Eventually, error: BaseException
) -> None:
    """Also what is no Exception; its neighbours in the window complete."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @short(tasks, "t", retry=RetryPolicy(initial_delay=HOUR, max_delay=HOUR))
    async def handler(payload: str, ctx: WorkerContext[None]) -> None:
        if payload == "raise":
            raise error

    async with BackfillClient(dsn) as client, in_windows(dsn, tasks):
        await client.enqueue_bulk([NewJob("t", "raise"), *[NewJob("t", "well")] * 10])
        await eventually(lambda: value(dsn, LEFT), (1).__eq__)
        await eventually(
            lambda: rows(dsn, "select attempts, locked_by from graphile_worker._private_jobs"), [(1, None)].__eq__
        )


async def test_the_time_of_the_claim_is_that_of_the_look(dsn: str, eventually: Eventually) -> None:
    """A context's job says when it was claimed, by the database's clock, and by which worker."""
    tasks: TaskRegistry[None] = TaskRegistry()
    seen = list[tuple[datetime | None, str | None, int]]()

    @short(tasks, "t")
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        seen.append((ctx.job.locked_at, ctx.job.locked_by, ctx.job.attempts))

    async with BackfillClient(dsn) as client, in_windows(dsn, tasks) as runner:
        worker, before = runner.worker_id, await value(dsn, "select clock_timestamp()")
        await client.enqueue("t", 1)
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        after = await value(dsn, "select clock_timestamp()")
    [(at, by, attempts)] = seen
    assert (by, attempts) == (worker, 1)
    assert at is not None
    assert before < at < after


async def test_jobs_that_did_not_begin_are_no_attempts(dsn: str, eventually: Eventually) -> None:
    """They are let go at the window's end and run later; nobody counts them as given back."""
    ran = list[Any]()
    tasks: TaskRegistry[None] = TaskRegistry()

    @short(tasks, "t")
    async def t(payload: Any, ctx: WorkerContext[None]) -> None:
        await work_for(0.01)
        ran.append(payload)

    async with BackfillClient(dsn) as client, in_windows(dsn, tasks, concurrency=2) as runner:
        await client.enqueue_bulk("t", range(60))
        await eventually(lambda: value(dsn, LEFT), (0).__eq__)
        await runner.flush_counters()
        tally = runner.tally
        counted = sum(row.given_back for row in await client.counters(task="t"))
    assert sorted(ran) == list(range(60))
    assert (tally.given_back, counted) == (0, 0)
