"""One fleet of Graphile Worker 0.18's workers and ours, under kills, stops and ended connections: its books balance."""

from __future__ import annotations

import asyncio
import json
import os
import random
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import (
    BackfillClient,
    EnqueueStatus,
    JobSpec,
    NewJob,
    Queue,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from fleet.books import Books, balance
from fleet.crew import crew_of, drained
from fleet.orders import Orders
from fleet.shared import HELD, KINDS, NODE_SLOTS, OUR_SLOTS, STOPPED, TASKS, UNLOCK, Shared

from plugins.node import Node
from plugins.periods import let_pass_until
from plugins.waiting import Eventually
from reading import rows, value

QUEUES = 200
KEYS = 12
WORKERS = len(OUR_SLOTS) + len(NODE_SLOTS)
SEED = int(os.environ.get("BACKFILL_SEED", "1"))
"""Of all that is drawn: jobs, their times, and what befalls whom; the machine makes of it what it will."""
UNDER_WAY: LiteralString = "select count(*) from attempts where ended is null"
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
  (select count(*) from dead
     join asked_jobs as one using (number)
     where exists (select from asked as later where later.job_key = one.job_key and later.seq > one.seq))
    as "of them replaced while they ran",
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
        jobs_a_second: how many more are added, as long as something befalls the fleet.
        seconds: how long that is, at least.
        tries: how often those run that fail always.
        troubles: how many things befall the fleet in that time, of each kind as many.
        stale: seconds after which locks of Node's are abandoned.
        drain: seconds within which all is done afterwards, at most.
    """

    backlog: int
    jobs_a_second: int
    seconds: int
    tries: int
    troubles: int
    stale: float
    drain: float


SHORT = Form(backlog=200, jobs_a_second=75, seconds=8, tries=2, troubles=len(KINDS), stale=4.0, drain=120)
FULL = Form(backlog=2_000, jobs_a_second=80, seconds=300, tries=3, troubles=120, stale=8.0, drain=300)
LONGEST = 0.3
"""Of the jobs' work, in seconds: far less than the age at which a lock of Node's is abandoned."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("form", [SHORT, pytest.param(FULL, marks=pytest.mark.long)], ids=["short", "full"])
async def test_a_fleet_shared_with_node(node_modules: Path, dsn: str, tmp_path: Path, form: Form) -> None:
    """Two workers of each: what either runs, and whoever dies meanwhile, the rules of our own fleet's books hold."""
    books = Books(dsn)
    await books.open()
    chance = random.Random(f"shared {SEED}")
    orders = Orders(books, seed=SEED, longest=LONGEST, names=TASKS, queues=QUEUES, keys=KEYS, tries=form.tries)
    shared = Shared(books, Node(node_modules, dsn), tmp_path, stale=form.stale, chance=chance)
    crew = shared.crew
    async with BackfillClient(dsn) as client, crew_of(WORKERS, crew), _watched(shared):
        await orders.at_once(client, form.backlog)
        async with asyncio.TaskGroup() as group:
            befalling = group.create_task(_befall(shared, form, chance))
            for second in count():
                if second >= form.seconds and befalling.done():
                    break
                await orders.steadily(client, form.jobs_a_second, seconds=1.0)
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
    jobs = form.jobs_a_second * form.seconds
    assert figures["done by ours"] > jobs / 10 < figures["done by Node"]
    assert figures["jobs added"] > jobs / 2
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


@asynccontextmanager
async def _booked(node: Node, **settings: Any) -> AsyncIterator[tuple[Process, str]]:
    """A worker of Node's that keeps books, and its id."""
    told = {"process": "node", "tasks": 1, "concurrency": 2, "poll": 0.2, **settings}
    process = await node.start("booked.js", json.dumps(told))
    try:
        assert process.stdout is not None
        yield process, (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(("batches", "left"), [(False, 1), (True, 0)], ids=["as it is", "in batches"])
async def test_what_a_stopped_worker_of_nodes_leaves(
    node_modules: Path, dsn: str, eventually: Eventually, batches: bool, left: int
) -> None:
    """By default the job that ends last stays locked, though it is done; unlocked by the worker's id, ours run it."""
    books = Books(dsn)
    await books.open()
    async with BackfillClient(dsn) as client, _booked(Node(node_modules, dsn), batches=batches) as (process, worker):
        await client.enqueue("work0", {"number": 1, "seconds": 0.4, "fails": 0}, queue=Queue.serial("line"))
        await eventually(lambda: value(dsn, UNDER_WAY), lambda number: number == 1)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == STOPPED
        assert await value(dsn, "select good from attempts")
        assert await value(dsn, HELD, worker) == left
        tasks: TaskRegistry[None] = TaskRegistry()
        ran = list[int]()

        @tasks.task("work0")
        async def work(_: Any, ctx: WorkerContext[None]) -> None:
            ran.append(ctx.attempt)

        assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == 0
        await rows(dsn, UNLOCK, worker)
        assert await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs() == left
        assert ran == [2] * left


async def test_a_replaced_job_that_nodes_local_queue_gives_back(
    node_modules: Path, dsn: str, eventually: Eventually
) -> None:
    """It has lost its key and has an attempt again, so its old payload runs beside the new job: Node's own way."""
    books = Books(dsn)
    await books.open()
    settings = {"batches": True, "concurrency": 1}
    async with BackfillClient(dsn) as client, _booked(Node(node_modules, dsn), **settings) as (process, worker):
        await client.enqueue_bulk(
            NewJob("work0", {"number": number, "seconds": 1.0, "fails": 0}, JobSpec(job_key=f"key{number}"))
            for number in range(2)
        )
        await eventually(lambda: value(dsn, UNDER_WAY), lambda number: number == 1)
        assert await value(dsn, HELD, worker) == 2
        [waiting] = {0, 1} - {await value(dsn, "select number from attempts")}
        outcome = await client.enqueue("work0", {"number": 2}, job_key=f"key{waiting}")
        assert outcome.status is EnqueueStatus.ADDED
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == STOPPED
    found = await rows(
        dsn, "select (payload ->> 'number')::int, key, max_attempts - attempts from graphile_worker._private_jobs"
    )
    assert sorted(found) == [(waiting, None, 1), (2, f"key{waiting}", 8)]
