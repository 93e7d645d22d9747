"""Cancelling jobs by a client: what waits is removed, what runs is marked, what is not ours is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import (
    BackfillClient,
    CancelCounts,
    CancelOutcome,
    CancelStatus,
    EndHow,
    InvalidJobError,
    JobCancelledError,
    JobFilter,
    JobKeyMode,
    JobState,
    NewJob,
    Queue,
    TaskRegistry,
)

from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.leaves_rows
JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
OURS = "backfill_0123456789abcdef00"
HOLD: LiteralString = f"""
    update {JOBS} set locked_by = %s, locked_at = now(), updated_at = now(), attempts = attempts + 1 where id = %s"""
FLAG: LiteralString = f"select flags -> 'backfill.cancel' from {JOBS} where id = %s"
HOUR = timedelta(hours=1)
tasks: TaskRegistry[None] = TaskRegistry()


@tasks.task("kept", keep=HOUR)
async def kept() -> None:
    """Its ends are kept."""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def held(dsn: str, client: BackfillClient, by: str = OURS, **how: Any) -> int:
    """A job that somebody holds."""
    job = await client.enqueue("t", **how)
    await rows(dsn, HOLD, by, job.id)
    return job.id


async def test_a_waiting_job_is_removed_and_whoever_awaits_it_is_told(dsn: str, client: BackfillClient) -> None:
    """Its end says so, with the reason, and is kept for ten minutes, since nobody knows its task."""
    job = await client.enqueue("t", job_key="k")
    outcome = await client.cancel(job.id, reason="not needed")
    assert outcome == CancelOutcome(job.id, CancelStatus.REMOVED, None, "not needed")
    assert outcome.accepted
    assert await client.get_job(job.id) is None
    with pytest.raises(JobCancelledError, match="not needed") as raised:
        await client.result(job.id, timeout=10)
    assert raised.value.reason == "not needed"
    end = raised.value.end
    assert (end.how, end.task_identifier, end.job_key, end.attempts) == (EndHow.CANCELLED, "t", "k", 0)
    assert end.expires_at is not None
    assert timedelta(minutes=9) < end.expires_at - datetime.now(UTC) < timedelta(minutes=11)


async def test_the_end_is_kept_as_the_task_of_an_outcome_says(client: BackfillClient) -> None:
    """A client that is given the outcome of a task's enqueue knows how long."""
    job = await client.enqueue(kept.job())
    assert (await client.cancel(job)).status is CancelStatus.REMOVED
    end = await client.end(job)
    assert end is not None
    assert end.expires_at is not None
    assert end.error is None
    assert timedelta(minutes=50) < end.expires_at - datetime.now(UTC) < timedelta(minutes=61)


async def test_a_running_job_is_marked_and_the_first_reason_stays(dsn: str, client: BackfillClient) -> None:
    """The mark is a flag; updated_at stays, since it tells superseded jobs; asking twice does no harm."""
    job = await held(dsn, client, flags=["mine"])
    before = await value(dsn, f"select updated_at from {JOBS} where id = %s", job)
    first = await client.cancel(job, reason="first")
    again = await client.cancel(job, reason="second")
    assert first == again == CancelOutcome(job, CancelStatus.REQUESTED, OURS, "first")
    flag = await value(dsn, FLAG, job)
    assert flag["reason"] == "first"
    assert flag["by"] == await value(dsn, "select session_user::text")
    assert datetime.fromisoformat(flag["at"]).tzinfo is not None
    assert await value(dsn, f"select updated_at from {JOBS} where id = %s", job) == before
    found = await client.get_job(job)
    assert found is not None
    assert set(found.flags) == {"mine", "backfill.cancel"}
    assert (await client.enqueue("t", flags=found.flags)).job.flags == ("mine",)


async def test_what_is_over_or_not_ours_is_said_and_left_alone(dsn: str, client: BackfillClient) -> None:
    """Node and the Rust crate hold jobs under other names; a job that has failed for good waits for the sweeper."""
    theirs = await held(dsn, client, by="worker-0123")
    nobodys = await client.enqueue("t")
    await rows(dsn, f"update {JOBS} set locked_at = now() where id = %s", nobodys.id)
    failed = await client.enqueue("t")
    await client.fail_jobs([failed])
    before = await rows(dsn, f"select * from {JOBS} order by id")
    assert await client.cancel(theirs) == CancelOutcome(theirs, CancelStatus.FOREIGN, "worker-0123")
    assert await client.cancel(nobodys) == CancelOutcome(nobodys.id, CancelStatus.FOREIGN)
    for gone in (failed.id, 2**40, -1):
        assert await client.cancel(gone) == CancelOutcome(gone, CancelStatus.NOT_FOUND)
    assert await rows(dsn, f"select * from {JOBS} order by id") == before
    assert not (await client.cancel(theirs)).accepted


async def test_bad_input_is_refused(client: BackfillClient) -> None:
    """By the names of what was given."""
    with pytest.raises(InvalidJobError, match="job = "):
        await client.cancel("k")  # type: ignore[arg-type]
    with pytest.raises(InvalidJobError, match="reason"):
        await client.cancel(1, reason="r" * 1001)
    with pytest.raises(InvalidJobError, match="everything=True"):
        await client.cancel_jobs(JobFilter())
    with pytest.raises(InvalidJobError, match="everything=True"):
        await client.cancel_jobs(JobFilter(limit=5))
    with pytest.raises(InvalidJobError, match="a JobFilter"):
        await client.cancel_jobs({})  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", list(JobKeyMode))
async def test_a_job_added_under_the_key_of_a_cancelled_one_is_a_new_job(
    dsn: str, client: BackfillClient, mode: JobKeyMode
) -> None:
    """It is not cancelled, whatever the mode: the running job has lost its key."""
    job = await held(dsn, client, job_key="k")
    await client.cancel(job)
    new = await client.enqueue("t", job_key="k", job_key_mode=mode)
    assert new.status == "added"
    assert new.id != job
    assert await value(dsn, f"select flags from {JOBS} where id = %s", new.id) is None


async def test_with_the_callers_transaction(dsn: str, client: BackfillClient) -> None:
    """A cancellation that is rolled back has not happened."""
    job, running = await client.enqueue("t"), await held(dsn, client)
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        assert (await client.cancel(job, connection=connection)).status is CancelStatus.REMOVED
        assert (await client.cancel(running, connection=connection)).status is CancelStatus.REQUESTED
        await connection.rollback()
        assert await client.get_job(job) is not None
        assert await value(dsn, FLAG, running) is None
        await client.cancel(job, connection=connection)
        await connection.commit()
    assert await client.get_job(job) is None


async def test_a_removed_job_leaves_no_queue_held(dsn: str, client: BackfillClient) -> None:
    """A queue that is held for the job's retry is freed with it."""
    job = await client.enqueue("t", queue=Queue.serial("q", block_on_retry=True))
    queue = await value(dsn, f"select job_queue_id from {JOBS} where id = %s", job.id)
    hold: LiteralString = f"""
        update {QUEUES} set locked_at = now(), locked_by = graphile_worker.backfill_hold_queue(id, %s) where id = %s"""
    await rows(dsn, hold, job.id, queue)
    await client.cancel(job)
    assert await rows(dsn, f"select queue_name from {QUEUES} where locked_at is not null") == []


async def test_rows_of_control_do_not_grow(dsn: str, client: BackfillClient) -> None:
    """Each request replaces the row of the one before; one whose transaction is open keeps nobody waiting."""
    jobs = [await held(dsn, client) for _ in range(6)]
    for job in jobs[:3]:
        await client.cancel(job)
    assert await value(dsn, "select count(*) from graphile_worker.backfill_control") == 1
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await client.cancel(jobs[3], connection=connection)
        await client.cancel(jobs[4])
        await connection.commit()
    await client.cancel(jobs[5])
    assert await value(dsn, "select count(*) from graphile_worker.backfill_control") == 1


async def test_a_producer_cancels_by_id_and_not_by_a_filter(dsn: str, client: BackfillClient, role: NewRole) -> None:
    """As it may remove what waits and end what runs by its key; who asked is the role that has logged in."""
    waits, runs = await client.enqueue(kept.job()), await held(dsn, client)
    async with BackfillClient(role("producer")) as producer:
        assert (await producer.cancel(waits, reason="mine")).status is CancelStatus.REMOVED
        assert (await producer.cancel(runs)).status is CancelStatus.REQUESTED
        with pytest.raises(JobCancelledError, match="mine"):
            await producer.result(waits, timeout=10)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await producer.cancel_jobs(JobFilter(tasks="t"))
    assert (await value(dsn, FLAG, runs))["by"].startswith("backfill_")


async def test_a_workers_role_cancels_both_ways(dsn: str, client: BackfillClient, role: NewRole) -> None:
    """It may do all that a producer may."""
    one, two = await client.enqueue("t"), await held(dsn, client)
    async with BackfillClient(role("worker")) as worker:
        assert (await worker.cancel(one)).status is CancelStatus.REMOVED
        assert await worker.cancel_jobs(JobFilter(tasks="t")) == CancelCounts(requested=1)
    assert await value(dsn, FLAG, two) is not None


async def test_many_in_batches(dsn: str, client: BackfillClient) -> None:
    """More than a batch, running ones and foreign ones among them, and a limit."""
    await client.enqueue_bulk(NewJob("t", {}) for _ in range(1200))
    await client.enqueue_bulk(NewJob("other", {}) for _ in range(3))
    await rows(dsn, f"update {JOBS} set locked_at = now(), locked_by = %s where id %% 100 = 0", OURS)
    await rows(dsn, f"update {JOBS} set locked_at = now(), locked_by = 'worker-1' where id % 100 = 50")
    assert await client.cancel_jobs(JobFilter(tasks="t", limit=7, state=JobState.WAITING)) == CancelCounts(removed=7)
    done = await client.cancel_jobs(JobFilter(tasks="t"), reason="all of them")
    assert done == CancelCounts(removed=1200 - 7 - 24, requested=12, foreign=12)
    assert await value(dsn, f"select count(*) from {JOBS}") == 27
    assert await client.cancel_jobs(JobFilter(tasks="t"), reason="again") == CancelCounts(requested=12, foreign=12)
    everything = await client.cancel_jobs(JobFilter(), everything=True)
    assert everything == CancelCounts(removed=3, requested=12, foreign=12)


async def test_each_part_of_a_filter(dsn: str, client: BackfillClient) -> None:
    """It takes those that match and no others."""
    soon, late = datetime.now(UTC) + HOUR, datetime.now(UTC) + 3 * HOUR
    made = {
        "key": await client.enqueue("a.key", job_key="user:1"),
        "queue": await client.enqueue("a.queue", queue=Queue.serial("user:1")),
        "urgent": await client.enqueue("b.urgent", priority=-10),
        "soon": await client.enqueue("b.soon", run_at=soon),
        "late": await client.enqueue("b.late", run_at=late),
        "flag": await client.enqueue("b_flag", flags=["f", "g"]),
        "failed": await client.enqueue("c"),
    }
    await client.fail_jobs([made["failed"]])
    await rows(dsn, f"update {JOBS} set created_at = now() - interval '2 days' where id = %s", made["flag"].id)
    names = {job.id: name for name, job in made.items()}

    async def matching(filter: JobFilter) -> set[str]:
        """What it would take."""
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await client.cancel_jobs(filter, connection=connection)
            cursor = await connection.execute(f"select id from {JOBS}")
            left = {names[row[0]] for row in await cursor.fetchall()}
            await connection.rollback()
        return set(made) - left

    assert await matching(JobFilter(tasks="a.*")) == {"key", "queue"}
    assert await matching(JobFilter(tasks=["b.s*", "b_fla?"])) == {"soon", "flag"}
    assert await matching(JobFilter(queues="user:*")) == {"queue"}
    assert await matching(JobFilter(queues="", tasks="a.*")) == {"key"}
    assert await matching(JobFilter(queues=["", "user:1"], tasks="a.*")) == {"key", "queue"}
    assert await matching(JobFilter(key_prefix="user:")) == {"key"}
    assert await matching(JobFilter(priority=-10)) == {"urgent"}
    assert await matching(JobFilter(priority=range(-20, 0))) == {"urgent"}
    assert await matching(JobFilter(run_at_from=soon)) == {"soon", "late"}
    assert await matching(JobFilter(run_at_from=soon, run_at_until=soon)) == {"soon"}
    assert await matching(JobFilter(run_at_until=soon, tasks="b.*")) == {"urgent", "soon"}
    assert await matching(JobFilter(flags=["nobody", "g"])) == {"flag"}
    assert await matching(JobFilter(older_than=timedelta(days=1))) == {"flag"}
    assert await matching(JobFilter(ids=[made["key"].id, made["late"].id, 2**50])) == {"key", "late"}
    assert await matching(JobFilter(ids=[])) == set()
    assert await matching(JobFilter(state=JobState.WAITING)) == set(made) - {"failed"}
    assert await matching(JobFilter(state=JobState.RUNNING)) == set()
    assert await matching(JobFilter(state=JobState.FAILED)) == set()


async def test_a_job_that_changes_meanwhile_is_judged_as_it_is_then(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Whether it matches is decided once its row is held: one that was claimed is not taken for a waiting one."""
    job = await client.enqueue("t")
    async with await psycopg.AsyncConnection.connect(dsn) as claimer, BackfillClient(dsn) as other:
        await claimer.execute(HOLD, [OURS, job.id])
        cancelling = asyncio.ensure_future(other.cancel_jobs(JobFilter(tasks="t", state=JobState.WAITING)))
        await eventually(lambda: value(dsn, "select exists (select from pg_locks where not granted)"))
        await claimer.commit()
        assert await cancelling == CancelCounts()
    assert await value(dsn, FLAG, job.id) is None


async def test_a_partition_that_is_made_meanwhile_holds_nothing_up(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """The end of the job goes into it, or into the default one; no error is raised."""
    job = await client.enqueue("t")
    await client.cancel(await client.enqueue("t"))  # so that the session knows the partitions as they are
    async with await psycopg.AsyncConnection.connect(dsn) as maker:
        await maker.execute("select graphile_worker.backfill_make_ends(array[now()::date, now()::date + 1])")
        cancelling = asyncio.ensure_future(client.cancel(job))
        await eventually(lambda: value(dsn, "select exists (select from pg_locks where not granted)"))
        await maker.commit()
        assert (await cancelling).status is CancelStatus.REMOVED
    end = await client.end(job)
    assert end is not None
    assert end.how is EndHow.CANCELLED
