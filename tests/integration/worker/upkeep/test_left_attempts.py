"""Attempts of jobs that are gone: nobody is shown them, and workers delete them a little at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from backfill import BackfillClient, Snooze, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.client.lent import ServicesClient
from backfill.client.verbs.attempts import FRONT, PAGE, Place
from backfill.storage.schema.steps import migrations
from backfill.storage.statements import render_text
from backfill.worker.upkeep.left_attempts import LeftAttempts

from plugins.roles import NewRole
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
KEPT = "select count(*) from graphile_worker.backfill_attempts"
FAIL: LiteralString = """
    insert into graphile_worker.backfill_attempts (job_id, attempt, how)
    select id, n, 'failed' from unnest(%s::bigint[]) as id, generate_series(1, %s) as n"""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client."""
    async with ServicesClient(dsn) as one:
        yield one


async def test_only_those_of_jobs_that_are_gone_are_deleted(dsn: str, client: ServicesClient) -> None:
    """Other programs and SQL delete jobs, and so do this client's verbs."""
    ids = [(await client.enqueue("t", number, job_key=f"k{number}")).id for number in range(4)]
    await rows(dsn, FAIL, ids, 3)
    await rows(dsn, "select graphile_worker.complete_jobs(%s)", ids[:1])
    await rows(dsn, f"delete from {JOBS} where id = %s", ids[1])
    await client.remove_job("k2")
    assert [len(await client.attempts(number)) for number in ids] == [0, 0, 0, 3]
    assert await value(dsn, KEPT) == 12
    done = await client.sweep_attempts(FRONT)
    assert (done.seen, done.deleted) == (12, 9)
    assert await value(dsn, KEPT) == 3
    assert (await client.sweep_attempts(done.place)).seen == 0


async def test_more_than_twenty_of_a_job_are_too_many(dsn: str, client: ServicesClient) -> None:
    """Where somebody lowers a job's number of attempts after each failure, its attempts do not grow without end."""
    one, two = [(await client.enqueue("t", number)).id for number in range(2)]
    await rows(dsn, FAIL, [one, two], 30)
    before = await client.attempts(one)
    assert [record.attempt for record in before] == list(range(11, 31))
    assert (await client.sweep_attempts(FRONT)).deleted == 20
    assert await client.attempts(one) == before
    assert await value(dsn, KEPT) == 40


async def test_a_round_goes_on_where_the_one_before_stopped(dsn: str, client: ServicesClient) -> None:
    """It looks at two pages, and at more as long as it finds much to delete; in the end all are looked at."""
    living = [(await client.enqueue("t", number)).id for number in range(300)]
    await rows(dsn, FAIL, living, 20)
    gone = list(range(10_000, 20_000))
    await rows(dsn, FAIL, gone, 2)
    service = LeftAttempts(client, worker=lambda: "nobody")
    service._place = FRONT
    await service.tend()
    last = "select max(id) from graphile_worker.backfill_attempts where job_id = %s"
    assert service._place == Place(living[99], await value(dsn, last, living[99]))
    assert await value(dsn, KEPT) == 26_000
    for left in (26_000, 26_000, 6_000):
        service._rounds_taken = 0  # as if it was the first worker
        await service.tend()
        assert await value(dsn, KEPT) == left
    assert 2 * PAGE == 2_000


async def test_a_drain_deletes_those_of_a_job_that_was_put_off_and_is_done(dsn: str) -> None:
    """The settlement does not know of them, since the job completes in its first attempt."""
    tasks = TaskRegistry[None]()
    left: list[Any] = [Snooze(timedelta(hours=1))]

    @tasks.task("t")
    async def second() -> None:
        while left:
            raise left.pop()

    async with BackfillClient(dsn) as client:
        job = await client.enqueue(second)
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        assert len(await client.attempts(job)) == 1
        await rows(dsn, f"update {JOBS} set run_at = now()")
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        assert await client.attempts(job) == []
    assert await value(dsn, KEPT) == 0


async def test_roles_with_older_grants_may_use_the_table_after_the_migration(dsn: str, role: NewRole) -> None:
    """A worker whose role has the grants of the version before records attempts, and sweeps, without new grants."""
    tasks = TaskRegistry[None]()

    @tasks.task("t")
    async def fail() -> None:
        raise ValueError("no")

    worker = role("worker")
    name = conninfo_to_dict(worker)["user"]
    await rows(dsn, cast("LiteralString", f"drop policy backfill_worker_{name} on graphile_worker.backfill_attempts"))
    await rows(dsn, cast("LiteralString", f"revoke all on graphile_worker.backfill_attempts from {name}"))
    async with ServicesClient(worker) as client:
        await LeftAttempts(client, worker=lambda: "nobody").tend()  # which complains of nothing, and deletes nothing
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await client.attempts(1)
        [rights] = [one for one in migrations() if one.name == "attempt_rights"]
        await rows(dsn, render_text(rights.text, "graphile_worker"))
        job = await client.enqueue(fail)
        await WorkerRunner(WorkerConfig(worker), tasks).process_available_jobs()
        assert [record.message for record in await client.attempts(job)] == ["no"]
        await rows(dsn, f"delete from {JOBS}")
        await LeftAttempts(client, worker=lambda: "nobody").tend()
    assert await value(dsn, KEPT) == 0
