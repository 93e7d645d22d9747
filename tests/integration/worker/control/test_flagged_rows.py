"""Rows of cancelled jobs whose workers die, lose answers or know nothing of it: each ends, and none runs again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import LiteralString

import pytest

from backfill import BackfillClient, CancelStatus, EndHow, JobEnd, Queue, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.client.lent import ServicesClient
from backfill.storage.attempts import Attempt, give_back_strays, renew
from backfill.storage.claims import LaneClaim, LaneFilter
from backfill.storage.connection import connect
from backfill.storage.recovery import Next
from backfill.storage.wire import Wire
from backfill.storage.workers import find_tasks

from reading import rows, value

SCHEMA = "graphile_worker"
JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
DEAD = "backfill_0123456789abcdef00"
CLAIM = LaneClaim(SCHEMA, (LaneFilter(tasks=("t",)),))
HOUR = timedelta(hours=1)
LEFT: LiteralString = f"""
    select (select count(*) from {JOBS}), (select count(*) from graphile_worker.backfill_dlq),
      (select count(*) from {QUEUES} where locked_at is not null)"""
NOTHING = [(0, 0, 0)]
NODE_FAILS: LiteralString = f"update {JOBS} set locked_by = null, locked_at = null, last_error = 'no' where id = %s"
"""What Node's fail_job does to a row."""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def cancelled_and_held(dsn: str, client: BackfillClient) -> Attempt:
    """A serial job with a key that a worker has claimed, and that was cancelled since."""
    job = await client.enqueue("t", job_key="k", queue=Queue.serial("q", block_on_retry=True))
    async with await connect(dsn) as connection:
        ids = await find_tasks(connection, ["t"], schema=SCHEMA)
        [claimed] = await CLAIM.take(Wire(connection), worker=DEAD, wanted=1, task_ids=ids)
    assert (await client.cancel(job, reason="why")).status is CancelStatus.REQUESTED
    return Attempt(claimed)


async def end_of(client: BackfillClient, attempt: Attempt) -> JobEnd:
    """The end of a cancelled job."""
    end = await client.end(attempt.job.id)
    assert end is not None
    assert (end.how, end.error, end.job_key, end.queue_name) == (EndHow.CANCELLED, "why", "k", "q")
    assert end.max_attempts == attempt.job.max_attempts
    return end


@pytest.mark.parametrize("keep", [None, 3600.0])
async def test_recovery_ends_it(dsn: str, client: BackfillClient, keep: float | None) -> None:
    """Neither is it a dead letter nor does it wait again; its end is kept as its task says, where that is known."""
    attempt = await cancelled_and_held(dsn, client)
    [done] = await client.recover_abandoned(gone_for=timedelta(0), next_of=lambda _: Next(keep=keep))
    assert (done.jobs, done.dead_letters, done.superseded) == (1, 0, 0)
    end = await end_of(client, attempt)
    assert end.expires_at is not None
    assert end.ended_at is not None
    assert end.expires_at - end.ended_at == (HOUR if keep else timedelta(minutes=10))
    assert await rows(dsn, LEFT) == NOTHING


async def test_a_claim_whose_answer_was_lost_is_not_given_back(dsn: str, client: BackfillClient) -> None:
    """The worker ends what it had locked without knowing."""
    attempt = await cancelled_and_held(dsn, client)
    async with await connect(dsn) as connection:
        returned = await give_back_strays(connection, schema=SCHEMA, worker=DEAD, held=[])
    assert returned == ([], [attempt.job.id])
    await end_of(client, attempt)
    assert await rows(dsn, LEFT) == NOTHING


async def test_its_lock_is_renewed_while_its_handler_cleans_up(dsn: str, client: BackfillClient) -> None:
    """Although it has lost its key: it is no superseded job."""
    attempt = await cancelled_and_held(dsn, client)
    before = attempt.locked_at
    async with await connect(dsn) as connection:
        assert await renew(Wire(connection), [attempt], schema=SCHEMA, worker=DEAD) == []
    assert before is not None
    assert attempt.locked_at is not None
    assert attempt.locked_at > before
    await client.recover_abandoned(gone_for=timedelta(0))
    await end_of(client, attempt)


async def test_a_program_that_unlocks_it_cannot_run_it_again(dsn: str, client: BackfillClient) -> None:
    """It has no attempt left, so that no program claims it; the sweep ends it as cancelled."""
    attempt = await cancelled_and_held(dsn, client)
    await rows(dsn, NODE_FAILS, attempt.job.id)
    await rows(dsn, f"update {QUEUES} set locked_by = null, locked_at = null")
    assert await value(dsn, f"select is_available from {JOBS} where id = %s", attempt.job.id) is False
    assert (await client.get_job(attempt.job.id)) is not None
    await client.process_failed_jobs()
    await end_of(client, attempt)
    assert await rows(dsn, LEFT) == NOTHING


async def test_a_second_request_removes_what_was_unlocked_meanwhile(dsn: str, client: BackfillClient) -> None:
    """The first reason counts."""
    attempt = await cancelled_and_held(dsn, client)
    await rows(dsn, NODE_FAILS, attempt.job.id)
    await rows(dsn, f"update {QUEUES} set locked_by = null, locked_at = null")
    outcome = await client.cancel(attempt.job.id, reason="another")
    assert (outcome.status, outcome.reason) == (CancelStatus.REMOVED, "why")
    await end_of(client, attempt)
    assert await rows(dsn, LEFT) == NOTHING


async def test_an_end_that_the_database_refuses_holds_nothing_up(dsn: str, client: BackfillClient) -> None:
    """The job is gone all the same."""
    attempt = await cancelled_and_held(dsn, client)
    waiting = await client.enqueue("t")
    await rows(
        dsn, "alter table graphile_worker.backfill_ends add constraint none_cancelled check (how <> 'cancelled')"
    )
    assert (await client.cancel(waiting)).status is CancelStatus.REMOVED
    await client.recover_abandoned(gone_for=timedelta(0))
    assert await client.end(attempt.job.id) is None
    assert await rows(dsn, LEFT) == NOTHING


async def test_a_worker_of_the_version_before_buries_no_cancelled_job(dsn: str, client: BackfillClient) -> None:
    """It calls the same function as ever where the last attempt of a job fails, which makes no dead letter of it."""
    attempt = await cancelled_and_held(dsn, client)
    bury: LiteralString = f"""
        select graphile_worker.backfill_bury(
          id, 't', 'q', payload, priority, key, attempts, max_attempts, {{}}, created_at, run_at, 'no', 'all failed'
        ) from {JOBS} where id = %s"""
    assert await value(dsn, bury.format("flags"), attempt.job.id) is None
    assert await value(dsn, "select count(*) from graphile_worker.backfill_dlq") == 0
    assert await value(dsn, bury.format("null"), attempt.job.id) is not None
    await client.recover_abandoned(gone_for=timedelta(0))


async def test_the_look_finds_only_this_workers_jobs(dsn: str, client: BackfillClient) -> None:
    """And says the database's time, also where it finds none."""
    attempt = await cancelled_and_held(dsn, client)
    async with ServicesClient(dsn) as own:
        found = await own.find_cancelled(DEAD, [attempt.job.id, 2**40])
        assert [(number, one.reason) for number, one in found.jobs.items()] == [(attempt.job.id, "why")]
        assert attempt.locked_at is not None
        assert found.looked_at > attempt.locked_at
        others = await own.find_cancelled("backfill_other", [attempt.job.id])
        assert others.jobs == {}
        assert others.looked_at > found.looked_at
    await client.recover_abandoned(gone_for=timedelta(0))


async def test_a_queue_goes_on_after_a_cancelled_job(dsn: str, client: BackfillClient) -> None:
    """The next job of the serial queue runs."""
    attempt = await cancelled_and_held(dsn, client)
    await client.enqueue("t", queue=Queue.serial("q"))
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = []

    @tasks.task("t")
    async def t() -> None:
        ran.append(1)

    await client.recover_abandoned(gone_for=timedelta(0))
    await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    assert ran == [1]
    await end_of(client, attempt)
    assert await rows(dsn, LEFT) == NOTHING
