"""Attempts that do not complete are kept while their job goes on, and go with it into its dead letter or its end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest

from backfill import (
    AttemptHow,
    AttemptRecord,
    BackfillClient,
    Discard,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from reading import rows, value

JOBS = "graphile_worker._private_jobs"
KEPT = "select count(*) from graphile_worker.backfill_attempts"
DUE = f"update {JOBS} set run_at = now() - interval '1 second'"
HOUR = timedelta(hours=1)
LATER = RetryPolicy(9, HOUR, HOUR, 1.0, 0.0)


async def _run(dsn: str, tasks: TaskRegistry[Any], times: int = 1) -> None:
    """Run what is due, so often, and make what waits due before each time."""
    for _ in range(times):
        await rows(dsn, DUE)
        await WorkerRunner(WorkerConfig(dsn, retry=LATER), tasks).process_available_jobs()


def _hows(records: list[AttemptRecord]) -> list[tuple[int, AttemptHow]]:
    return [(record.attempt, record.how) for record in records]


async def test_a_failure_says_all_that_is_known(dsn: str) -> None:
    """Which run it was, when, by whom, and the error in parts, as `last_error` has it as a whole."""
    tasks = TaskRegistry[None]()

    @tasks.task("t")
    async def fail() -> None:
        raise ValueError("no such user: 42")

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(fail)
        assert await client.attempts(job) == []
        before = datetime.now(UTC) - timedelta(seconds=1)
        await _run(dsn, tasks)
        [record] = await client.attempts(job)
        row = await client.get_job(job)
    assert (record.attempt, record.how) == (1, AttemptHow.FAILED)
    assert record.worker_id is not None
    assert record.worker_id.startswith("backfill_")
    assert record.started_at is not None
    assert record.ended_at is not None
    assert before < record.started_at <= record.ended_at < datetime.now(UTC) + timedelta(seconds=1)
    assert record.duration == record.ended_at - record.started_at
    assert (record.error_type, record.message) == ("builtins.ValueError", "no such user: 42")
    assert record.traceback is not None
    assert record.traceback.endswith(" in fail")
    assert row is not None
    assert row.last_error == f"ValueError: {record.message}\n{record.traceback}"
    assert "no such user" not in repr(record)


async def test_each_way_to_end_has_its_name(dsn: str) -> None:
    """Timeouts, deadlines, snoozes, and attempts that their worker interrupted."""
    tasks = TaskRegistry[None]()
    begun = asyncio.Event()

    @tasks.task("slow", timeout=timedelta(milliseconds=20))
    async def slow() -> None:
        await asyncio.Event().wait()

    @tasks.task("late", max_attempts=2)
    async def late() -> None: ...

    @tasks.task("snoozing")
    async def snoozing() -> None:
        raise Snooze(HOUR)

    @tasks.task("waiting")
    async def waiting() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with BackfillClient(dsn) as client:
        one, two, three = [await client.enqueue(task) for task in (slow, late, snoozing)]
        past = (datetime.now(UTC) - HOUR).isoformat()
        flags: LiteralString = (
            f"update {JOBS} set flags = jsonb_build_object('backfill.deadline:' || %s, true) where id = %s"
        )
        await rows(dsn, flags, past, two.id)
        await _run(dsn, tasks)
        [timed_out], [deadline], [snoozed] = [await client.attempts(job) for job in (one, two, three)]
        assert timed_out.how is AttemptHow.TIMED_OUT
        assert timed_out.error_type == "builtins.TimeoutError"
        assert timed_out.traceback is not None
        assert " in slow" in timed_out.traceback
        assert (deadline.how, deadline.message) == (
            AttemptHow.DEADLINE, "the job's deadline was over before this attempt began",
        )  # fmt: skip
        assert (snoozed.attempt, snoozed.how, snoozed.error_type, snoozed.message) == (
            1, AttemptHow.SNOOZED, None, None,
        )  # fmt: skip

        job = await client.enqueue(waiting)
        async with WorkerRunner(WorkerConfig(dsn, shutdown_timeout=timedelta(0)), tasks):
            await asyncio.wait_for(begun.wait(), 30)
        [interrupted] = await client.attempts(job)
        assert (interrupted.attempt, interrupted.how) == (1, AttemptHow.INTERRUPTED)


async def test_a_success_of_the_first_attempt_writes_nothing(dsn: str) -> None:
    """Neither does a discarded job; its end tells of it."""
    tasks = TaskRegistry[None]()

    @tasks.task("done")
    async def done() -> None: ...

    @tasks.task("kept", keep=HOUR)
    async def kept() -> None: ...

    @tasks.task("discarded", keep=HOUR)
    async def discarded() -> None:
        raise Discard("enough")

    async with BackfillClient(dsn) as client:
        jobs = [await client.enqueue(task) for task in (done, kept, discarded)]
        await _run(dsn, tasks)
        assert [await client.attempts(job) for job in jobs] == [[], [], []]
    assert await value(dsn, "select last_value is null or not is_called from graphile_worker.backfill_attempts_id_seq")
    assert await rows(dsn, "select attempt_records from graphile_worker.backfill_ends") == [(None,), (None,)]


@pytest.mark.parametrize("keep", [None, HOUR], ids=["plain", "kept"])
async def test_what_was_noted_goes_with_a_job_that_completes(dsn: str, keep: timedelta | None) -> None:
    """Its rows are gone when it is; a kept end has them."""
    tasks = TaskRegistry[None]()

    @tasks.task("t", keep=keep)
    async def third(ctx: WorkerContext[None]) -> None:
        if ctx.attempt < 3:
            raise ValueError(ctx.attempt)

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(third)
        await _run(dsn, tasks, 2)
        assert await value(dsn, KEPT) == 2
        await _run(dsn, tasks)
        assert await client.get_job(job) is None
        records = await client.attempts(job)
        if keep is not None:
            end = await client.end(job)
            assert end is not None
            assert await client.attempts(end) == records
    assert await value(dsn, KEPT) == 0
    assert [record.message for record in records] == (["1", "2"] if keep is not None else [])


async def test_a_job_that_was_put_off_completes_with_its_end(dsn: str) -> None:
    """Its number of attempts does not say that it has any; the end has them all the same."""
    tasks = TaskRegistry[None]()
    left = [Snooze(HOUR)]

    @tasks.task("t", keep=HOUR)
    async def second() -> None:
        while left:
            raise left.pop()

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(second)
        await _run(dsn, tasks, 2)
        assert _hows(await client.attempts(job)) == [(1, AttemptHow.SNOOZED)]
    assert await value(dsn, KEPT) == 0


@pytest.mark.parametrize("keep", [None, HOUR], ids=["plain", "kept"])
async def test_a_dead_letter_has_them_and_its_requeued_job_begins_with_them(dsn: str, keep: timedelta | None) -> None:
    """The last attempt is among them; after the requeue numbers begin anew, and the newest letter has all of them."""
    tasks = TaskRegistry[None]()

    @tasks.task("t", max_attempts=2, keep=keep)
    async def fail(ctx: WorkerContext[None]) -> None:
        seen.append(_hows(await ctx.attempts()))
        raise ValueError(f"{ctx.job.id} {ctx.attempt}")

    seen: list[list[tuple[int, AttemptHow]]] = []
    failed = AttemptHow.FAILED
    async with BackfillClient(dsn) as client:
        job = await client.enqueue(fail, job_key="k")
        await _run(dsn, tasks, 2)
        assert await value(dsn, KEPT) == 0
        [entry] = (await client.list_dlq_jobs()).jobs
        first = await client.attempts(job)
        assert [record.message for record in first] == [f"{job.id} 1", f"{job.id} 2"]
        assert await client.attempts(entry) == first
        again = await client.requeue_dlq_job(entry.id)
        assert await client.attempts(again) == first
        await _run(dsn, tasks, 2)
        both = await client.attempts(again)
        assert both[:2] == first
        assert _hows(both[2:]) == [(1, failed), (2, failed)]
        assert await client.attempts(job) == (first if keep is not None else [])
    assert seen == [[], [(1, failed)], [(1, failed), (2, failed)], [(1, failed), (2, failed), (1, failed)]]
    assert await value(dsn, KEPT) == 0


async def test_one_that_was_replaced_while_it_ran_leaves_none(dsn: str) -> None:
    """Nor does the job that replaced it begin with any."""
    tasks = TaskRegistry[None]()

    @tasks.task("t")
    async def replaced(number: int, ctx: WorkerContext[None]) -> None:
        if number == 1 and ctx.attempt == 2:
            await ctx.client.enqueue("t", 2, job_key="k", delay=HOUR)
        raise ValueError(number)

    async with BackfillClient(dsn) as client:
        job = await client.enqueue("t", 1, job_key="k")
        await _run(dsn, tasks, 2)
        assert await client.get_job(job) is None
        assert await client.attempts(job) == []
        assert await value(dsn, KEPT) == 0
        [(other,)] = await rows(dsn, f"select id from {JOBS}")
        assert await client.attempts(other) == []


async def test_the_newest_twenty_are_kept(dsn: str) -> None:
    """Of a job that is put off again and again, and of one that fails 25 times, in the table too."""
    tasks = TaskRegistry[None]()

    @tasks.task("snoozing")
    async def snoozing() -> None:
        raise Snooze(HOUR)

    @tasks.task("failing", max_attempts=30)
    async def failing(ctx: WorkerContext[None]) -> None:
        raise ValueError(ctx.attempt)

    async with BackfillClient(dsn) as client:
        one, two = await client.enqueue(snoozing), await client.enqueue(failing)
        await _run(dsn, tasks, 25)
        assert _hows(await client.attempts(one)) == [(1, AttemptHow.SNOOZED)] * 20
        assert [record.message for record in await client.attempts(two)] == [str(n) for n in range(6, 26)]
    assert await rows(dsn, "select count(*) from graphile_worker.backfill_attempts group by job_id") == [(20,), (20,)]


NO_RECORDS: LiteralString = """
    create function graphile_worker.refuse() returns trigger language plpgsql as
    $$ begin raise exception 'not this one'; end $$;
    create trigger refuse before insert on graphile_worker.backfill_attempts
    for each row execute function graphile_worker.refuse()"""
ASCII_ONLY: LiteralString = """
    alter table graphile_worker.backfill_attempts add constraint plain
    check (message ~ '^[\\x01-\\x7f]*$' and traceback ~ '^[\\x01-\\x7f]*$')"""


@pytest.mark.parametrize("refusing", [NO_RECORDS, ASCII_ONLY], ids=["all", "characters"])
async def test_a_record_that_is_refused_keeps_no_attempt_from_ending(dsn: str, refusing: LiteralString) -> None:
    """What the table of attempts refuses is left out; the job is tried again, put off or given back as it should be."""
    tasks = TaskRegistry[None]()

    @tasks.task("failing")
    async def failing() -> None:
        raise ValueError("not \U0001f600")

    @tasks.task("snoozing")
    async def snoozing() -> None:
        raise Snooze(HOUR)

    async with BackfillClient(dsn) as client:
        one, two = await client.enqueue(failing), await client.enqueue(snoozing)
        await rows(dsn, refusing)
        await _run(dsn, tasks)
        row = await client.get_job(one)
        assert row is not None
        assert row.last_error is not None
        assert row.last_error.startswith("ValueError: not " + ("\\U0001f600" if refusing is ASCII_ONLY else ""))
        records = await client.attempts(one)
        assert len(await client.attempts(two)) == (0 if refusing is NO_RECORDS else 1)
    assert await value(dsn, f"select count(*) from {JOBS} where locked_by is null and run_at > now()") == 2
    if refusing is NO_RECORDS:
        assert records == []
    else:
        [record] = records
        assert record.error_type == "builtins.ValueError"
        assert record.message is not None
        assert record.message.startswith("ValueError: not \\U0001f600")
