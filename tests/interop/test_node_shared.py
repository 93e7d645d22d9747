"""One fleet of Graphile Worker 0.18's workers and ours, under kills, stops and ended connections: its books balance."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient
from fleet.books import Books, balance
from fleet.crew import crew_of, drained
from fleet.orders import Orders
from fleet.shared import KINDS, NODE_SLOTS, OUR_SLOTS, STOPPED, TASKS, Shared

from plugins.node import Node
from plugins.periods import let_pass_until

QUEUES = 200
WORKERS = len(OUR_SLOTS) + len(NODE_SLOTS)
SEED = int(os.environ.get("BACKFILL_SEED", "1"))
"""Of all that is drawn: jobs, their times, and what befalls whom; what the machine makes of it differs from run to run."""
FIGURES: LiteralString = """
with asked_jobs as (select * from asked where kind = 'add'),
first as (select number, min(began) as began from attempts group by number)
select
  (select count(*) from asked_jobs where acknowledged) as "jobs added",
  (select count(*) from asked where kind = 'remove' and acknowledged) as "removals",
  (select count(*) from asked_jobs where replaced) as "waiting jobs replaced",
  (select count(*) from asked_jobs as one
     where job_key is not null
       and exists (select from asked as later where later.job_key = one.job_key and later.seq > one.seq)
       and exists (select from attempts where attempts.number = one.number)) as "ran, with a later job of their key",
  (select count(*) from attempts where worker like 'backfill%') as "attempts by ours",
  (select count(*) from attempts where worker like 'pool%') as "attempts by Node",
  (select count(*) from attempts where good and worker like 'backfill%') as "done by ours",
  (select count(*) from attempts where good and worker like 'pool%') as "done by Node",
  (select count(*) from attempts where ended is null) as "attempts cut off",
  (select count(*) from (select number from attempts where good group by number having count(*) > 1) as twice)
    as "done again after a death",
  (select count(*) from dead) as "dead letters",
  (select count(*) from dead where failure_reason = 'given up by another program') as "of them failed by Node",
  (select count(distinct queue) from attempts) as "queues",
  (select count(*) from (
     select queue from attempts where queue is not null group by queue
     having count(distinct left(worker, 4)) = 2) as both_ran) as "queues that both served",
  (select extract(epoch from max(ended) - min(began))::float8 from attempts) as "seconds from first to last",
  (select extract(epoch from max(first.began - asked.at))::float8 from asked join first using (number))
    as "longest wait for a first attempt",
  (select extract(epoch from percentile_disc(0.99) within group (order by first.began - asked.at))::float8
     from asked join first using (number)) as "99 of 100 wait at most"
"""


@dataclass(frozen=True)
class Form:
    """How much is done.

    Attributes:
        backlog: how many jobs there are at the start.
        jobs: how many more are added.
        seconds: in how long.
        tries: how often those run that fail always.
        troubles: how many things befall the fleet, in that time, of each kind as many.
        stale: seconds after which locks of Node's are abandoned.
        drain: seconds within which all is done afterwards, at most.
    """

    backlog: int
    jobs: int
    seconds: float
    tries: int
    troubles: int
    stale: float
    drain: float


SHORT = Form(backlog=200, jobs=600, seconds=8, tries=2, troubles=len(KINDS), stale=4.0, drain=120)
FULL = Form(backlog=2_000, jobs=24_000, seconds=300, tries=3, troubles=120, stale=8.0, drain=300)
LONGEST = 0.3
"""Of the jobs' work, in seconds: far less than the age at which a lock of Node's is abandoned."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("form", [SHORT, pytest.param(FULL, marks=pytest.mark.long)], ids=["short", "full"])
async def test_a_fleet_shared_with_node(node_modules: Path, dsn: str, tmp_path: Path, form: Form) -> None:
    """Two workers of each: what either runs, and whoever dies meanwhile, the rules of our own fleet's books hold."""
    books = Books(dsn)
    await books.open()
    chance = random.Random(f"shared {SEED}")
    orders = Orders(books, seed=SEED, longest=LONGEST, names=TASKS, queues=QUEUES, tries=form.tries)
    shared = Shared(books, Node(node_modules, dsn), tmp_path, stale=form.stale, chance=chance)
    crew = shared.crew
    async with BackfillClient(dsn) as client, crew_of(WORKERS, crew), _watched(shared):
        await orders.at_once(client, form.backlog)
        async with asyncio.TaskGroup() as group:
            group.create_task(orders.steadily(client, form.jobs, seconds=form.seconds))
            group.create_task(_befall(shared, form, chance))
        asked = asyncio.get_running_loop().time()
        await drained(books, timeout=form.drain, crew=crew)
        shared.done["seconds until drained"] = round(asyncio.get_running_loop().time() - asked)
        await shared.unwatch()
        assert crew.lost == [], "\n".join(crew.lost)
        assert sorted(await crew.end()) == [STOPPED] * len(NODE_SLOTS) + [0] * len(OUR_SLOTS)
    await balance(books, note=f"BACKFILL_SEED={SEED} {dict(shared.done)}")
    figures = await _figures(dsn)
    print(*(f"{name}: {figure}" for name, figure in [*shared.done.items(), *figures.items()]), sep="\n")
    assert min(shared.done[kind] for kind in KINDS) >= form.troubles // len(KINDS)
    assert figures["done by ours"] > form.jobs / 10 < figures["done by Node"]
    assert figures["jobs added"] > form.jobs / 2
    assert figures["waiting jobs replaced"] > 0 < figures["dead letters"]
    assert figures["attempts cut off"] > 0


async def _befall(shared: Shared, form: Form, chance: random.Random) -> None:
    """Let trouble befall the fleet, evenly over the time, in an order that is drawn."""
    began = asyncio.get_running_loop().time()
    kinds = [KINDS[number % len(KINDS)] for number in range(form.troubles)]
    chance.shuffle(kinds)
    for number, kind in enumerate(kinds, 1):
        await let_pass_until(began + number * form.seconds / (form.troubles + 1))
        await shared.befall(kind)


@asynccontextmanager
async def _watched(shared: Shared) -> AsyncIterator[None]:
    shared.watch()
    try:
        yield
    finally:
        await shared.unwatch()


async def _figures(dsn: str) -> dict[str, Any]:
    """What the books say of who did what, by name."""
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
        [found] = await (await connection.execute(FIGURES)).fetchall()
    return found
