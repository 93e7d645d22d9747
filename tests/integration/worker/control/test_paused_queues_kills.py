"""Several sessions pause and resume serial queues while the workers that run their jobs are killed at random."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from backfill import BackfillClient, Queue
from fleet.books import Ask, Books, balance
from fleet.crew import Crew, crew_of, drained

from plugins.periods import let_pass, let_pass_until
from reading import rows, value

WORKERS = 3
QUEUES = 20
SESSIONS = 4
HEARD = 3.0
"""Seconds after the return of a pause within which a job may still start: three times what is promised."""
SEED = int(os.environ.get("BACKFILL_SEED", "1"))

PAUSES: LiteralString = """
create table pauses (queue text not null, stands timestamptz not null, ends timestamptz not null)"""
STARTED: LiteralString = """
select attempts.*, pauses.stands, pauses.ends
from pauses
join attempts on attempts.queue = pauses.queue
where attempts.began > pauses.stands + %s * interval '1 second'
  and attempts.began < pauses.ends"""
LATEST: LiteralString = """
select coalesce(max(extract(epoch from attempts.began - pauses.stands)), 0)::float8
from pauses
join attempts on attempts.queue = pauses.queue and attempts.began between pauses.stands and pauses.ends"""
OVERTAKEN: LiteralString = """
with firsts as (select queue, job_id, min(began) as began from attempts group by queue, job_id)
select later.queue, earlier.job_id, later.job_id
from firsts as earlier
join firsts as later on later.queue = earlier.queue and later.job_id > earlier.job_id and later.began < earlier.began"""
LOCKED: LiteralString = """
select queue_name, locked_by from graphile_worker._private_job_queues where locked_at is not null"""


@dataclass(frozen=True)
class Form:
    """How many jobs each queue has, and how many workers are killed, a second apart."""

    each: int
    kills: int


SHORT, FULL = Form(each=20, kills=6), Form(each=120, kills=40)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", [SHORT, pytest.param(FULL, marks=pytest.mark.long)], ids=["short", "full"])
async def test_no_job_of_a_paused_queue_starts_late(dsn: str, tmp_path: Path, form: Form) -> None:
    """None is lost or overtaken either, and in the end no queue is locked."""
    chance = random.Random(f"paused queues {SEED}")
    books = Books(dsn)
    await books.open()
    await rows(dsn, PAUSES)
    async with BackfillClient(dsn) as client, crew_of(WORKERS, Crew(books, tmp_path, dead_after=2.0)) as crew:
        for number in range(form.each * QUEUES):
            ask = Ask("add", number)
            books.ask(ask)
            queue = Queue.serial(f"q{number % QUEUES}", block_on_retry=number % 3 == 0)
            work = {"number": number, "seconds": chance.uniform(0.1, 0.6)}
            await client.enqueue("work", work, queue=queue)
            ask.acknowledged = True
        over = asyncio.Event()
        sessions = [asyncio.create_task(_meddle(dsn, session, over)) for session in range(SESSIONS)]
        began = asyncio.get_running_loop().time()
        for kill in range(form.kills):
            await let_pass_until(began + kill + 0.5)
            victim = chance.choice(crew.members)
            await crew.kill(victim)
            await crew.start(victim.slot)
        over.set()
        await asyncio.gather(*sessions)
        assert await client.controls() == []
        await drained(books, timeout=240, crew=crew)
        assert crew.lost == [], "\n".join(crew.lost)
        assert await rows(dsn, LOCKED) == []
        assert await crew.end() == [0] * WORKERS
    await balance(books, excused=True, note=f"BACKFILL_SEED={SEED}")
    print("pauses:", await value(dsn, "select count(*) from pauses"), "latest start:", await value(dsn, LATEST))
    assert await rows(dsn, STARTED, HEARD) == [], f"BACKFILL_SEED={SEED}"
    assert await rows(dsn, OVERTAKEN) == [], f"BACKFILL_SEED={SEED}"
    assert await value(dsn, "select count(*) from attempts where ended is null") > 0  # kills did cut work off


async def _meddle(dsn: str, session: int, over: asyncio.Event) -> None:
    """Pause and resume the queues that are this session's, some twice, until the test is over; none stays paused."""
    chance = random.Random(f"paused queues {SEED} {session}")
    async with BackfillClient(dsn) as client, await psycopg.AsyncConnection.connect(dsn, autocommit=True) as record:

        async def now() -> object:
            [found] = await (await record.execute("select clock_timestamp()")).fetchall()
            return found[0]

        while not over.is_set():
            some = chance.sample([f"q{number}" for number in range(session, QUEUES, SESSIONS)], 3)
            stands = {}
            for queue in some:
                await asyncio.gather(*(client.pause(queue=queue) for _ in range(chance.choice([1, 2]))))
                stands[queue] = await now()
            await let_pass(chance.choice([0.0, 0.1, 1.0, 4.0]))
            for queue in some:
                ends = await now()
                await client.resume(queue=queue)
                await record.execute("insert into pauses values (%s, %s, %s)", [queue, stands[queue], ends])
            await let_pass(chance.uniform(0.0, 0.5))
