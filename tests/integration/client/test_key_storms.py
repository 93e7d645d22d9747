"""Producers with several statements a call, on the same keys and new names.

None waits in a ring, whoever else is there.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from backfill import (
    BackfillClient,
    JobKeyMode,
    JobSpec,
    NewJob,
    Queue,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from backfill.client.bulk import verb as bulk

from plugins.periods import work_for
from plugins.waiting import Eventually
from reading import rows, value

REPLACE, DEDUPE = JobKeyMode.REPLACE, JobKeyMode.UNSAFE_DEDUPE
BLOCKED: LiteralString = """
    select count(*) from pg_stat_activity
    where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0"""
TWICE: LiteralString = """
    select key from graphile_worker._private_jobs where key is not null group by key having count(*) > 1"""


def keyed(key: str, mode: JobKeyMode = REPLACE, task: str = "t", payload: Any = None, **said: Any) -> NewJob[Any]:
    """A job of a key."""
    return NewJob(task, payload, JobSpec(job_key=key, job_key_mode=mode, **said))


def named(task: str, queue: str | None = None) -> NewJob[Any]:
    """A job without a key, of a task and perhaps a queue."""
    return NewJob(task, None, JobSpec(queue=None if queue is None else Queue.serial(queue)))


DEAD: LiteralString = """
    insert into graphile_worker.backfill_dlq (task_identifier, payload, job_key, failure_reason)
    values ('known', '{}', %s, 'x')"""


def never_looks(dsn: str) -> str:
    """A DSN whose sessions do not look for rings, so that it is another who is cut off to end one."""
    return make_conninfo(dsn, options="-c deadlock_timeout=10min")


PAD: NewJob[Any] = NewJob("known")
"""A job that nobody waits for; two jobs fill a chunk."""


def chunks(*jobs: NewJob[Any]) -> list[NewJob[Any]]:
    """Jobs that a bulk call writes by a statement each."""
    return [one for job in jobs for one in (job, PAD)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bulk calls write two jobs at a time."""
    monkeypatch.setattr(bulk, "CHUNK_ROWS", 2)


class Stepwise:
    """The jobs of a bulk call, a chunk each, of which the last is given only once it may go on."""

    def __init__(self, *jobs: NewJob[Any]) -> None:
        self.written = asyncio.Event()
        self.go_on = asyncio.Event()
        self._jobs = jobs

    async def __aiter__(self) -> AsyncIterator[NewJob[Any]]:
        """All but the last are written when the last is asked for."""
        for job in chunks(*self._jobs[:-1]):
            yield job
        self.written.set()
        await self.go_on.wait()
        yield self._jobs[-1]


Other = Callable[[BackfillClient], Coroutine[Any, Any, Any]]
RINGS: dict[str, tuple[list[NewJob[Any]], Other]] = {
    "a call with both keys, in one statement": (
        [keyed("b"), keyed("a")],
        lambda client: client.enqueue_bulk([keyed("a"), keyed("b")], commit_every=2),
    ),
    "a call with both keys, deduped": (
        [keyed("b", DEDUPE), keyed("a", DEDUPE)],
        lambda client: client.enqueue_bulk([keyed("a", DEDUPE), keyed("b", DEDUPE)], commit_every=2),
    ),
    "a call that takes the keys the other way round": (
        [keyed("a"), keyed("b")],
        lambda client: client.enqueue_bulk(chunks(keyed("b"), keyed("a"))),
    ),
    "a call that applies one mode first": (
        [keyed("a"), keyed("b")],
        lambda client: client.enqueue_bulk([keyed("b", DEDUPE), keyed("a")], commit_every=2),
    ),
    "a call that makes the same tasks": (
        [PAD, named("task 2"), named("task 1")],
        lambda client: client.enqueue_bulk(chunks(PAD, named("task 1"), named("task 2"))),
    ),
    "a call that begins with the same queues": (
        [PAD, named("known", "q2"), named("known", "q1")],
        lambda client: client.enqueue_bulk([named("known", "q1"), named("known", "q2")]),
    ),
    "one job whose task and queue are made": (
        [PAD, named("known", "q"), named("task")],
        lambda client: client.enqueue("task", queue=Queue.serial("q")),
    ),
    "one job of the key whose task is made": (
        [keyed("a"), named("task")],
        lambda client: client.enqueue("task", job_key="a"),
    ),
    "jobs that are completed": ([keyed("b"), keyed("a")], lambda client: client.complete_jobs([1, 2])),
    "dead letters that are requeued": ([keyed("b"), keyed("a")], lambda client: client.requeue_dlq_jobs([1, 2])),
}


@pytest.mark.parametrize("whose", RINGS)
@pytest.mark.parametrize("looks", ["long", "other"])
async def test_a_call_of_several_chunks_ends_beside(dsn: str, eventually: Eventually, whose: str, looks: str) -> None:
    """It holds what the other wants, and then wants what the other might hold.

    Both end, whoever would look for a ring.
    """
    for key in "ab":
        await rows(dsn, DEAD, key)
        if "completed" in whose:
            await rows(dsn, "select graphile_worker.add_job('t', job_key => %s)", key)
    jobs, other = RINGS[whose]
    async with (
        BackfillClient(dsn if looks == "long" else never_looks(dsn)) as one,
        BackfillClient(dsn if looks == "other" else never_looks(dsn)) as two,
        asyncio.timeout(30),
        asyncio.TaskGroup() as group,
    ):
        steps = Stepwise(*jobs)
        long = group.create_task(one.enqueue_bulk(steps))
        await steps.written.wait()
        short = group.create_task(other(two))
        await eventually(lambda: value(dsn, BLOCKED), lambda count: bool(count) or short.done())
        steps.go_on.set()
    assert long.result().written == 2 * len(jobs) - 1
    assert await rows(dsn, TWICE) == []


FREE: dict[str, Other] = {
    "one job of another key": lambda client: client.enqueue("known", job_key="other"),
    "one job of a new task": lambda client: client.enqueue("new", queue=Queue.serial("new")),
    "jobs without keys": lambda client: client.enqueue_bulk(chunks(PAD, named("known"), named("known"))),
    "jobs of new names, without keys": lambda client: client.enqueue_bulk([named("new", "q1"), named("new", "q2")]),
    "keyed jobs that take one statement": lambda client: client.enqueue_bulk(
        [keyed("other"), keyed("third")], commit_every=2
    ),
    "jobs that are completed": lambda client: client.complete_jobs([1, 2]),
    "a removal": lambda client: client.remove_job("other"),
}


async def test_keyed_bulk_calls_wait_for_one_in_a_callers_transaction(dsn: str, eventually: Eventually) -> None:
    """Until the caller ends it; those of one statement, single jobs and jobs without keys pass by."""
    async with BackfillClient(dsn) as client, await psycopg.AsyncConnection.connect(dsn) as connection:
        await client.enqueue_bulk([named("known"), named("t")])
        for same in ([keyed("a")], chunks(keyed("b"), keyed("c"))):
            await client.enqueue_bulk([keyed("a")], connection=connection)
            async with asyncio.timeout(20):
                for free in FREE.values():
                    await free(client)
            waiting = asyncio.create_task(client.enqueue_bulk(same))
            await eventually(lambda: value(dsn, BLOCKED))
            assert not waiting.done()
            await connection.commit()
            assert (await waiting).written == len(same)
    found = await rows(dsn, "select key, revision from graphile_worker.jobs where key is not null order by key")
    assert found == [("a", 2), ("b", 0), ("c", 0), ("third", 1)]


@pytest.mark.parametrize("mode", list(JobKeyMode))
async def test_a_ring_with_a_worker_is_undone(dsn: str, eventually: Eventually, mode: JobKeyMode) -> None:
    """A worker that ends two jobs holds one and waits for the other: the call lets go, and both go through."""
    async with (
        BackfillClient(dsn) as client,
        await psycopg.AsyncConnection.connect(never_looks(dsn)) as worker,
        asyncio.timeout(30),
    ):
        await client.enqueue_bulk([keyed("a"), keyed("b")])
        await worker.execute("delete from graphile_worker._private_jobs where key = 'b'")
        call = asyncio.create_task(client.enqueue_bulk([keyed("a", mode), keyed("b", mode)], return_ids=True))
        await eventually(lambda: value(dsn, BLOCKED))
        await worker.execute("delete from graphile_worker._private_jobs where key = 'a'")
        await worker.commit()
        ids = (await call).ids
    assert await rows(dsn, "select array_agg(id order by key), sum(revision) from graphile_worker.jobs") == [(ids, 0)]


STANDING: dict[str, Other] = {
    "remove_job": lambda client: client.remove_job("a"),
    "enqueue": lambda client: client.enqueue("known", job_key="a"),
    "enqueue, deduped": lambda client: client.enqueue("known", job_key="a", job_key_mode=DEDUPE),
    "complete_jobs": lambda client: client.complete_jobs([1]),
}


@pytest.mark.parametrize("verb", STANDING)
async def test_a_call_that_only_stands_in_a_queue_for_a_row(dsn: str, eventually: Eventually, verb: str) -> None:
    """A worker waits for a producer, and he behind this call for the worker.

    It is undone to end the ring, and repeated.
    """
    lock: LiteralString = "select id from graphile_worker._private_jobs where key = %s for update"
    async with (
        BackfillClient(dsn) as client,
        await psycopg.AsyncConnection.connect(never_looks(dsn)) as worker,
        await psycopg.AsyncConnection.connect(never_looks(dsn)) as producer,
        asyncio.timeout(30),
        asyncio.TaskGroup() as group,
    ):
        await client.enqueue_bulk([keyed("a", task="known"), keyed("b")])
        await client.enqueue("known", job_key="c")
        await worker.execute(lock, ["a"])
        await producer.execute(lock, ["b"])
        group.create_task(STANDING[verb](client))
        await eventually(lambda: value(dsn, BLOCKED), lambda count: count == 1)
        behind = group.create_task(producer.execute(lock, ["a"]))
        await eventually(lambda: value(dsn, BLOCKED), lambda count: count == 2)
        await worker.execute(
            "set local lock_timeout = '3s'"
        )  # as a worker's, but longer than the server's look for rings
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await worker.execute(lock, ["b"])
        await worker.rollback()
        await behind
        await producer.rollback()


PRODUCERS = 32
KEYS = [f"key {number}" for number in range(10)]
LEFT: LiteralString = """
    select bare.key, bare.is_available, jobs.task_identifier
    from graphile_worker._private_jobs as bare join graphile_worker.jobs using (id)
    where bare.key is not null order by bare.key"""


async def test_a_storm_while_workers_run(dsn: str) -> None:
    """32 producers, each with single jobs, many at a time and removals, and workers that fail some.

    One job a key is left.
    """
    tasks, ran = TaskRegistry[None](), Counter[str]()

    @tasks.task("t", retry=RetryPolicy(max_attempts=2, initial_delay=timedelta(milliseconds=1)))
    async def work(payload: Any, ctx: WorkerContext[None]) -> None:
        ran["all"] += 1
        await work_for(0.001 * (ran["all"] % 5))
        if ran["all"] % 3 == 0:
            ran["failed"] += 1
            raise ValueError("one of three fails")

    async def produce(client: BackfillClient, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(4):
            modes = [chance.choice(list(JobKeyMode)) for _ in KEYS]
            queues = [None if chance.random() < 0.5 else Queue.serial(f"q{chance.randrange(50)}") for _ in KEYS]
            jobs = [
                keyed(key, mode, payload=seed, queue=queue)
                for key, mode, queue in zip(KEYS, modes, queues, strict=True)
            ]
            for job in chance.sample(jobs, 3):
                await client.enqueue(job)
            chance.shuffle(jobs)
            outcome = await client.enqueue_bulk(
                [*jobs, named(f"new {chance.randrange(9)}"), jobs[0]],
                return_ids=True,
                commit_every=chance.choice([None, 2, 5]),
            )
            assert len(set(outcome.ids or ())) >= len(KEYS)
            await client.remove_job(chance.choice(KEYS))
            ran["rounds"] += 1

    config = WorkerConfig(dsn, concurrency=20, poll_interval=timedelta(milliseconds=20))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(BackfillClient(dsn, max_size=8)) for _ in range(4)]
        async with WorkerRunner(config, tasks), WorkerRunner(config, tasks), asyncio.timeout(50):
            await asyncio.gather(*(produce(clients[seed % 4], seed) for seed in range(PRODUCERS)))
            assert await rows(dsn, TWICE) == []
        assert ran["rounds"] == 4 * PRODUCERS
        assert ran["failed"]
        for table in ("_private_jobs", "_private_job_queues"):
            held = f"select count(*) from graphile_worker.{table} where locked_at is not null"
            assert await value(dsn, held) == 0  # type: ignore[arg-type]
        for key in KEYS[1::2]:
            await clients[0].enqueue("last", job_key=key)
        await clients[0].enqueue_bulk(chunks(*(keyed(key, task="last") for key in reversed(KEYS[::2]))))
        await clients[0].remove_job(KEYS[0])
    assert await rows(dsn, LEFT) == [(key, True, "last") for key in KEYS[1:]]
