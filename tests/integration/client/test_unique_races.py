"""Many producers and removers on few keys that stay reserved: one job a key and span, and nobody waits in a ring."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from itertools import pairwise
from typing import LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from backfill import BackfillClient, EnqueueOutcome, JobFilter, JobKeyMode, JobSpec, NewJob

from plugins.roles import NewRole
from reading import rows, value

DAY = timedelta(days=1)
KEYS = ["a", "b", "c"]
PRODUCERS = 32
OLD = """
    insert into graphile_worker.backfill_reservations (job_key, job_id, reserved_until)
    values ('a', 1, now() - interval '1 second'), ('b', 2, now() - interval '1 day'), ('c', 3, now())"""
JOBS = "select key, count(*) from graphile_worker._private_jobs group by key order by key"
HELD = """
    select reservations.job_key, jobs.id is not null
    from graphile_worker.backfill_reservations as reservations
    left join graphile_worker._private_jobs as jobs on jobs.id = reservations.job_id and jobs.key = reservations.job_key
    order by 1"""


@pytest.mark.parametrize("duty", ["owner", "producer"])
@pytest.mark.parametrize("begun", ["free", "over", "ended"])
async def test_one_of_32_connections_adds_a_job_of_a_key(dsn: str, role: NewRole, begun: str, duty: str) -> None:
    """Whether the keys are free, or their time is over, or the jobs end meanwhile; some transactions are undone."""
    if begun == "over":
        await rows(dsn, OLD)
    theirs = role("producer") if duty == "producer" else dsn
    client = BackfillClient(theirs)  # it only writes on connections that are given

    async def produce(number: int) -> list[str]:
        added: list[str] = []
        async with await psycopg.AsyncConnection.connect(theirs) as connection:
            for turn in range(4):
                key = KEYS[(turn + number) % 3]
                done = await client.enqueue("t", number, job_key=key, unique_for=DAY, connection=connection)
                if (number + turn) % 5 == 0:
                    await connection.rollback()
                    continue
                await connection.commit()
                if done.is_enqueued:
                    added.append(key)
                    if begun == "ended":
                        await rows(dsn, "delete from graphile_worker._private_jobs where id = %s", done.id)
        return added

    async with asyncio.timeout(50):
        added = await asyncio.gather(*(produce(number) for number in range(PRODUCERS)))
    assert Counter(key for keys in added for key in keys) == dict.fromkeys(KEYS, 1)
    assert await rows(dsn, JOBS) == ([] if begun == "ended" else [(key, 1) for key in KEYS])
    assert await rows(dsn, HELD) == [(key, begun != "ended") for key in KEYS]


async def test_calls_of_one_client_at_once(dsn: str) -> None:
    """They do not go together with others, which do; one of each key adds its job."""
    async with BackfillClient(dsn) as client:
        calls = [client.enqueue("t", n, job_key=KEYS[n % 3], unique_for=DAY) for n in range(60)]
        others = [client.enqueue("other", n) for n in range(60)]
        done = await asyncio.gather(*calls, *others)
    assert sum(one.is_enqueued for one in done) == 3 + 60
    assert await rows(dsn, JOBS) == [*((key, 1) for key in KEYS), (None, 60)]


async def test_a_key_whose_time_runs_out_is_taken_once_each_time(dsn: str) -> None:
    """Calls that take over keys again and again, while others do: no two jobs were added within the span."""
    span = timedelta(milliseconds=40)
    until: list[datetime] = []

    async def produce(client: BackfillClient) -> None:
        for _ in range(12):
            done = await client.enqueue("t", job_key="k", unique_for=span)
            if done.is_enqueued:
                await client.complete_jobs([done])
                assert done.reserved_until is not None
                until.append(done.reserved_until)

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(BackfillClient(dsn, max_size=8)) for _ in range(4)]
        await asyncio.gather(*(produce(clients[number % 4]) for number in range(PRODUCERS)))
    assert len(until) > 1
    assert all(later - earlier >= span for earlier, later in pairwise(sorted(until)))


async def test_producers_and_removers_do_not_wait_in_a_ring(dsn: str, role: NewRole) -> None:
    """Calls for one and for many jobs, removals and cancellations of the same keys; the server sees no deadlock."""

    async def storm(client: BackfillClient, seed: int) -> None:
        chance = random.Random(seed)
        mine: list[EnqueueOutcome[object]] = []
        for _ in range(12):
            key = chance.choice(KEYS)
            deed = chance.randrange(8)
            if deed < 2:
                span = chance.choice([DAY, timedelta(milliseconds=1)])
                mine.append(await client.enqueue("t", seed, job_key=key, unique_for=span))
            elif deed == 2:
                await client.enqueue("t", seed, job_key=key)
            elif deed == 3:
                jobs = [
                    NewJob("t", seed, JobSpec(job_key=one, unique_for=chance.choice([None, DAY]), job_key_mode=mode))
                    for one in chance.sample(KEYS, 3)
                    for mode in chance.sample(list(JobKeyMode), 2)
                ]
                await client.enqueue_bulk(jobs, commit_every=chance.choice([None, 2]))
            elif deed == 4:
                await client.remove_job(key)
            elif deed == 5 and mine:
                await client.remove_job(id=mine[-1])
            elif deed == 6 and mine:
                await client.cancel(mine[-1])
            elif seed % 4:  # a producer's role may not cancel by a filter
                await client.cancel_jobs(JobFilter(key_prefix=chance.choice(KEYS)))

    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    async with AsyncExitStack() as stack, asyncio.timeout(50):
        dsns = [role("producer"), dsn, dsn, dsn]
        clients = [await stack.enter_async_context(BackfillClient(one, max_size=8)) for one in dsns]
        await asyncio.gather(*(storm(clients[seed % 4], seed) for seed in range(PRODUCERS)))
    assert await value(dsn, deadlocks) == 0
    # No two jobs of a key, and a key that is free can be taken.
    assert all(count == 1 for _, count in await rows(dsn, JOBS))
    async with BackfillClient(dsn) as client:
        for key in KEYS:
            await client.remove_job(key)
            assert (await client.enqueue("t", job_key=key, unique_for=DAY)).is_enqueued
    assert await rows(dsn, HELD) == [(key, True) for key in KEYS]


async def test_a_key_that_is_reserved_anew_while_it_is_looked_at_stays_reserved(dsn: str, role: NewRole) -> None:
    """A removal stops while it looks at the job of a key whose time is over; another call adds a job of the key."""
    name = conninfo_to_dict(role("worker"))["user"]
    prepared = f"""
        create function graphile_worker.stop() returns boolean language sql security definer
        as 'select pg_advisory_xact_lock_shared(4711) is not null';
        insert into graphile_worker._private_tasks (identifier) values ('t');
        insert into graphile_worker._private_jobs (id, task_id, key) overriding system value values (-1, 1, null);
        insert into graphile_worker.backfill_reservations values ('a', -1, now());
        create policy stop on graphile_worker._private_jobs as restrictive to {name} using (graphile_worker.stop());
        grant create on schema graphile_worker to {name};
        alter function graphile_worker.backfill_free_reservations(text[], bigint[]) owner to {name}"""
    await rows(dsn, cast("LiteralString", prepared))
    waiting = "select count(*) from pg_locks where not granted"
    async with BackfillClient(dsn) as client, await psycopg.AsyncConnection.connect(dsn, autocommit=True) as holder:
        await holder.execute("select pg_advisory_lock(4711)")
        async with asyncio.timeout(20), asyncio.TaskGroup() as calls:
            removing = calls.create_task(client.remove_job("a"))
            while not await value(dsn, waiting):
                assert not removing.done()
            adding = calls.create_task(client.enqueue("t", job_key="a", unique_for=DAY))
            while not adding.done() and await value(dsn, waiting) < 2:
                assert not removing.done()
            await holder.execute("select pg_advisory_unlock(4711)")
        assert await rows(dsn, HELD) == [("a", True)]
        again = await client.enqueue("t", job_key="a", unique_for=DAY)
        assert (again.id, again.is_enqueued) == ((await adding).id, False)
