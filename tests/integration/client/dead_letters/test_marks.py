"""The flag by which a requeued job names its entry of the dead letters.

It is believed of that job alone, and harmless elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient, InvalidJobError, NewJob, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.jobs import JobSpec

from plugins.roles import NewRole
from reading import rows, value

DLQ = "graphile_worker.backfill_dlq"
ADD = "select id from graphile_worker.add_job('t', '2', max_attempts := 1, flags := %s)"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def _run(dsn: str, *failing: Any) -> None:
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(payload: Any) -> None:
        if payload in failing:
            raise ValueError(payload)

    await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()


async def _entry(dsn: str, client: BackfillClient) -> int:
    """An entry without a key, of a job with payload 1."""
    await client.enqueue("t", 1, max_attempts=1)
    await _run(dsn, 1)
    [entry] = (await client.list_dlq_jobs()).jobs
    return entry.id


@pytest.mark.parametrize("requeued", [False, True])
async def test_a_forged_mark_is_believed_by_nobody(dsn: str, client: BackfillClient, requeued: bool) -> None:
    """Whether its job fails for good or completes: the entry stays as it is, and the job is one like any other."""
    entry = await _entry(dsn, client)
    if requeued:
        await client.requeue_dlq_job(entry, delay=timedelta(hours=1))
    before = await rows(dsn, f"select * from {DLQ}")
    marks = [f"backfill.dead_letter:{entry}", "backfill.dead_letter:x:1", "backfill.dead_letter:", "kept"]
    for _ in range(11):
        await rows(dsn, ADD, marks)
    await _run(dsn, 2)
    assert await rows(dsn, f"select * from {DLQ} where id = {entry}") == before
    found = await rows(dsn, f"select payload, failure_count, flags from {DLQ} where id <> {entry}")
    assert found == [(2, 1, {"kept": True})] * 11
    await rows(dsn, ADD, marks)
    await _run(dsn)
    assert await rows(dsn, f"select * from {DLQ} where id = {entry}") == before


async def test_a_requeued_job_is_known_among_many_marks(dsn: str, client: BackfillClient) -> None:
    """One that failed with a stranger's mark in older versions, whose entry has kept that: it comes back, and goes."""
    entry = await _entry(dsn, client)
    await rows(dsn, f"""update {DLQ} set flags = '{{"backfill.dead_letter:99": true, "f": true}}'""")
    job = await client.requeue_dlq_job(entry)
    assert sorted(job.flags) == [f"backfill.dead_letter:{entry}", "f"]
    await rows(dsn, "update graphile_worker._private_jobs set max_attempts = 1")
    await _run(dsn, 1)
    assert await rows(dsn, f"select id, failure_count, flags from {DLQ}") == [(entry, 2, {"f": True})]
    await client.requeue_dlq_job(entry)
    await _run(dsn)
    assert await value(dsn, f"select count(*) from {DLQ}") == 0


async def test_flags_of_a_requeued_job_can_be_copied(dsn: str, client: BackfillClient) -> None:
    """By a handler that adds a job like its own, singly and in bulk, and in plain SQL.

    The entry goes with its own job.
    """
    entry = await _entry(dsn, client)
    await rows(dsn, f"""update {DLQ} set flags = '{{"f": true, "backfill.timeout:30s": true}}'""")
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t")
    async def handler(payload: Any, ctx: WorkerContext[None]) -> None:
        assert f"backfill.dead_letter:{entry}" in ctx.job.flags
        await ctx.client.enqueue("copied", 1, flags=ctx.job.flags)
        await ctx.client.enqueue("copied", 2, flags=set(ctx.job.flags))
        await ctx.client.enqueue_bulk([NewJob("copied", 3, JobSpec(flags=ctx.job.flags))])
        await rows(dsn, "select graphile_worker.add_job('copied', '4', flags := %s)", list(ctx.job.flags))

    await client.requeue_dlq_job(entry)
    await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    assert await value(dsn, f"select count(*) from {DLQ}") == 0
    copied = await rows(dsn, "select payload, flags from graphile_worker._private_jobs order by payload::text")
    plain = {"f": True, "backfill.timeout:30s": True}
    assert copied[:3] == [(number, plain) for number in (1, 2, 3)]
    assert copied[3] == (4, {**plain, f"backfill.dead_letter:{entry}": True})


@pytest.mark.parametrize("flag", ["backfill.dead_letter:1", "backfill.cancel", "backfill.retry", "backfill."])
async def test_flags_of_ours_are_refused(dsn: str, role: NewRole, flag: str) -> None:
    """By the client, which names the flag and the way out, and by the functions for producers."""
    async with BackfillClient(dsn) as client:
        for call in (client.enqueue("t", flags=["f", flag]), client.enqueue_bulk("t", [1], flags={flag})):
            with pytest.raises(InvalidJobError, match=f"flags = '{flag}': leave it out.*backfill.timeout:"):
                await call
    theirs = role("producer")
    keyless = """select graphile_worker.backfill_add_keyless_jobs(
        '{t}', '{null}', '{1}', '{0}', '{now}', '{1}', array[array[%s]::text])"""
    keyed = """select graphile_worker.backfill_add_keyed_jobs(
        '{t}', '{null}', '{1}', '{0}', '{now}', '{1}', array[array[%s]::text], '{k}', 'replace')"""
    for statement in ("select graphile_worker.backfill_add_job('t', flags => array['f', %s])", keyless, keyed):
        with pytest.raises(psycopg.errors.ReservedName, match=flag):
            await rows(theirs, statement, flag)
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 0


async def test_documented_flags_are_allowed(dsn: str, role: NewRole) -> None:
    """A policy, a timeout and a deadline, as SQL says them; other names are the caller's."""
    flags = ["backfill.retry:fast", "backfill.timeout:30s", "backfill.deadline:2040-01-01T00:00:00+00:00", "backfilled"]
    for theirs in (dsn, role("producer")):
        async with BackfillClient(theirs) as client:
            await client.enqueue("t", flags=flags)
        await rows(theirs, "select graphile_worker.backfill_add_job('t', flags => %s)", flags)
    found = await rows(dsn, "select distinct flags from graphile_worker._private_jobs")
    assert found == [(dict.fromkeys(flags, True),)]
