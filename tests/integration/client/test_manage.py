"""Jobs that are there already: read, removed by key, completed, failed and rescheduled.

What a worker holds is left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, EnqueueOutcome, EnqueueStatus, InvalidJobError, Job, PayloadDecodeError, Queue

from reading import rows, value

AT = datetime(2040, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
IDS: LiteralString = "select id from graphile_worker.jobs order by id"
HOLD: LiteralString = """update graphile_worker._private_jobs
    set locked_at = now() - %s::interval, locked_by = 'other', attempts = 1 where id = %s"""
# A client that could not write or read a thing: what it refuses, it refuses before that.
NOWHERE = BackfillClient("host=127.0.0.1 port=1")


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def three(client: BackfillClient) -> list[EnqueueOutcome[Any]]:
    """Three jobs, in a queue and with keys k0 to k2."""
    return [
        await client.enqueue("t", {"n": n}, job_key=f"k{n}", queue=Queue.serial("q"), flags=["f"]) for n in range(3)
    ]


def same(job: Job, outcome: EnqueueOutcome[Any]) -> bool:
    """Whether a row that came back is that of the job which was enqueued, names included."""
    mine = outcome.job
    return (job.id, job.task_identifier, job.queue_name, job.payload, job.flags) == (
        mine.id,
        mine.task_identifier,
        mine.queue_name,
        mine.payload,
        mine.flags,
    )


async def test_get_job(client: BackfillClient) -> None:
    """By id, by Job or by outcome; None where it is not."""
    first, second, _ = await three(client)
    for reference in (second, second.id, second.job):
        job = await client.get_job(reference)
        assert job is not None
        assert same(job, second)
        assert (job.key, job.attempts, job.revision, job.locked_by, job.last_error) == ("k1", 0, 0, None, None)
        assert job.created_at == job.updated_at == second.job.created_at
    await client.complete_jobs([first])
    assert await client.get_job(first) is None
    for absent in (0, -1, 2**63 - 1, -(2**63)):
        assert await client.get_job(absent) is None


async def test_get_job_of_a_row_that_python_cannot_hold(client: BackfillClient, dsn: str) -> None:
    """It is read; only what cannot be held is refused when it is asked for."""
    outcome = await client.enqueue("t", {})
    await rows(dsn, """update graphile_worker._private_jobs set run_at = 'infinity', payload = '"\\ud800"'""")
    job = await client.get_job(outcome)
    assert job is not None
    assert (job.id, job.priority, job.payload_bytes) == (outcome.id, 0, b'"\\ud800"')
    with pytest.raises(PayloadDecodeError, match="run_at is infinity"):
        _ = job.run_at
    with pytest.raises(PayloadDecodeError, match=r"job \d+ \(t\): payload"):
        _ = job.payload


async def test_remove_job(client: BackfillClient, dsn: str) -> None:
    """The waiting job of the key is gone, its row is given back; a second time there is none."""
    _, second, _ = await three(client)
    removed = await client.remove_job("k1")
    assert removed is not None
    assert same(removed, second)
    assert await client.remove_job("k1") is None
    assert await rows(dsn, "select key from graphile_worker.jobs order by id") == [("k0",), ("k2",)]


async def test_remove_job_of_nothing(client: BackfillClient) -> None:
    """The error says how a job is named by its id."""
    for given in (None, 7):
        with pytest.raises(
            InvalidJobError, match=r"job_key = .*: a job's key, which is a string; id= takes a job's id"
        ):
            await client.remove_job(given)  # type: ignore[arg-type]


async def test_remove_job_while_it_runs(client: BackfillClient, dsn: str) -> None:
    """It runs to its end and never again: it loses key and attempts, and the row says who holds it."""
    first, _, _ = await three(client)
    await rows(dsn, HOLD, "1 hour", first.id)
    removed = await client.remove_job("k0")
    assert removed is not None
    assert (removed.id, removed.locked_by, removed.key, removed.attempts) == (first.id, "other", None, 8)
    assert await client.remove_job("k0") is None
    assert (await client.enqueue("t", {}, job_key="k0")).status is EnqueueStatus.ADDED


async def test_remove_job_that_was_abandoned(client: BackfillClient, dsn: str) -> None:
    """A lock of over four hours holds nothing."""
    first, second, third = await three(client)
    await rows(dsn, HOLD, "4 hours 1 minute", first.id)
    assert await client.remove_job("k0") is not None
    assert await rows(dsn, IDS) == [(second.id,), (third.id,)]


async def test_complete_jobs(client: BackfillClient, dsn: str) -> None:
    """They are deleted and given back in the order of their ids; absent ones, and doubles, are passed over."""
    first, second, third = await three(client)
    done = await client.complete_jobs([third, first.id, first.job, 999, third])
    assert [job.id for job in done] == [first.id, third.id]
    assert all(same(job, outcome) for job, outcome in zip(done, (first, third), strict=True))
    assert await rows(dsn, IDS) == [(second.id,)]
    assert await client.complete_jobs([first]) == []


async def test_fail_jobs(client: BackfillClient, dsn: str) -> None:
    """They keep their rows, are out of attempts, and say why."""
    first, second, third = await three(client)
    [failed] = await client.fail_jobs([first])
    assert same(failed, first)
    assert (failed.attempts, failed.max_attempts, failed.last_error) == (8, 8, "Manually marked as failed")
    reason = "because '\"\\\n\t\u00fc \U0001f40d"
    assert [job.last_error for job in await client.fail_jobs((second, third), reason)] == [reason] * 2
    assert await rows(dsn, "select count(*), bool_or(is_available) from graphile_worker._private_jobs") == [(3, False)]
    assert (await client.enqueue("t", {}, job_key="k0")).status is EnqueueStatus.ADDED


async def test_reschedule_jobs(client: BackfillClient, dsn: str) -> None:
    """What is given is set, what is not stays; the rows are given back as they are now."""
    first, second, third = await three(client)
    [job] = await client.reschedule_jobs([first], run_at=AT)
    assert same(job, first)
    assert (job.run_at, job.priority, job.attempts, job.max_attempts) == (AT, 0, 0, 8)
    [job] = await client.reschedule_jobs([first], priority=-7, attempts=2, max_attempts=5)
    assert (job.run_at, job.priority, job.attempts, job.max_attempts) == (AT, -7, 2, 5)
    await client.fail_jobs([second])
    [job] = await client.reschedule_jobs(iter([second]), attempts=0)
    assert (job.attempts, job.max_attempts) == (0, 8)
    assert await value(dsn, "select bool_and(is_available) from graphile_worker._private_jobs")
    before = await value(dsn, "select clock_timestamp()")
    [job] = await client.reschedule_jobs([third], delay=timedelta(days=400))
    assert before < job.run_at - timedelta(days=400) < await value(dsn, "select clock_timestamp()")
    [job] = await client.reschedule_jobs([third], delay=timedelta(0))
    assert before < job.run_at < await value(dsn, "select clock_timestamp()")
    [job] = await client.reschedule_jobs([third], priority=0)
    assert job.priority == 0


@pytest.mark.parametrize("verb", ["complete", "fail", "reschedule"])
async def test_what_a_worker_holds_is_passed_over(client: BackfillClient, dsn: str, verb: str) -> None:
    """Unless its lock is over four hours old."""
    first, second, third = await three(client)
    await rows(dsn, HOLD, "3 hours 59 minutes", first.id)
    await rows(dsn, HOLD, "4 hours 1 minute", second.id)
    before = await rows(dsn, "select * from graphile_worker._private_jobs where id = %s", first.id)
    jobs = [first, second, third]
    if verb == "complete":
        changed = await client.complete_jobs(jobs)
    elif verb == "fail":
        changed = await client.fail_jobs(jobs)
    else:
        changed = await client.reschedule_jobs(jobs, priority=3)
    assert [job.id for job in changed] == [second.id, third.id]
    assert await rows(dsn, "select * from graphile_worker._private_jobs where id = %s", first.id) == before


async def test_nothing_to_do_asks_nothing() -> None:
    """An empty list needs no connection."""
    assert await NOWHERE.complete_jobs([]) == []
    assert await NOWHERE.fail_jobs(iter(())) == []
    assert await NOWHERE.reschedule_jobs(set()) == []


async def test_many_at_once(client: BackfillClient, dsn: str) -> None:
    """Thousands of ids in one call are one statement."""
    ids = (await client.enqueue_bulk("t", ({} for _ in range(5000)), return_ids=True)).ids
    assert ids is not None
    assert len(await client.reschedule_jobs(ids, priority=5)) == 5000
    assert len(await client.fail_jobs(ids[:2500])) == 2500
    assert len(await client.complete_jobs(ids)) == 5000
    assert await value(dsn, "select count(*) from graphile_worker.jobs") == 0


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: NOWHERE.get_job("1"), "job"),  # type: ignore[arg-type]
        (lambda: NOWHERE.get_job(True), "job"),
        (lambda: NOWHERE.get_job(2**63), "job"),
        (lambda: NOWHERE.remove_job(""), "job_key"),
        (lambda: NOWHERE.remove_job(None), "job_key"),  # type: ignore[arg-type]
        (lambda: NOWHERE.remove_job("k" * 513), "job_key"),
        (lambda: NOWHERE.complete_jobs(7), "jobs"),  # type: ignore[arg-type]
        (lambda: NOWHERE.complete_jobs("12"), "jobs"),  # type: ignore[arg-type]
        (lambda: NOWHERE.complete_jobs({1: 2}), "jobs"),
        (lambda: NOWHERE.complete_jobs([1, None]), "jobs[1]"),  # type: ignore[list-item]
        (lambda: NOWHERE.fail_jobs([1.0]), "jobs[0]"),  # type: ignore[list-item]
        (lambda: NOWHERE.fail_jobs([1], ""), "reason"),
        (lambda: NOWHERE.fail_jobs([1], "a\0"), "reason"),
        (lambda: NOWHERE.fail_jobs([1], 5), "reason"),  # type: ignore[arg-type]
        (lambda: NOWHERE.reschedule_jobs([1], run_at=AT.replace(tzinfo=None)), "run_at"),
        (lambda: NOWHERE.reschedule_jobs([1], run_at=AT, delay=timedelta(1)), "delay"),
        (lambda: NOWHERE.reschedule_jobs([1], delay=timedelta(-1)), "delay"),
        (lambda: NOWHERE.reschedule_jobs([1], priority=40_000), "priority"),
        (lambda: NOWHERE.reschedule_jobs([1], attempts=-1), "attempts"),
        (lambda: NOWHERE.reschedule_jobs([1], max_attempts=0), "max_attempts"),
    ],
)
async def test_bad_input_is_named(call: Any, field: str) -> None:
    """Field and value are in the error, and no connection is asked for."""
    with pytest.raises(InvalidJobError) as caught:
        await call()
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field} = ")


async def test_a_name_that_is_made_meanwhile(client: BackfillClient, dsn: str) -> None:
    """Rows that another program adds between a statement's snapshot and its locks have their names too."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
        await other.execute("select graphile_worker.add_job('new task', queue_name => 'new queue', job_key => 'k')")
    removed = await client.remove_job("k")
    assert removed is not None
    assert (removed.task_identifier, removed.queue_name) == ("new task", "new queue")
