"""The client's verb that reads progress, by whom it may be read, and the statements by which workers write it."""

from __future__ import annotations

from typing import Any, LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from backfill import BackfillClient, InvalidJobError, Progress
from backfill.client.lent import ServicesClient
from backfill.client.verbs.progress import FRONT
from backfill.progress import Step
from backfill.records import PROGRESS_FLAG
from backfill.storage.attempts import Attempt
from backfill.storage.grants import Duty
from backfill.storage.progress import Entry
from backfill.storage.schema.steps import migrations
from backfill.storage.statements import render_text
from backfill.worker.upkeep.left_attempts import LeftAttempts

from plugins.roles import NewRole
from reading import rows

JOBS = "graphile_worker._private_jobs"
KEPT = "select count(*) from graphile_worker.backfill_progress"
LOCK = f"update {JOBS} set locked_by = %s, locked_at = now(), attempts = 1 where id = any(%s)"
ONE, OTHER = "one", "other"


async def held(client: BackfillClient, dsn: str, worker: str, *ids: int) -> list[Attempt]:
    """Have a worker hold these jobs; gives its attempts."""
    await rows(dsn, LOCK, worker, list(ids))
    jobs = [await client.get_job(number) for number in ids]
    return [Attempt(job) for job in jobs if job is not None]


def word(attempt: Attempt, done: float, checkpoint: bytes = b"1") -> Entry:
    """What an attempt has said."""
    return Entry(attempt, Step(done, 10, "a note"), stepped=True, checkpoint=checkpoint, saved=True)


async def test_many_jobs_are_read_at_once(dsn: str) -> None:
    """A list gives those of which something is known, whatever stands for a job; one job gives one or None."""
    async with ServicesClient(dsn) as client:
        jobs = [await client.enqueue("t", number) for number in range(4)]
        attempts = await held(client, dsn, ONE, *(job.id for job in jobs[:3]))
        written = await client.write_progress(
            ONE, [word(one, done) for one, done in zip(attempts, (1, 2.5, 0), strict=True)]
        )
        assert written == {job.id for job in jobs[:3]}
        row = await client.get_job(jobs[1])
        found = await client.progress([jobs[0], cast("Any", row), jobs[2].id, jobs[3], 10**12])
        assert {number: one.done for number, one in found.items()} == {jobs[0].id: 1, jobs[1].id: 2.5, jobs[2].id: 0}
        assert isinstance(found[jobs[0].id].done, int)
        assert found[jobs[2].id].fraction == 0
        assert await client.progress(jobs[3]) is None
        assert await client.progress([]) == {}
        many = await client.progress(range(-3_000, 3_000))
        assert len(many) == 3


@pytest.mark.parametrize(
    ("given", "field"),
    [("5", "job"), (b"5", "job"), (True, "job"), (1.5, "job"), ([1, "2"], "jobs[1]"), ([None], "jobs[0]")],
)
async def test_what_is_no_job_is_refused(dsn: str, given: Any, field: str) -> None:
    """The error names the place in a list."""
    async with BackfillClient(dsn) as client:
        with pytest.raises(InvalidJobError) as error:
            await client.progress(given)
    assert error.value.field == field


async def test_a_worker_that_was_given_up_writes_nothing(dsn: str) -> None:
    """Its lock is another worker's now, or its own of a later attempt; the newer word stays."""
    async with ServicesClient(dsn) as client:
        job = await client.enqueue("t")
        [old] = await held(client, dsn, ONE, job.id)
        assert await client.write_progress(ONE, [word(old, 1)]) == {job.id}
        [new] = await held(client, dsn, OTHER, job.id)
        assert await client.write_progress(OTHER, [word(new, 2, b"2")]) == {job.id}
        assert await client.write_progress(ONE, [word(old, 3, b"3")]) == set()
        found = await client.progress(job)
        assert found is not None
        assert (found.done, found.checkpoint) == (2, 2)
        [again] = await held(client, dsn, ONE, job.id)
        assert await client.write_progress(ONE, [word(old, 3, b"3")]) == set()
        assert await client.write_progress(ONE, [word(again, 4)]) == {job.id}


async def test_a_row_that_somebody_holds_is_passed_over(dsn: str) -> None:
    """The statement waits for nobody, and writes the others."""
    async with (
        ServicesClient(dsn) as client,
        await psycopg.AsyncConnection.connect(dsn) as other,
    ):
        jobs = [await client.enqueue("t", number) for number in range(2)]
        attempts = await held(client, dsn, ONE, *(job.id for job in jobs))
        await other.execute(f"select from {JOBS} where id = %s for update", [jobs[0].id])
        assert await client.write_progress(ONE, [word(one, 1) for one in attempts]) == {jobs[1].id}
        await other.rollback()
        assert await client.write_progress(ONE, [word(one, 1) for one in attempts]) == {job.id for job in jobs}


async def test_a_held_row_of_progress_holds_up_nobody_for_long(dsn: str) -> None:
    """The statement gives up after a quarter of a second, so that settlements hardly wait behind it."""
    async with ServicesClient(dsn) as client, await psycopg.AsyncConnection.connect(dsn) as other:
        job = await client.enqueue("t")
        [attempt] = await held(client, dsn, ONE, job.id)
        await client.write_progress(ONE, [word(attempt, 1)])
        await other.execute("select from graphile_worker.backfill_progress for update")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await client.write_progress(ONE, [word(attempt, 2)])
        await other.rollback()
        assert await client.write_progress(ONE, [word(attempt, 2)]) == {job.id}


async def test_the_job_is_marked_and_else_as_it_was(dsn: str) -> None:
    """Its other flags stay, and `updated_at` too, by which others see which jobs were replaced."""
    async with ServicesClient(dsn) as client:
        job = await client.enqueue("t", flags=["mine"])
        [attempt] = await held(client, dsn, ONE, job.id)
        before = await client.get_job(job)
        await client.write_progress(ONE, [word(attempt, 1)])
        after = await client.get_job(job)
    assert before is not None
    assert after is not None
    assert set(after.flags) == {"mine", PROGRESS_FLAG}
    assert (after.updated_at, after.locked_at, after.attempts) == (before.updated_at, before.locked_at, before.attempts)
    async with BackfillClient(dsn) as client:
        copied = await client.get_job((await client.enqueue("t", flags=after.flags)).id)
    assert copied is not None
    assert copied.flags == ("mine",)  # the mark says something about the first job only


async def test_that_of_jobs_that_are_gone_is_deleted(dsn: str) -> None:
    """Those that others deleted, and those whose dead letters were; a dead letter keeps it."""
    async with ServicesClient(dsn) as client:
        jobs = [await client.enqueue("t", number, max_attempts=1 if number == 1 else 9) for number in range(3)]
        attempts = await held(client, dsn, ONE, *(job.id for job in jobs))
        await client.write_progress(ONE, [word(one, 1) for one in attempts])
        await rows(dsn, f"update {JOBS} set locked_by = null, locked_at = null, run_at = now()")
        await rows(dsn, f"delete from {JOBS} where id = %s", jobs[0].id)
        assert await client.progress(jobs[0]) is None
        await client.fail_jobs([jobs[1]], "no")
        done = await client.sweep_progress(FRONT)
        assert (done.seen, done.deleted, done.place) == (3, 1, jobs[2].id)
        await client.process_failed_jobs()
        assert (await client.progress([jobs[1]])).keys() == {jobs[1].id}
        assert (await client.sweep_progress(FRONT)).deleted == 0
        [letter] = (await client.list_dlq_jobs()).jobs
        await client.delete_dlq_job(letter.id)
        await LeftAttempts(client, worker=lambda: "nobody").tend()
    assert await rows(dsn, "select job_id from graphile_worker.backfill_progress") == [(jobs[2].id,)]


@pytest.mark.parametrize("duty", ["producer", "operator", "worker"])
async def test_who_may_read_it(dsn: str, role: NewRole, duty: Duty) -> None:
    """All see how far a job has come; the checkpoint, which may hold what its payload holds, is for workers alone."""
    async with ServicesClient(dsn) as client:
        job = await client.enqueue("t")
        [attempt] = await held(client, dsn, ONE, job.id)
        await client.write_progress(ONE, [word(attempt, 1)])
    theirs = role(duty)
    async with BackfillClient(theirs) as client:
        found = await client.progress(job.id)
    assert isinstance(found, Progress)
    assert (found.done, found.total, found.note, found.attempt) == (1, 10, "a note", 1)
    assert found.checkpoint == (1 if duty == "worker" else None)
    assert "checkpoint" not in repr(found)
    if duty != "worker":
        for query in ("select checkpoint from", "delete from"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await rows(theirs, cast("LiteralString", f"{query} graphile_worker.backfill_progress"))


@pytest.mark.parametrize("duty", ["producer", "operator", "worker"])
async def test_roles_with_older_grants_may_read_it_after_the_migration(dsn: str, role: NewRole, duty: Duty) -> None:
    """And a worker's role writes it, without new grants."""
    theirs = role(duty)
    name = conninfo_to_dict(theirs)["user"]
    for query in (
        f"drop policy if exists backfill_worker_{name} on graphile_worker.backfill_progress",
        f"revoke all on graphile_worker.backfill_progress from {name}",
        f"revoke all on function graphile_worker.backfill_see_progress(bigint[]) from {name}",
        f"revoke all on function graphile_worker.backfill_checkpoint(bigint) from {name}",
    ):
        await rows(dsn, cast("LiteralString", query))
    async with ServicesClient(theirs) as client, ServicesClient(dsn) as owner:
        job = await owner.enqueue("t")
        [attempt] = await held(owner, dsn, ONE, job.id)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await client.progress(job.id)
        [rights] = [one for one in migrations() if one.name == "progress_rights"]
        await rows(dsn, render_text(rights.text, "graphile_worker"))
        writer = client if duty == "worker" else owner
        assert await writer.write_progress(ONE, [word(attempt, 1)]) == {job.id}
        assert await client.progress(job.id) is not None
