"""Jobs are cancelled while the workers that run them are killed at random: none of these jobs runs again."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, CancelOutcome, CancelStatus, EnqueueOutcome, Queue
from fleet.books import Ask, Books, balance
from fleet.crew import Crew, crew_of, drained

from plugins.periods import let_pass_until
from reading import rows, value

WORKERS = 4
AT_ONCE = 8
HEARD = 3.0
"""Seconds within which a job that was claimed and had not begun may still begin: three times what is promised."""
SEED = int(os.environ.get("BACKFILL_SEED", "1"))

CANCELS: LiteralString = """
create table cancels (job_id bigint primary key, status text not null, worker text, at timestamptz not null)"""
RUN_AGAIN: LiteralString = """
select cancels.*, attempts.attempt, attempts.worker as ran_on, attempts.process, attempts.began
from cancels
join attempts on attempts.job_id = cancels.job_id and attempts.began > cancels.at
where cancels.status = 'removed'
  or (
    cancels.status = 'requested'
    and (attempts.worker <> cancels.worker or attempts.began > cancels.at + %s * interval '1 second')
  )"""
BURIED: LiteralString = "select * from dead where job_id in (select job_id from cancels where status <> 'not_found')"
UNTOLD: LiteralString = """
select cancels.*
from cancels
where status <> 'not_found'
  and not exists (
    select from graphile_worker.backfill_ends as ends where ends.job_id = cancels.job_id and ends.how = 'cancelled'
  )
  and not exists (select from attempts where attempts.job_id = cancels.job_id and attempts.good)"""
"""Those of which no end tells, though no attempt of theirs was good."""


@dataclass(frozen=True)
class Form:
    """How many jobs are cancelled, and how many workers are killed meanwhile, a second apart."""

    jobs: int
    kills: int


SHORT, FULL = Form(jobs=240, kills=6), Form(jobs=1_000, kills=25)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", [SHORT, pytest.param(FULL, marks=pytest.mark.long)], ids=["short", "full"])
async def test_no_cancelled_job_runs_again(dsn: str, tmp_path: Path, form: Form) -> None:
    """Parallel, serial and keyed ones, of tasks that keep their ends and that do not; the books balance."""
    chance = random.Random(f"cancels {SEED}")
    books = Books(dsn)
    await books.open()
    await rows(dsn, CANCELS)
    loop = asyncio.get_running_loop()
    async with BackfillClient(dsn) as client, crew_of(WORKERS, Crew(books, tmp_path, dead_after=2.0)) as crew:
        jobs = [await _added(client, books, chance, number) for number in range(form.jobs)]
        chance.shuffle(jobs)
        began = loop.time()
        cancelling = asyncio.create_task(_cancel_all(dsn, client, jobs, began, float(form.kills)))
        for kill in range(form.kills):
            await let_pass_until(began + kill + 0.5)
            victim = chance.choice(crew.members)
            await crew.kill(victim)
            await crew.start(victim.slot)
        await cancelling
        await drained(books, timeout=240, crew=crew)
        assert crew.lost == [], "\n".join(crew.lost)
        assert await crew.end() == [0] * WORKERS
    await balance(books, excused=True, note=f"BACKFILL_SEED={SEED}")
    for broken in (await rows(dsn, RUN_AGAIN, HEARD), await rows(dsn, BURIED), await rows(dsn, UNTOLD)):
        assert broken == [], f"BACKFILL_SEED={SEED}"
    counts = dict(await rows(dsn, "select status, count(*) from cancels group by status"))
    print("cancels:", counts)
    assert counts["removed"] > 0 < counts["requested"]
    assert await value(dsn, "select count(*) from attempts where ended is null") > 0  # kills did cut work off


async def _added(client: BackfillClient, books: Books, chance: random.Random, number: int) -> EnqueueOutcome[Any]:
    """One more job; nobody relies on its being done."""
    books.ask(Ask("add", number))
    work = {"number": number, "seconds": chance.uniform(0.5, 4.0), "fails": chance.choice([0, 0, 3])}
    queue = Queue.serial(f"q{number % 20}", block_on_retry=number % 40 < 20) if number % 4 == 0 else None
    key = f"k{number}" if number % 3 == 0 else None
    return await client.enqueue(chance.choice(["work", "kept"]), work, queue=queue, job_key=key)


async def _cancel_all(
    dsn: str, client: BackfillClient, jobs: list[EnqueueOutcome[Any]], began: float, seconds: float
) -> None:
    """Cancel all jobs in so many seconds, some at once, and note what came of each."""
    waiting = iter(enumerate(jobs))

    async def cancel_some() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            for number, job in waiting:
                await let_pass_until(began + seconds * number / len(jobs))
                outcome: CancelOutcome = await client.cancel(job)
                assert outcome.status is not CancelStatus.FOREIGN
                await connection.execute(
                    "insert into cancels values (%s, %s, %s, clock_timestamp())",
                    [job.id, outcome.status, outcome.worker_id],
                )

    await asyncio.gather(*(cancel_some() for _ in range(AT_ONCE)))
