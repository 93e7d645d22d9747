"""Batches of which some items fail at random, while workers are killed: what is settled is settled for good."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from typing import LiteralString

import pytest

from backfill import AttemptHow, BackfillClient, NewJob
from fleet.processes import Fleet, jobs_left, nothing_locked

from places import TESTS
from plugins.periods import let_pass_until
from plugins.waiting import Eventually
from reading import rows, value

SEED = int(os.environ.get("BACKFILL_SEED", "1"))
PROGRAM = TESTS / "fleet" / "batching.py"
WORKERS = 3
TABLES: LiteralString = """
create table seen (job_id bigint, attempt integer, items integer[], remaining integer[], primary key (job_id, attempt));
create table done (job_id bigint, attempt integer, item integer, primary key (job_id, attempt, item))
"""


@dataclass(frozen=True)
class Form:
    """How many jobs there are, with how many items each, and how many workers are killed, half a second apart."""

    jobs: int
    items: int
    kills: int


SHORT, FULL = Form(40, 15, kills=3), Form(100, 20, kills=15)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", [SHORT, pytest.param(FULL, marks=pytest.mark.long)], ids=["short", "full"])
async def test_no_item_is_lost_or_repeated(dsn: str, form: Form, eventually: Eventually) -> None:
    """Each item is done at least once, and none that was done in a settled attempt runs again."""
    chance = random.Random(f"batches {SEED}")
    await rows(dsn, TABLES)
    batches = [list(range(job * form.items, (job + 1) * form.items)) for job in range(form.jobs)]
    fleet = Fleet(dsn, 4, 10.0, PROGRAM)
    async with BackfillClient(dsn) as client:
        jobs = [(await client.enqueue(NewJob("batch", items), max_attempts=1_000)).id for items in batches]
        try:
            await asyncio.gather(*(fleet.start() for _ in range(WORKERS)))
            began = asyncio.get_running_loop().time()
            for kill in range(form.kills):
                await let_pass_until(began + 0.5 * kill + 0.3)
                await fleet.kill(chance.choice(fleet.workers))
                await fleet.start()
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0, timeout=240, moving=True)
            assert await fleet.stop() == [0] * WORKERS
        finally:
            await fleet.close()
        print(f"BACKFILL_SEED={SEED}; {len(fleet.killed)} workers killed")
        repeated = 0
        for job, items in zip(jobs, batches, strict=True):
            assert job is not None
            repeated += await _checked(dsn, client, job, items)
    print(f"{repeated} attempts were cut off and repeated")
    assert repeated > 0
    assert await value(dsn, "select count(distinct item) from done") == form.jobs * form.items
    assert await value(dsn, "select count(*) from graphile_worker.backfill_dlq") == 0
    assert await nothing_locked(dsn) == []


async def _checked(dsn: str, client: BackfillClient, job: int, items: list[int]) -> int:
    """See that each attempt of a job had what the one before left; gives how many attempts were lost with their worker.

    One that was settled left the items that its handler named, and one that was cut off all that it had.
    """
    seen = {
        attempt: (had, left)
        for attempt, had, left in await rows(
            dsn, "select attempt, items, remaining from seen where job_id = %s order by attempt", job
        )
    }
    hows = {record.attempt: record.how for record in await client.attempts(job)}
    last = max(seen)
    assert sorted(hows) == list(range(1, last)), f"job {job}: {hows}"
    left, lost = items, 0
    for attempt in range(1, last + 1):
        had, remaining = seen.get(attempt, (left, None))
        assert had == left, f"job {job}, attempt {attempt} had {had}, and {left} were left; BACKFILL_SEED={SEED}"
        match hows.get(attempt):
            case None:
                assert (attempt, remaining) == (last, []), f"job {job}: its last attempt left {remaining}"
            case AttemptHow.FAILED:
                assert remaining, f"job {job}, attempt {attempt} failed and left nothing"
                left = remaining
            case how:
                assert how is AttemptHow.LOST
                lost += 1
    return lost
