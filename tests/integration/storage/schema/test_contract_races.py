"""Producers, removers and workers at once on the same keys and names.

Nobody fails, nothing is lost, nothing is doubled.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, LiteralString, cast

import psycopg
import pytest

from backfill.storage.connection import Connection, connect

from plugins.waiting import Eventually
from reading import rows, value

PRODUCERS = 32
KEYS = [f"key {number}" for number in range(10)]
KEYED = """
select key, count(*), bool_and(is_available), max(payload::text) from graphile_worker._private_jobs
where key is not null group by key order by key
"""
BLOCKED = "select count(*) from pg_stat_activity where pid = %s and cardinality(pg_blocking_pids(pid)) > 0"
WAYS: dict[str, LiteralString] = {
    "add_job": "select graphile_worker.add_job('t', queue_name => 'q')",
    "add_job with a key": "select graphile_worker.add_job('t', queue_name => 'q', job_key => 'k')",
    "add_job, unsafe_dedupe": """
        select graphile_worker.add_job('t', queue_name => 'q', job_key => 'k', job_key_mode => 'unsafe_dedupe')""",
    "add_jobs": """
        select graphile_worker.add_jobs(
          array[row('t', null, 'q', null, null, null, null, null), row('t', null, null, null, null, 'k', null, null)]
            ::graphile_worker.job_spec[])""",
}


@asynccontextmanager
async def many(dsn: str, count: int) -> AsyncIterator[list[Connection]]:
    """So many connections."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await connect(dsn)) for _ in range(count)]


@asynccontextmanager
async def blocked(
    dsn: str, eventually: Eventually, connection: Connection, statement: str, *parameters: Any
) -> AsyncIterator[asyncio.Task[Any]]:
    """A statement that has begun and waits for another's lock; it is awaited at the end."""
    task = asyncio.create_task(_answer(connection, statement, *parameters))
    try:
        await eventually(lambda: value(dsn, BLOCKED, connection.info.backend_pid))
        assert not task.done()
        yield task
    finally:
        await asyncio.wait_for(task, 30)


async def _answer(connection: Connection, statement: str, *parameters: Any) -> list[Any]:
    cursor = await connection.execute(cast("LiteralString", statement), parameters)
    return await cursor.fetchall() if cursor.description else [cursor.rowcount]


@pytest.mark.parametrize("known", [False, True], ids=["new names", "known names"])
@pytest.mark.parametrize("table", ["_private_tasks", "_private_job_queues"])
@pytest.mark.parametrize("way", WAYS)
async def test_names_are_held_until_the_job_is_committed(
    dsn: str, eventually: Eventually, way: str, table: str, known: bool
) -> None:
    """Who would delete the task or queue of a job that is being added waits, or, skipping locked rows, finds none."""
    if known:
        await rows(dsn, WAYS[way])
        await rows(dsn, "delete from graphile_worker._private_jobs")
    free = f"select id from graphile_worker.{table} for update skip locked"
    async with many(dsn, 2) as (producer, collector):
        await producer.execute("begin")
        await producer.execute(WAYS[way])
        assert await _answer(collector, free) == []
        if not known:  # nobody else can see new names at all before they are committed
            await producer.execute("commit")
            assert len(await _answer(collector, free)) == 1
            return
        async with blocked(dsn, eventually, collector, f"delete from graphile_worker.{table}") as deletion:
            await producer.execute("commit")
            assert await deletion == [1]


@pytest.mark.parametrize("table", ["_private_tasks", "_private_job_queues"])
@pytest.mark.parametrize("way", WAYS)
async def test_names_that_vanish_meanwhile_are_made_again(
    dsn: str, eventually: Eventually, way: str, table: str
) -> None:
    """A job whose task or queue is being deleted as it is added waits, and then has one that was made anew."""
    await rows(dsn, WAYS[way])
    await rows(dsn, "delete from graphile_worker._private_jobs")
    async with many(dsn, 2) as (producer, collector):
        await collector.execute("begin")
        await collector.execute(cast("LiteralString", f"delete from graphile_worker.{table}"))
        async with blocked(dsn, eventually, producer, WAYS[way]):
            await collector.execute("commit")
    found = await rows(dsn, "select task_identifier, queue_name from graphile_worker.jobs order by id")
    assert found == ([("t", "q"), ("t", None)] if way == "add_jobs" else [("t", "q")])


async def test_names_collected_and_made_at_once(dsn: str) -> None:
    """A collector that deletes unused names all the time leaves no job without its task or its queue."""
    stop = asyncio.Event()

    async def collect(connection: Connection) -> None:
        while not stop.is_set():
            for table, column in (("_private_tasks", "task_id"), ("_private_job_queues", "job_queue_id")):
                unused = f"not exists (select from graphile_worker._private_jobs where {column} = names.id)"
                async with connection.transaction():  # two statements: the second one sees what came before the lock
                    lock = f"select id from graphile_worker.{table} as names where {unused} for update skip locked"
                    ids = [row[0] for row in await _answer(connection, lock)]
                    delete = f"delete from graphile_worker.{table} as names where id = any ($1) and {unused}"
                    await _answer(connection, delete, ids)

    async def produce(connection: Connection, number: int) -> None:
        chance = random.Random(number)
        for _ in range(60):
            name = f"name {chance.randrange(4)}"
            await connection.execute("select graphile_worker.add_job($1, queue_name => $1)", [name])
            await connection.execute(
                """delete from graphile_worker._private_jobs where id in (
                     select id from graphile_worker._private_jobs where id % 2 = $1 for update skip locked)""",
                [chance.randrange(2)],
            )
            spec = "row($1, null, $1, null, null, $1, null, null)::graphile_worker.job_spec"
            await _answer(connection, f"select graphile_worker.add_jobs(array[{spec}])", name)

    async with many(dsn, 10) as (collector, *producers):
        collecting = asyncio.create_task(collect(collector))
        await asyncio.gather(*(produce(connection, number) for number, connection in enumerate(producers)))
        stop.set()
        await collecting
    jobs = await value(dsn, "select count(*) from graphile_worker._private_jobs")
    named = await value(dsn, "select count(*) from graphile_worker.jobs where queue_name = task_identifier")
    assert jobs == named > 0


Produce = Callable[[Connection, random.Random, int], Awaitable[Any]]


async def one_by_one(connection: Connection, chance: random.Random, number: int) -> None:
    """One key in either mode that replaces."""
    await connection.execute(
        "select graphile_worker.add_job('t', to_json($1::integer), job_key => $2, job_key_mode => $3)",
        [number, chance.choice(KEYS), chance.choice(["replace", "preserve_run_at"])],
    )


async def many_at_a_time(connection: Connection, chance: random.Random, number: int) -> None:
    """Some keys in any order, in one call."""
    await connection.execute(
        """select graphile_worker.add_jobs(array(
             select row(name, to_json($1::integer), name, null, null, key, null, null)::graphile_worker.job_spec
             from unnest($2::text[]) as key, concat('name ', $1 % 3) as name))""",
        [number, chance.sample(KEYS, 5)],
    )


async def with_dedupe(connection: Connection, chance: random.Random, number: int) -> None:
    """One key in any mode."""
    await connection.execute(
        "select graphile_worker.add_job('t', to_json($1::integer), job_key => $2, job_key_mode => $3)",
        [number, chance.choice(KEYS), chance.choice(["replace", "preserve_run_at", "unsafe_dedupe"])],
    )


@pytest.mark.parametrize("produce", [one_by_one, many_at_a_time, with_dedupe])
async def test_a_storm_on_few_keys(dsn: str, produce: Produce) -> None:
    """32 producers on 10 keys: none fails, and one waiting job a key is left, the newest of all."""

    async def run(connection: Connection, seed: int) -> None:
        chance = random.Random(seed)
        for number in range(20):
            await produce(connection, chance, seed * 100 + number)

    async with many(dsn, PRODUCERS) as connections:
        await asyncio.gather(*(run(connection, seed) for seed, connection in enumerate(connections)))
        for key in KEYS:
            await connections[0].execute("select graphile_worker.add_job('t', '\"last\"', job_key => $1)", [key])
    assert await rows(dsn, KEYED) == [(key, 1, True, '"last"') for key in KEYS]
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == len(KEYS)


@pytest.mark.parametrize("produce", [one_by_one, many_at_a_time])
async def test_a_storm_while_workers_run_the_jobs(dsn: str, produce: Produce) -> None:
    """With claims, failures and removals between: none fails, and no key has two jobs.

    Every job that was cut off is over.
    """
    claim = """
        with pick as materialized (
          select ctid from graphile_worker._private_jobs where is_available limit 3 for update skip locked
        )
        update graphile_worker._private_jobs set attempts = attempts + 1, locked_by = 'w', locked_at = now()
        where ctid = any (array(select ctid from pick)) returning id"""
    end = [
        "delete from graphile_worker._private_jobs as jobs using unnest($1::bigint[]) as ended where jobs.id = ended",
        """update graphile_worker._private_jobs as jobs set locked_by = null, locked_at = null, last_error = 'x'
           from unnest($1::bigint[]) as ended where jobs.id = ended""",
    ]
    stop = asyncio.Event()

    async def produce_some(connection: Connection, seed: int) -> None:
        chance = random.Random(seed)
        for number in range(15):
            await produce(connection, chance, seed * 100 + number)
            if number % 5 == 4:
                # a call that stands in the queue for a row can be the one that ends a ring of two others
                await again_after_deadlocks(connection, "select graphile_worker.remove_job($1)", chance.choice(KEYS))

    async def work(connection: Connection, seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            claimed = [row[0] for row in await again_after_deadlocks(connection, claim)]
            chance.shuffle(claimed)
            await again_after_deadlocks(connection, chance.choice(end), claimed)
            assert await rows(dsn, TWICE) == []

    async with many(dsn, PRODUCERS) as connections:
        working = [asyncio.create_task(work(connection, seed)) for seed, connection in enumerate(connections[:4])]
        await asyncio.gather(*(produce_some(connection, seed) for seed, connection in enumerate(connections[4:])))
        stop.set()
        await asyncio.gather(*working)
        for key in KEYS:
            await connections[0].execute("select graphile_worker.add_job('t', '\"last\"', job_key => $1)", [key])
    assert await rows(dsn, KEYED) == [(key, 1, True, '"last"') for key in KEYS]
    left = await rows(dsn, "select is_available from graphile_worker._private_jobs where key is null")
    assert not any(available for (available,) in left)


TWICE = "select key from graphile_worker._private_jobs where key is not null group by 1 having count(*) > 1"


async def again_after_deadlocks(connection: Connection, statement: str, *parameters: Any) -> list[Any]:
    """Claim and settle as a worker does: until the database has done it."""
    while True:
        with suppress(psycopg.errors.DeadlockDetected):
            return await _answer(connection, statement, *parameters)


FIRST: dict[str, tuple[LiteralString, list[Any]]] = {
    "replaced": ("select graphile_worker.add_job('t', '1', job_key => 'k')", [("k", 2, 2, 0, None)]),
    "removed": ("select graphile_worker.remove_job('k')", [("k", 2, 0, 0, None)]),
    "completed": ("delete from graphile_worker._private_jobs", [("k", 2, 0, 0, None)]),
    "claimed": (
        "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1",
        [(None, 0, 0, 25, "w"), ("k", 2, 0, 0, None)],
    ),
    "failed for good": (
        "update graphile_worker._private_jobs set attempts = max_attempts",
        [(None, 0, 0, 25, None), ("k", 2, 0, 0, None)],
    ),
}
JOBS = "select key, payload, revision, attempts, locked_by from graphile_worker._private_jobs order by id"


@pytest.mark.parametrize("way", ["add_job", "add_jobs"])
@pytest.mark.parametrize("first", FIRST)
async def test_a_producer_behind_another_change_of_the_job(
    dsn: str, eventually: Eventually, first: str, way: str
) -> None:
    """It waits for the other's commit, and then goes by what it finds."""
    statement, left = FIRST[first]
    spec = "row('t', '2', null, null, null, 'k', null, null)::graphile_worker.job_spec"
    add = "add_job('t', '2', job_key => 'k')" if way == "add_job" else f"add_jobs(array[{spec}])"
    await rows(dsn, "select graphile_worker.add_job('t', '0', job_key => 'k')")
    async with many(dsn, 2) as (one, other):
        await one.execute("begin")
        await one.execute(statement)
        async with blocked(dsn, eventually, other, f"select (graphile_worker.{add}).key") as adding:
            await one.execute("commit")
            assert await adding == [("k",)]
    assert await rows(dsn, JOBS) == left


REMOVED: dict[str, tuple[LiteralString, bool, list[Any]]] = {
    "replaced": ("select graphile_worker.add_job('t', '1', job_key => 'k')", True, []),
    "removed": ("select graphile_worker.remove_job('k')", False, []),
    "claimed": (
        "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1",
        True,
        [(None, 0, 0, 25, "w")],
    ),
}


@pytest.mark.parametrize("first", REMOVED)
async def test_a_removal_behind_another_change_of_the_job(dsn: str, eventually: Eventually, first: str) -> None:
    """It removes what it finds when the other has committed: the replacement.

    Where a worker was faster, it removes the key.
    """
    statement, finds, left = REMOVED[first]
    await rows(dsn, "select graphile_worker.add_job('t', '0', job_key => 'k')")
    async with many(dsn, 2) as (one, other):
        await one.execute("begin")
        await one.execute(statement)
        async with blocked(
            dsn, eventually, other, "select (graphile_worker.remove_job('k')).id is not null"
        ) as removing:
            await one.execute("commit")
            assert await removing == [(finds,)]
    assert await rows(dsn, JOBS) == left


async def test_under_repeatable_read_a_race_is_an_error(dsn: str, eventually: Eventually) -> None:
    """Where the snapshot may not move, the loser is told to try again (40001): never a wrong or a second job."""
    async with many(dsn, 2) as (one, other):
        await other.execute("begin isolation level repeatable read")
        await other.execute("select 1 from graphile_worker._private_jobs")
        await one.execute("select graphile_worker.add_job('new', '1', job_key => 'k')")
        with pytest.raises(psycopg.errors.SerializationFailure):
            await other.execute("select graphile_worker.add_job('new', '2', job_key => 'k')")
        await other.execute("rollback")
    assert Counter(await rows(dsn, JOBS)) == {("k", 1, 0, 0, None): 1}


async def test_a_ring_with_a_worker_is_the_producers_to_undo(dsn: str, eventually: Eventually) -> None:
    """A worker that ends two jobs and a producer with both their keys, each in its own order: both go through."""
    for key in "ab":
        await rows(dsn, "select graphile_worker.add_job('t', '0', job_key => %s)", key)
    async with many(dsn, 2) as (worker, producer):
        await worker.execute("set deadlock_timeout = '10min'")  # so that it is the producer who looks for the ring
        await worker.execute("begin")
        await worker.execute("delete from graphile_worker._private_jobs where key = 'b'")
        specs = ", ".join(
            f"row('t', '1', null, null, null, '{key}', null, null)::graphile_worker.job_spec" for key in "ab"
        )
        add = f"select key, revision from graphile_worker.add_jobs(array[{specs}])"
        async with blocked(dsn, eventually, producer, add) as adding:
            await worker.execute("delete from graphile_worker._private_jobs where key = 'a'")
            await worker.execute("commit")
            assert await adding == [("a", 0), ("b", 0)]
    assert await rows(dsn, JOBS) == [("a", 1, 0, 0, None), ("b", 1, 0, 0, None)]


async def test_a_job_that_gets_the_key_while_it_is_removed_is_removed_too(dsn: str, eventually: Eventually) -> None:
    """It is deleted, as one that was there before: no row is left that has neither a key nor attempts."""
    await rows(dsn, "select graphile_worker.add_job('t', job_key => 'k')")
    async with many(dsn, 2) as (other, remover):
        async with other.transaction():
            await other.execute("delete from graphile_worker._private_jobs where key = 'k'")
            await other.execute("select graphile_worker.add_job('t', job_key => 'k')")
            removal = asyncio.create_task(_answer(remover, "select id, key from graphile_worker.remove_job('k')"))
            await eventually(lambda: value(dsn, BLOCKED, remover.info.backend_pid))
        [(number, key)] = await asyncio.wait_for(removal, 30)
    assert (number, key) == (2, "k")
    assert await rows(dsn, "select id, key, attempts from graphile_worker._private_jobs") == []
