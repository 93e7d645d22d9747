"""How often workers are notified: once a statement, not at all (`notify=False`), or now and then (`notify_every`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from backfill import (
    BackfillClient,
    ConfigurationError,
    InvalidJobError,
    JobKeyMode,
    JobSpec,
    NewJob,
    Queue,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
    enqueue_bulk,
    enqueue_fast,
    enqueue_serial,
)

from plugins.periods import let_pass
from plugins.roles import NewRole
from reading import value

COUNT = "select count(*) from graphile_worker.jobs"
SHORT = timedelta(milliseconds=300)
QUEUES = Queue.serial('q"{}'), None


class Ear:
    """Hears the notifications of new jobs: how many jobs each tells of."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def heard(self) -> list[int]:
        """What came since the last call; a notification of ours ends the wait."""
        await self._connection.execute('notify "jobs:insert", \'{"count": 0}\'')
        found = [json.loads(one.payload)["count"] async for one in self._connection.notifies(timeout=30, stop_after=1)]
        while 0 not in found:
            found += [json.loads(one.payload)["count"] async for one in self._connection.notifies(stop_after=1)]
        return [count for count in found if count]


@pytest.fixture
async def ear(dsn: str) -> AsyncIterator[Ear]:
    """Listens from the test's beginning on."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute('listen "jobs:insert"')
        yield Ear(connection)


async def test_calls_that_go_together_tell_once(dsn: str, ear: Ear) -> None:
    """One notification for the call that went first, and one for all that followed it, with keys and without."""
    async with BackfillClient(dsn, max_size=1) as client:
        await client.open()
        await asyncio.gather(
            *(client.enqueue("t", n) for n in range(20)), *(client.enqueue("t", n, job_key=f"k{n}") for n in range(20))
        )
        assert await ear.heard() == [1, 39]


async def test_a_call_that_tells_nobody(dsn: str, ear: Ear, role: NewRole) -> None:
    """`notify=False` writes each kind of job without a notification, by itself and together, for producers too."""
    for whose, address in (("owner", dsn), ("producer", role("producer"))):
        async with BackfillClient(address, max_size=1) as client:
            for _ in range(2):
                calls = [
                    client.enqueue("t", 1, notify=False),
                    client.enqueue(f"new {whose}", 2, queue=Queue.serial(f"new {whose}"), notify=False),
                    client.enqueue("t", 3, job_key="k", notify=False),
                    client.enqueue("t", 4, job_key="j", job_key_mode=JobKeyMode.UNSAFE_DEDUPE, notify=False),
                    enqueue_fast(client, "t", 5, notify=False),
                    enqueue_serial(client, "t", 6, Queue.serial("q"), notify=False),
                ]
                for call in calls:
                    outcome = await call
                    assert outcome.job.task_identifier in ("t", f"new {whose}")
            await asyncio.gather(*(client.enqueue("t", n, notify=False) for n in range(20)))
        assert await ear.heard() == []
    assert await value(dsn, COUNT) == 2 * (8 + 20) + 2


async def test_the_caller_of_one_that_tells_gets_a_notification(dsn: str, ear: Ear) -> None:
    """Among calls that go together, only those that tell are counted."""
    async with BackfillClient(dsn, max_size=1) as client:
        await client.open()
        await asyncio.gather(*(client.enqueue("t", n, notify=n == 5) for n in range(10)))
        assert len(await ear.heard()) == 1


async def test_in_a_callers_transaction(dsn: str, ear: Ear) -> None:
    """`notify=False` holds there too; otherwise the workers are told with its commit."""
    async with BackfillClient(dsn) as client, await psycopg.AsyncConnection.connect(dsn) as connection:
        await client.enqueue("new", 1, queue=Queue.serial("new"), connection=connection, notify=False)
        await client.enqueue("t", 1, job_key="k", connection=connection, notify=False)
        await connection.commit()
        assert await ear.heard() == []
        await client.enqueue("t", 1, connection=connection)
        await connection.commit()
        assert await ear.heard() == [1]
    assert await value(dsn, COUNT) == 3


@pytest.mark.parametrize("duty", [None, "producer"])
async def test_bulk_calls_that_tell_nobody(dsn: str, ear: Ear, role: NewRole, duty: str | None) -> None:
    """`enqueue_bulk(notify=False)` writes all kinds of jobs without a notification."""
    async with BackfillClient(dsn if duty is None else role(duty)) as client:
        for count in (10, 5_000):
            keyed = [NewJob("t", n, JobSpec(job_key=f"{count}/{n}", queue=QUEUES[n % 2])) for n in range(count)]
            mixed = [NewJob("t", n, JobSpec(queue=QUEUES[n % 2])) for n in range(count)]
            dedupe = JobKeyMode.UNSAFE_DEDUPE
            deduped = [NewJob("t", n, JobSpec(job_key=f"d{count}/{n}", job_key_mode=dedupe)) for n in range(count)]
            outcome = await client.enqueue_bulk([*keyed, *mixed, *deduped], notify=False, return_ids=True)
            assert outcome.written == 3 * count
            assert outcome.ids is not None
            assert len(set(outcome.ids)) == 3 * count
        await enqueue_bulk(client, "t", range(3), notify=False)
        assert await ear.heard() == []
        await client.enqueue_bulk("t", range(3))
        assert await ear.heard() == [3]
    assert await value(dsn, COUNT) == 3 * 5_010 + 6


async def test_now_and_then(dsn: str, ear: Ear) -> None:
    """With `notify_every` the first job is told at once, and those of the interval together, at its end."""
    async with BackfillClient(dsn, max_size=2, notify_every=SHORT) as client:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await client.enqueue("t", 1)
        assert await ear.heard() == [1]
        for n in range(3):
            await client.enqueue("t", n)
        await client.enqueue("t", n, job_key="k")
        await client.enqueue_bulk("t", range(10))
        await asyncio.gather(*(client.enqueue("t", n) for n in range(10)))
        if loop.time() - began < SHORT.total_seconds():
            assert await ear.heard() == []
        await let_pass(began + 2 * SHORT.total_seconds() - loop.time())
        assert sum(await ear.heard()) == 24
        await client.enqueue("t", 1)
        await client.enqueue("t", 1)
        first = await ear.heard()
    assert first + await ear.heard() == [1, 1]


async def test_closing_tells_what_was_not_told(dsn: str, ear: Ear) -> None:
    """The last notification does not wait for its interval, which is an hour here, if the client closes."""
    async with BackfillClient(dsn, max_size=1, notify_every=timedelta(hours=1)) as client:
        for n in range(4):
            await client.enqueue("t", n)
        assert await ear.heard() == [1]
    assert await ear.heard() == [3]


async def test_not_more_than_one_in_an_interval(dsn: str, ear: Ear) -> None:
    """However many calls there are, there are no more notifications than intervals, and the one at the end."""
    async with BackfillClient(dsn, max_size=2, notify_every=timedelta(milliseconds=50)) as client:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + 0.5:
            await asyncio.gather(*(client.enqueue("t", n) for n in range(8)))
        most = (loop.time() - began) / 0.05 + 2
    heard = await ear.heard()
    assert 1 < len(heard) <= most
    assert sum(heard) == await value(dsn, COUNT)


async def test_workers_that_are_not_told_look_by_themselves(dsn: str) -> None:
    """Polling alone finds the job."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = asyncio.Event()

    @tasks.task("t")
    async def task(payload: int) -> None:
        ran.set()

    config = WorkerConfig(dsn=dsn, poll_interval=timedelta(milliseconds=100))
    async with WorkerRunner(config, tasks), BackfillClient(dsn) as client:
        await client.enqueue(task, 1, notify=False)
        await asyncio.wait_for(ran.wait(), 30)


async def test_in_a_handlers_transaction(dsn: str, ear: Ear) -> None:
    """`notify=False` holds in the transaction of a handler too, of one in a thread too."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("async")
    async def in_the_loop(ctx: WorkerContext[Any]) -> None:
        async with ctx.transaction() as tx:
            await tx.enqueue("other", 1, queue=Queue.serial("new"), notify=False)
            tx.complete()

    @tasks.task("thread")
    def in_a_thread(ctx: WorkerContext[Any]) -> None:
        with ctx.transaction() as tx:
            tx.enqueue("other", 2, notify=False)
            tx.enqueue("another", 3, queue=Queue.serial("newer"), job_key="k", notify=False)
            tx.complete()

    async with BackfillClient(dsn) as client:
        for name in ("async", "thread"):
            await client.enqueue(name, {}, notify=False)
    await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
    assert await value(dsn, COUNT) == 3
    assert await ear.heard() == []


@pytest.mark.parametrize("every", [0, timedelta(0), timedelta(days=1), "1s"])
def test_intervals_that_are_refused(every: Any) -> None:
    """It is a duration from a millisecond to an hour."""
    with pytest.raises(ConfigurationError, match=r"notify_every = .*: expected a timedelta from 1 ms to 1 hour"):
        BackfillClient("host=127.0.0.1 port=1", notify_every=every)


async def test_notify_is_true_or_false() -> None:
    """Anything else is refused, before the database is used."""
    client = BackfillClient("host=127.0.0.1 port=1")
    with pytest.raises(InvalidJobError, match="notify"):
        await client.enqueue("t", {}, notify=0)  # type: ignore[call-overload]
