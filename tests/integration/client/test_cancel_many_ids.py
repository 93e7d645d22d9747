"""Cancelling by a filter with very many ids, of which most are of no job."""

from __future__ import annotations

from datetime import timedelta

import pytest

from backfill import BackfillClient, CancelCounts, JobFilter
from backfill.client.verbs.cancel import BATCH, LOOKED_AT, LOWEST, cancel_page

pytestmark = pytest.mark.leaves_rows


async def test_jobs_among_very_many_ids_are_cancelled(dsn: str) -> None:
    """Several statements look at the ids, those before and after the jobs too; the others are left."""
    async with BackfillClient(dsn) as client:
        jobs = [await client.enqueue("t", delay=timedelta(days=1)) for _ in range(3)]
        chosen = [jobs[2].id, jobs[0].id, *range(-2 * LOOKED_AT - 5, 0), *range(10**6, 10**6 + LOOKED_AT)]
        assert await client.cancel_jobs(JobFilter(ids=chosen)) == CancelCounts(removed=2)
        assert [await client.get_job(job) is None for job in jobs] == [True, False, True]


def test_a_statement_gets_only_the_ids_that_it_looks_at() -> None:
    """So the time of the call grows with the number of ids, and not with its square."""
    wanted = JobFilter(ids=range(3 * LOOKED_AT))
    sent = []
    for lowest in (LOWEST, LOOKED_AT, 3 * LOOKED_AT - 1, 3 * LOOKED_AT):
        ids = cancel_page(wanted, None, lowest, BATCH).parameters[0]
        assert isinstance(ids, str)
        sent.append([int(number) for number in ids.strip("{}").split(",") if number])
    assert sent == [
        list(range(LOOKED_AT)),
        list(range(LOOKED_AT, 2 * LOOKED_AT)),
        [3 * LOOKED_AT - 1],
        [],
    ]
