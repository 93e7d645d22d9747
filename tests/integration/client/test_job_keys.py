"""Job keys, singly: what each mode does to a job that waits, waits for a retry, runs, or is out of attempts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest

from backfill import BackfillClient, EnqueueOutcome, EnqueueStatus, JobKeyMode, Queue

from reading import rows, value

REPLACE, PRESERVE, DEDUPE = JobKeyMode.REPLACE, JobKeyMode.PRESERVE_RUN_AT, JobKeyMode.UNSAFE_DEDUPE
OLD, NEW = datetime(2040, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)
ROW: LiteralString = """
    select id, task_identifier, queue_name, priority, max_attempts, attempts, key, revision, flags, run_at, last_error,
           locked_by,
           (select payload::text from graphile_worker._private_jobs as bare where bare.id = jobs.id)
    from graphile_worker.jobs as jobs order by id"""

# What became of the old job before the second call.
STATES: dict[str, LiteralString | None] = {
    "waiting": None,
    "retrying": "update graphile_worker._private_jobs set attempts = 1, last_error = 'x'",
    "running": "update graphile_worker._private_jobs set attempts = 1, locked_by = 'w', locked_at = now()",
    "exhausted": "update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'x'",
}


async def _two(dsn: str, state: str, mode: JobKeyMode | None) -> tuple[EnqueueOutcome[Any], EnqueueOutcome[Any]]:
    """The outcomes of two calls with one key, the second when the first's job is in that state."""
    async with BackfillClient(dsn) as client:
        first = await client.enqueue(
            "old", {"n": 1}, job_key="k", run_at=OLD, queue=Queue.serial("q"), priority=1, flags=["old"]
        )
        assert first.status is EnqueueStatus.ADDED
        change = STATES[state]
        if change is not None:
            await rows(dsn, change)
        second = await client.enqueue(
            "new", {"n": 2}, job_key="k", job_key_mode=mode, run_at=NEW, priority=2, max_attempts=3, flags=["new"]
        )
        read = await client.get_job(second)
    assert read is not None
    for name in ("id", "task_identifier", "queue_name", "key", "run_at", "attempts", "revision", "payload", "flags"):
        assert getattr(read, name) == getattr(second.job, name), name
    return first, second


@pytest.mark.parametrize("mode", [None, REPLACE, PRESERVE])
@pytest.mark.parametrize("state", ["waiting", "retrying"])
async def test_a_waiting_job_is_replaced(dsn: str, state: str, mode: JobKeyMode | None) -> None:
    """All of it, attempts and error too; its run_at stays in one mode, and only where it has never run."""
    first, second = await _two(dsn, state, mode)
    assert (second.status, second.id, second.revision) == (EnqueueStatus.REPLACED, first.id, 1)
    assert second.is_enqueued
    run_at = OLD if mode is PRESERVE and state == "waiting" else NEW
    assert await rows(dsn, ROW) == [
        (first.id, "new", None, 2, 3, 0, "k", 1, {"new": True}, run_at, None, None, '{"n":2}')
    ]


@pytest.mark.parametrize("mode", [REPLACE, PRESERVE])
@pytest.mark.parametrize("state", ["running", "exhausted"])
async def test_a_job_that_cannot_be_replaced_loses_its_key(dsn: str, state: str, mode: JobKeyMode) -> None:
    """It ends as it may and never runs again; the new job is one of its own."""
    first, second = await _two(dsn, state, mode)
    assert (second.status, second.revision) == (EnqueueStatus.ADDED, 0)
    assert second.id != first.id
    old, new = await rows(dsn, ROW)
    assert old[:8] == (first.id, "old", "q", 1, 8, 8, None, 0)
    assert old[11] == ("w" if state == "running" else None)
    assert new == (second.id, "new", None, 2, 3, 0, "k", 0, {"new": True}, NEW, None, None, '{"n":2}')


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("waiting", EnqueueStatus.KEPT),
        ("retrying", EnqueueStatus.KEPT),
        ("running", EnqueueStatus.ALREADY_IN_PROGRESS),
        ("exhausted", EnqueueStatus.EXHAUSTED),
    ],
)
async def test_unsafe_dedupe_leaves_what_is_there(dsn: str, state: str, status: EnqueueStatus) -> None:
    """Whatever its state: the status says which, and the row that comes back is the old job's, names included."""
    first, second = await _two(dsn, state, DEDUPE)
    assert (second.status, second.id, second.revision) == (status, first.id, 1)
    assert not second.is_enqueued
    assert second.is_already_in_progress == (state == "running")
    assert (second.job.task_identifier, second.job.queue_name, second.job.payload) == ("old", "q", {"n": 1})
    [row] = await rows(dsn, ROW)
    assert row[:5] == (first.id, "old", "q", 1, 8)
    assert row[6:10] == ("k", 1, {"old": True}, OLD)


@pytest.mark.parametrize("mode", list(JobKeyMode))
async def test_a_key_that_is_free_is_added(dsn: str, mode: JobKeyMode) -> None:
    """Also one that was used before, by a job that is done."""
    async with BackfillClient(dsn) as client:
        for _ in range(2):
            outcome = await client.enqueue("t", {}, job_key="k", job_key_mode=mode)
            assert (outcome.status, outcome.revision) == (EnqueueStatus.ADDED, 0)
            await client.complete_jobs([outcome])


async def test_two_array_payloads_are_joined(dsn: str) -> None:
    """A batch job grows while it waits; anything else is replaced."""
    async with BackfillClient(dsn) as client:
        for payload in ([1], [2, 3]):
            outcome = await client.enqueue("t", payload, job_key="k")
        assert outcome.job.payload == [1, 2, 3]
        assert (await client.enqueue("t", {"x": 1}, job_key="k")).job.payload == {"x": 1}
        assert (await client.enqueue("t", [9], job_key="k")).job.payload == [9]


@pytest.mark.parametrize("mode", list(JobKeyMode))
async def test_many_at_once_with_one_key_leave_one_job(dsn: str, mode: JobKeyMode) -> None:
    """None fails, one adds, the others replace or keep it."""
    async with BackfillClient(dsn) as client:
        outcomes = await asyncio.gather(
            *(client.enqueue("t", {"n": n}, job_key="k", job_key_mode=mode) for n in range(40))
        )
    assert [one.status for one in outcomes].count(EnqueueStatus.ADDED) == 1
    others = {one.status for one in outcomes} - {EnqueueStatus.ADDED}
    assert others == {EnqueueStatus.KEPT if mode is DEDUPE else EnqueueStatus.REPLACED}
    assert sorted(one.revision for one in outcomes) == list(range(40))
    assert await value(dsn, "select count(*) from graphile_worker.jobs") == 1


async def test_the_longest_and_oddest_keys(dsn: str) -> None:
    """512 characters, not bytes; quotes, braces and backslashes are only characters."""
    keys = ["\u00fc" * 512, "'\"{},\\ \t\n", "NULL", " "]
    async with BackfillClient(dsn) as client:
        for key in keys:
            assert (await client.enqueue("t", {}, job_key=key)).job.key == key
            assert (await client.enqueue("t", {}, job_key=key, delay=timedelta(1))).status is EnqueueStatus.REPLACED
    assert await rows(dsn, "select key from graphile_worker.jobs order by id") == [(key,) for key in keys]
