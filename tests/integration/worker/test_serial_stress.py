"""Serial queues under everything at once: claims, completions, failures, enqueues, removals and reschedules."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import psycopg
import pytest

from backfill import BackfillClient, Queue
from backfill.storage.attempts import Attempt
from backfill.storage.claims import LaneClaim, LaneFilter
from backfill.storage.connection import connect
from backfill.storage.settlements import Settlement, settle
from backfill.storage.wire import Command, Wire
from backfill.storage.workers import find_tasks
from backfill.worker.execution.endings import COMPLETED, GIVEN_BACK, Ending, Failed

from reading import rows

SCHEMA = "graphile_worker"
QUEUES = 5
BROKEN = """
with jobs as (select job_queue_id, count(*) as held from graphile_worker._private_jobs
              where locked_at is not null and job_queue_id is not null group by 1)
select coalesce(queues.id, jobs.job_queue_id), queues.locked_by, jobs.held
from (select id, locked_by from graphile_worker._private_job_queues where locked_at is not null) as queues
full join jobs on jobs.job_queue_id = queues.id
where queues.id is null or jobs.held is distinct from 1
"""


PASSING = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
"""What a worker meets by trying again: a row that somebody's transaction held for too long."""


async def _settled(wire: Wire, settlement: Settlement, name: str) -> set[Attempt]:
    while True:
        try:
            return await settle(wire, settlement, schema=SCHEMA, worker=name)
        except PASSING:
            pass


class Stress:
    """Actors on one database, each on a connection of its own, until a number of jobs were completed."""

    def __init__(self, dsn: str, wanted: int, seed: int) -> None:
        self.dsn = dsn
        self.wanted = wanted
        self.seed = seed
        self.completed = 0
        self.running: dict[int, int] = {}
        self.over = asyncio.Event()

    async def work(self, name: str) -> None:
        """Claim, hold across a few turns, and settle in any way."""
        chance = random.Random(f"{self.seed} {name}")
        claim = LaneClaim(SCHEMA, (LaneFilter(("task",)),))
        async with await connect(self.dsn) as connection:
            wire = Wire(connection)
            await wire.send([Command.of("set_hot", SCHEMA, "false")], timeout=5)
            ids = await find_tasks(connection, ["task"], schema=SCHEMA)
            while not self.over.is_set():
                try:
                    jobs = await claim.take(wire, worker=name, wanted=chance.randint(1, 4), task_ids=ids)
                except PASSING:
                    continue
                for job in jobs:
                    assert job.job_queue_id is not None
                    assert job.job_queue_id not in self.running, "two of one queue at a time"
                    self.running[job.job_queue_id] = job.id
                await asyncio.sleep(0)
                for job in jobs:
                    assert job.job_queue_id is not None
                    assert self.running.pop(job.job_queue_id) == job.id
                await self._settle(wire, chance, name, [Attempt(job) for job in jobs])

    async def _settle(self, wire: Wire, chance: random.Random, name: str, attempts: list[Attempt]) -> None:
        ends = list[tuple[Attempt, Ending]]()
        for attempt in attempts:
            end = chance.random()
            if end < 0.7:
                ends.append((attempt, COMPLETED))
            elif end < 0.85:
                ends.append((attempt, Failed("no", final=end > 0.83, delay=0.0)))
            else:
                ends.append((attempt, GIVEN_BACK))
        if ends:
            settlement = Settlement(ending.end(attempt, None) for attempt, ending in ends)
            missing = await _settled(wire, settlement, name)
            self.completed += sum(attempt not in missing for attempt, ending in ends if ending is COMPLETED)
        if self.completed >= self.wanted:
            self.over.set()

    async def produce(self, name: str) -> None:
        """Enqueue, with keys that meet and without."""
        chance = random.Random(f"{self.seed} {name}")
        async with BackfillClient(self.dsn, max_size=1) as client:
            while not self.over.is_set():
                queue = Queue.serial(f"q{chance.randrange(QUEUES)}")
                key = f"k{chance.randrange(12)}" if chance.random() < 0.5 else None
                await client.enqueue("task", {}, queue=queue, job_key=key, priority=chance.randint(-2, 2))

    async def manage(self, name: str) -> None:
        """Remove, reschedule, complete and fail jobs that wait or run."""
        chance = random.Random(f"{self.seed} {name}")
        async with BackfillClient(self.dsn, max_size=1) as client, await connect(self.dsn) as connection:
            while not self.over.is_set():
                cursor = await connection.execute(
                    "select id from graphile_worker._private_jobs order by random() limit 3"
                )
                ids = [row[0] for row in await cursor.fetchall()]
                act = chance.randrange(8)
                if act < 3:
                    await client.remove_job(f"k{chance.randrange(12)}")
                elif act < 6:
                    await client.reschedule_jobs(ids, priority=chance.randint(-2, 2), attempts=0)
                elif act < 7:
                    await client.fail_jobs(ids[:1])
                else:
                    await client.complete_jobs(ids[:1])

    async def watch(self) -> int:
        """Look at snapshots: a queue is locked exactly when one job of it is."""
        looks = 0
        async with await connect(self.dsn) as connection:
            while not self.over.is_set():
                cursor = await connection.execute(BROKEN)
                assert await cursor.fetchall() == []
                looks += 1
        return looks


@pytest.mark.parametrize(("wanted", "seed"), [(500, 1), (500, 2), pytest.param(60_000, 3, marks=pytest.mark.long)])
async def test_queues_stay_exclusive_under_stress(dsn: str, wanted: int, seed: int) -> None:
    """8 connections and a watcher on 5 queues: never two at once, never a locked queue without its locked job."""
    stress = Stress(dsn, wanted, seed)
    async with asyncio.timeout(max(wanted / 5, 120)), asyncio.TaskGroup() as group:
        for name in ("w1", "w2", "w3"):
            group.create_task(stress.work(name))
        for name in ("p1", "p2", "p3"):
            group.create_task(stress.produce(name))
        for name in ("m1", "m2"):
            group.create_task(stress.manage(name))
        looks = group.create_task(stress.watch())
    assert looks.result() > 20
    assert await rows(dsn, BROKEN) == []
    assert await rows(dsn, "select 1 from graphile_worker._private_jobs where locked_at is not null") == []


async def test_claims_meet_keyed_enqueues_without_harm(dsn: str) -> None:
    """A key replaced again and again while its job is claimed: every round leaves at most one job of the key."""
    claim = LaneClaim(SCHEMA, (LaneFilter(("task",)),))
    over = asyncio.Event()

    async def replace() -> None:
        async with BackfillClient(dsn, max_size=1) as client:
            for _ in range(300):
                await client.enqueue("task", {}, queue=Queue.serial("q"), job_key="k")
        over.set()

    async def work(name: str) -> None:
        async with await connect(dsn) as connection:
            wire = Wire(connection)
            await wire.send([Command.of("set_hot", SCHEMA, "false")], timeout=5)
            ids = await find_tasks(connection, ["task"], schema=SCHEMA)
            while not over.is_set():
                jobs = await claim.take(wire, worker=name, wanted=2, task_ids=ids)
                assert len(jobs) <= 1
                failed = [Failed("no", delay=0.0).end(Attempt(job), None) for job in jobs]
                try:
                    await settle(wire, Settlement(failed), schema=SCHEMA, worker=name)
                except psycopg.errors.DeadlockDetected:
                    pytest.fail("a settlement deadlocked with an enqueue")

    async with asyncio.TaskGroup() as group:
        group.create_task(replace())
        group.create_task(work("w1"))
        group.create_task(work("w2"))
    found: list[tuple[Any, ...]] = await rows(dsn, "select key, locked_at from graphile_worker._private_jobs")
    assert found in ([("k", None)], [])
