"""Bulk jobs with keys: the three modes, keys that come twice, ids in order, and two calls that never wait in a ring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, BulkEnqueueError, JobKeyMode, JobSpec, NewJob, Queue

from plugins.waiting import Eventually
from reading import rows, value

REPLACE, PRESERVE, DEDUPE = JobKeyMode.REPLACE, JobKeyMode.PRESERVE_RUN_AT, JobKeyMode.UNSAFE_DEDUPE
OLD, NEW = datetime(2040, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)
BY_KEY: LiteralString = """select jobs.key, bare.payload::text, jobs.revision, jobs.attempts, jobs.run_at
    from graphile_worker.jobs join graphile_worker._private_jobs as bare using (id) order by jobs.key, id"""


def keyed(key: str, payload: object, mode: JobKeyMode | None = None, **said: Any) -> NewJob[Any]:
    """A job of a key."""
    return NewJob("t", payload, JobSpec(job_key=key, job_key_mode=mode, **said))


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


@pytest.mark.parametrize("mode", [None, *JobKeyMode])
async def test_each_mode_does_what_it_does_singly(client: BackfillClient, dsn: str, mode: JobKeyMode | None) -> None:
    """Jobs that wait, that wait for a retry, that run and that are spent, and keys that are free.

    The rows are as `enqueue` writes them.
    """
    states = {
        "waiting": "attempts = 0",
        "retrying": "attempts = 1, last_error = 'x'",
        "running": "attempts = 1, locked_by = 'w', locked_at = now()",
        "spent": "attempts = max_attempts, last_error = 'x'",
    }
    keys = [f"{kind} {state}" for kind in ("one", "many") for state in states]
    for key in keys:
        await client.enqueue("old", {"old": 1}, job_key=key, run_at=OLD, queue=Queue.serial("q"), flags=["old"])
    for state, change in states.items():
        await rows(
            dsn,
            f"update graphile_worker._private_jobs set {change} "  # type: ignore[arg-type]
            f"where key like '% {state}' returning id",
        )
    said: dict[str, Any] = {"run_at": NEW, "priority": 3, "max_attempts": 2, "flags": ["new"]}
    for state in [*states, "free"]:
        await client.enqueue(keyed(f"one {state}", {"new": 1}, mode, **said))
    jobs = [keyed(f"many {state}", {"new": 1}, mode, **said) for state in [*states, "free"]]
    outcome = await client.enqueue_bulk(jobs, return_ids=True)
    assert outcome.written == 5
    found = await rows(
        dsn,
        """select split_part(jobs.key, ' ', 2), split_part(jobs.key, ' ', 1), jobs.task_identifier, jobs.queue_name,
                  jobs.priority, jobs.run_at, jobs.attempts, jobs.max_attempts, jobs.revision, jobs.flags,
                  jobs.last_error, jobs.locked_by, bare.payload::text
           from graphile_worker.jobs join graphile_worker._private_jobs as bare using (id)
           where jobs.key is not null""",
    )
    single = {row[0]: row[2:] for row in found if row[1] == "one"}
    bulk = {row[0]: row[2:] for row in found if row[1] == "many"}
    assert single == bulk
    assert set(bulk) == {*states, "free"}
    ids = dict(await rows(dsn, "select key, id from graphile_worker.jobs where key like 'many %'"))
    assert outcome.ids == [ids[f"many {state}"] for state in [*states, "free"]]
    spent = "select count(*) from graphile_worker.jobs where key is null and attempts = max_attempts"
    assert await value(dsn, spent) == (0 if mode is DEDUPE else 4)


@pytest.mark.parametrize("chunks", [1, 3])
async def test_a_key_that_comes_twice_is_applied_in_order(client: BackfillClient, dsn: str, chunks: int) -> None:
    """As if each were enqueued after the other; the ids are those of the jobs that they ended up in."""
    pad = [NewJob("pad", {})] * 2000 * (chunks - 1)
    jobs = [
        keyed("a", {"n": 1}, run_at=OLD),
        keyed("b", [1]),
        *pad,
        keyed("a", {"n": 2}, PRESERVE, run_at=NEW),
        keyed("b", [2]),
        NewJob("pad", {}),
        keyed("a", {"n": 3}, DEDUPE),
        keyed("c", {"n": 1}, DEDUPE),
        keyed("c", {"n": 2}),
        keyed("b", [3]),
    ]
    outcome = await client.enqueue_bulk(jobs, return_ids=True)
    assert outcome.written == len(jobs)
    found = await rows(dsn, BY_KEY)
    assert [row[:4] for row in found if row[0]] == [
        ("a", '{"n":2}', 2, 0),
        ("b", "[1, 2, 3]", 2, 0),
        ("c", '{"n":2}', 1, 0),
    ]
    assert found[0][4] == OLD
    ids = dict(await rows(dsn, "select key, id from graphile_worker.jobs where key is not null"))
    assert outcome.ids is not None
    for job, id_ in zip(jobs, outcome.ids, strict=True):
        assert ids.get(job.spec.job_key or "", id_) == id_
    assert len(set(outcome.ids)) == len(pad) + 1 + 3


async def test_keyless_and_keyed_ones_keep_the_order_of_ids(client: BackfillClient, dsn: str) -> None:
    """Ids are given back in the order of the jobs, whatever way each went.

    Keyless ones of a queue run in their order.
    """
    jobs = [
        keyed(f"k{n}", {"n": n}) if n % 3 == 0 else NewJob("t", {"n": n}, JobSpec(queue=Queue.serial(f"q{n % 2}")))
        for n in range(5001)
    ]
    outcome = await client.enqueue_bulk(jobs, return_ids=True)
    found = dict(await rows(dsn, "select id, (payload ->> 'n')::int from graphile_worker._private_jobs"))
    assert outcome.ids is not None
    assert [found[id_] for id_ in outcome.ids] == list(range(5001))
    for queue in ("q0", "q1"):
        order = await rows(
            dsn,
            """select (bare.payload ->> 'n')::int from graphile_worker.jobs
               join graphile_worker._private_jobs as bare using (id) where queue_name = %s order by id""",
            queue,
        )
        assert order == sorted(order)


@pytest.mark.parametrize("mode", list(JobKeyMode))
async def test_calls_with_the_same_keys_never_wait_in_a_ring(
    client: BackfillClient, dsn: str, mode: JobKeyMode
) -> None:
    """Many at once, in opposite orders.

    None fails with a deadlock, none loses a key, none makes a second job of one.
    """
    keys = [f"key {n}" for n in range(1500)]

    async def call(number: int) -> int:
        order = keys if number % 2 else keys[::-1]
        return (await client.enqueue_bulk(keyed(key, {"n": number}, mode) for key in order)).written

    for _ in range(2):
        assert await asyncio.gather(*map(call, range(6))) == [1500] * 6
    assert await rows(dsn, "select count(*), count(distinct key) from graphile_worker.jobs") == [(1500, 1500)]


async def test_calls_with_new_names_never_wait_in_a_ring(client: BackfillClient, dsn: str) -> None:
    """Tasks and queues that many calls make at once, in opposite orders."""
    names = [f"name {n}" for n in range(1500)]

    async def call(number: int) -> int:
        order = names if number % 2 else names[::-1]
        jobs = (NewJob(name, {}, JobSpec(queue=Queue.serial(name))) for name in order)
        return (await client.enqueue_bulk(jobs)).written

    assert await asyncio.gather(*map(call, range(4))) == [1500] * 4
    assert await rows(dsn, "select count(*), count(distinct queue_name) from graphile_worker.jobs") == [(6000, 1500)]


async def test_beside_single_calls(client: BackfillClient, dsn: str) -> None:
    """Single and bulk calls with the same keys, at once: none fails, one job a key is left."""
    keys = [f"key {n}" for n in range(60)]
    bulk = [client.enqueue_bulk(keyed(key, {}) for key in (keys[::-1] if n % 2 else keys)) for n in range(6)]
    single = [client.enqueue(keyed(key, {})) for key in keys]
    await asyncio.gather(*bulk, *single)
    assert await rows(dsn, "select count(*), count(distinct key) from graphile_worker.jobs") == [(60, 60)]


@pytest.mark.parametrize("mode", list(JobKeyMode))
async def test_all_or_nothing_with_keys(client: BackfillClient, dsn: str, mode: JobKeyMode) -> None:
    """A bad item later on leaves the jobs of the keys as they were; committed parts stay."""
    await client.enqueue(keyed("k0", {"old": 1}))
    before = await rows(dsn, BY_KEY)

    def jobs() -> list[NewJob[Any]]:
        return [*(keyed(f"k{n}", {"n": n}, mode) for n in range(2500)), NewJob("t", object())]

    with pytest.raises(BulkEnqueueError) as caught:
        await client.enqueue_bulk(jobs())
    assert (caught.value.written, caught.value.index) == (0, 2500)
    assert await rows(dsn, BY_KEY) == before
    with pytest.raises(BulkEnqueueError) as caught:
        await client.enqueue_bulk(jobs(), commit_every=1000)
    assert (caught.value.written, caught.value.index) == (2000, 2500)
    assert await value(dsn, "select count(*) from graphile_worker.jobs where key like 'k%'") == 2000


async def test_the_keys_stay_locked_until_the_caller_ends(dsn: str, eventually: Eventually) -> None:
    """In the caller's transaction another producer of the same key waits for it, and then replaces its job."""
    blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    client = BackfillClient(dsn)
    async with client, await psycopg.AsyncConnection.connect(dsn) as connection:
        await client.enqueue_bulk([keyed("k", {"n": 1})], connection=connection)
        other = asyncio.create_task(client.enqueue(keyed("k", {"n": 2})))
        await eventually(lambda: value(dsn, blocked), lambda count: count == 1)
        assert not other.done()
        await connection.commit()
        assert (await other).revision == 1
    assert [row[1] for row in await rows(dsn, BY_KEY)] == ['{"n":2}']


@pytest.mark.parametrize("mode", list(JobKeyMode))
async def test_keyed_jobs_are_due_now_or_after_their_delay(client: BackfillClient, dsn: str, mode: JobKeyMode) -> None:
    """By the database's clock, as those without keys."""
    late = timedelta(days=400, microseconds=1)
    before = await value(dsn, "select clock_timestamp()")
    await client.enqueue_bulk([keyed("now", {}, mode), keyed("late", {}, mode, delay=late), NewJob("t", {})])
    after = await value(dsn, "select clock_timestamp()")
    found = dict(await rows(dsn, "select key, run_at from graphile_worker.jobs"))
    assert before <= found["now"] <= after
    assert before <= found[None] <= after
    assert before + late <= found["late"] <= after + late
