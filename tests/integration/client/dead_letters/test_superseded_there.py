"""Jobs that the Rust engine's workers failed: those that had been replaced meanwhile are deleted, without a trace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import LiteralString

import pytest

from backfill import BackfillClient, Queue
from contract.scripts import run_script

from places import TESTS
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
CLAIM: LiteralString = f"""
    update {JOBS} set attempts = attempts + 1, locked_by = 'graphile_worker_0', locked_at = now()"""
FAIL: LiteralString = f"""
    update {JOBS}
    set last_error = 'no', run_at = greatest(now(), run_at) + exp(least(attempts, 10)) * interval '1 second',
      locked_by = null, locked_at = null
    where locked_by is not null"""
RECOVER: LiteralString = f"""
    update {JOBS} set locked_by = null, locked_at = null, run_at = greatest(run_at, now()), updated_at = now()
    where locked_by is not null"""
FAIL_BY_HAND: LiteralString = f"""
    with failed as (
      update {JOBS} set last_error = 'not wanted', attempts = max_attempts, updated_at = now() returning id
    )
    insert into graphile_worker._private_job_retirements select id from failed
    on conflict do nothing"""
NOTES = "select count(*) from graphile_worker._private_job_retirements"
LETTERS: LiteralString = "select job_key, payload, failure_reason from graphile_worker.backfill_dlq"


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """A client of a database of ours on which the Rust engine's migrations ran later."""
    run_script(dsn, (TESTS / "contract" / "rust_engine.sql").read_text())
    async with BackfillClient(dsn) as one:
        yield one


@pytest.mark.parametrize("end", [FAIL, RECOVER], ids=["failed", "its worker died"])
@pytest.mark.parametrize("attempts", [1, 5])
async def test_one_that_was_replaced_while_it_ran(
    dsn: str, client: BackfillClient, end: LiteralString, attempts: int
) -> None:
    """It goes without a dead letter; the job that replaced it stays."""
    await client.enqueue("t", 1, job_key="k", max_attempts=attempts)
    await rows(dsn, CLAIM)
    await client.enqueue("t", 2, job_key="k", queue=Queue.serial("line"))
    assert await value(dsn, NOTES) == 1
    await rows(dsn, end)
    assert await client.process_failed_jobs() == 0
    assert await rows(dsn, f"select payload, key from {JOBS}") == [(2, "k")]
    assert (await rows(dsn, LETTERS), await value(dsn, NOTES)) == ([], 0)


async def test_a_batch_that_was_replaced_while_it_ran(dsn: str, client: BackfillClient) -> None:
    """Its items are not in the job that replaced it, so it becomes a dead letter, and nothing of it is lost."""
    await client.enqueue("t", [1, 2], job_key="k", max_attempts=5)
    await rows(dsn, CLAIM)
    await client.enqueue("t", [3], job_key="k")
    await rows(dsn, FAIL)
    assert await client.process_failed_jobs() == 1
    assert await rows(dsn, f"select payload, key from {JOBS}") == [([3], "k")]
    assert await rows(dsn, LETTERS) == [(None, [1, 2], "given up by another program")]


async def test_one_that_failed_for_good_before_its_key_was_taken(dsn: str, client: BackfillClient) -> None:
    """The engine notes it too, but it did not run then: it is a dead letter."""
    await client.enqueue("t", 1, job_key="k", max_attempts=1)
    await rows(dsn, CLAIM)
    await rows(dsn, FAIL)
    await client.enqueue("t", 2, job_key="k")
    assert await value(dsn, NOTES) == 1
    assert await client.process_failed_jobs() == 1
    assert await rows(dsn, LETTERS) == [(None, 1, "given up by another program")]
    assert await value(dsn, NOTES) == 0


@pytest.mark.parametrize(("delay", "times"), [("0", 1), ("1 day", 1), ("0", 2)])
@pytest.mark.parametrize("key", [None, "k"])
async def test_one_that_was_failed_by_hand(
    dsn: str, client: BackfillClient, delay: str, times: int, key: str | None
) -> None:
    """The engine's permanently_fail_jobs notes it too: it is a dead letter, due or not, and failed once or twice."""
    await client.enqueue("t", 1, job_key=key)
    await rows(dsn, f"update {JOBS} set run_at = now() + %s::interval", delay)
    for _ in range(times):
        await rows(dsn, FAIL_BY_HAND)
    assert await client.process_failed_jobs() == 1
    assert await rows(dsn, LETTERS) == [(key, 1, "given up by another program")]


async def test_many_of_both_kinds(dsn: str, client: BackfillClient) -> None:
    """A sweep takes several statements: what is only deleted does not end it early."""
    for replaced in (False, True):
        for number in range(30):
            await client.enqueue("t", number, job_key=f"k{number}", max_attempts=1)
        if not replaced:
            await client.enqueue_bulk("t", range(1500), max_attempts=1)
            await rows(dsn, CLAIM)
    await rows(dsn, FAIL)
    assert await client.process_failed_jobs() == 1500
    assert await value(dsn, f"select count(*) from {JOBS}") == 30
