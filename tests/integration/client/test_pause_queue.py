"""Paused serial queues as the database keeps them: when their rows are locked, and what unlocks them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import BackfillClient, Queue
from backfill.client.lent import ServicesClient
from backfill.storage.attempts import Attempt, give_back_strays
from backfill.storage.claims import LaneClaim, LaneFilter, Look
from backfill.storage.connection import connect
from backfill.storage.settlements import Settlement, settle
from backfill.storage.wire import Wire
from backfill.storage.workers import find_tasks
from backfill.worker.execution.endings import COMPLETED, Failed

from plugins.periods import keeps_waiting
from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

SCHEMA = "graphile_worker"
JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
CONTROL = "graphile_worker.backfill_control"
WORKER = "backfill_0123456789abcdef00"
CLAIM = LaneClaim(SCHEMA, (LaneFilter(tasks=("t",)),))
LANE = Queue.serial("lane", block_on_retry=True)
LOCK_AGAIN: LiteralString = f"""
select array(
  select graphile_worker.backfill_lock_paused_queues(array(select id from {QUEUES} where queue_name = 'lane'))
)"""
WAITING: LiteralString = """
select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


async def holder(dsn: str, queue: str = "lane") -> Any:
    """Who has locked a queue."""
    return await value(dsn, f"select locked_by from {QUEUES} where queue_name = %s", queue)


async def claim(wire: Wire) -> list[Attempt]:
    """Claim what is due."""
    ids = await find_tasks(wire.connection, ["t"], schema=SCHEMA)
    results = await wire.send(CLAIM.commands(Look(100), worker=WORKER, bound=CLAIM.bind(ids)), timeout=30)
    return [Attempt(job) for job in CLAIM.read(results, {number: name for name, number in ids.items()}).jobs]


async def could_start(dsn: str) -> list[int]:
    """The ids of the jobs that a claim takes; they go back."""
    async with await connect(dsn) as connection:
        found = [attempt.job.id for attempt in await claim(Wire(connection))]
        await give_back_strays(connection, schema=SCHEMA, worker=WORKER, held=[])
        return found


async def end(wire: Wire, settlement: Settlement) -> None:
    """Write the ends of attempts, as a worker that knows of the pause does."""
    ids = await rows_of(wire, f"select id from {QUEUES} where queue_name = 'lane'")
    settlement.paused = [number for [number] in ids]
    assert await settle(wire, settlement, schema=SCHEMA, worker=WORKER) == set()


async def rows_of(wire: Wire, query: LiteralString) -> list[Any]:
    """What a query gives on a connection that a worker's statements use."""
    return await (await wire.connection.execute(query)).fetchall()


async def held_for(dsn: str, client: BackfillClient, **how: Any) -> int:
    """A job that failed once and holds the queue."""
    job = await client.enqueue("t", queue=LANE, **how)
    async with await connect(dsn) as connection:
        wire = Wire(connection)
        await end(wire, Settlement(Failed("no", delay=0.0).end(attempt, None) for attempt in await claim(wire)))
    assert await holder(dsn) == f"backfill:retry:{job.id}"
    return job.id


async def test_a_pause_locks_a_queue_and_its_end_frees_it(dsn: str, client: BackfillClient) -> None:
    """Also a queue that no job has been in yet, and as often as it is said; undone by its number as by its name."""
    await client.pause(queue="lane", reason="why")
    assert await holder(dsn) == "backfill:pause"
    again = await client.pause(queue="lane")
    assert await holder(dsn) == "backfill:pause"
    job = await client.enqueue("t", queue=LANE)
    assert await could_start(dsn) == []
    assert await client.undo(again) is not None
    assert await holder(dsn) is None
    assert await could_start(dsn) == [job.id]
    assert await client.resume(queue="lane") is None


async def test_a_pause_of_something_else_locks_no_queue(dsn: str, client: BackfillClient) -> None:
    """Neither that of a task with the queue's name, nor that of everything, nor that of another queue."""
    await client.enqueue("t", queue=LANE)
    await client.pause(task="lane")
    await client.pause(everything=True)
    await client.pause(queue="lane2")
    assert await holder(dsn) is None
    assert await holder(dsn, "lane2") == "backfill:pause"


async def test_a_pause_that_is_rolled_back_locks_nothing(dsn: str, client: BackfillClient) -> None:
    """The control and the queue's row are written by one transaction."""
    await client.enqueue("t", queue=LANE)
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await client.pause(queue="lane", connection=connection)
        await connection.rollback()
    assert await holder(dsn) is None
    assert await client.controls() == []


@pytest.mark.parametrize("ends", ["completes", "fails"])
async def test_a_busy_queue_keeps_its_lock_until_its_job_ends(dsn: str, client: BackfillClient, ends: str) -> None:
    """The settlement locks it again: for the pause alone, or where the job blocks, with the job that it waits for."""
    job = await client.enqueue("t", queue=LANE)
    await client.enqueue("t", queue=LANE)
    async with await connect(dsn) as connection:
        wire = Wire(connection)
        [attempt] = await claim(wire)
        await client.pause(queue="lane")
        assert await holder(dsn) == WORKER
        ending = COMPLETED if ends == "completes" else Failed("no", delay=0.0)
        await end(wire, Settlement([ending.end(attempt, None)]))
        assert await holder(dsn) == ("backfill:pause" if ends == "completes" else f"backfill:pause:{job.id}")
        assert await claim(wire) == []


async def test_the_hold_for_a_retry_comes_back(dsn: str, client: BackfillClient) -> None:
    """Such a queue is listed as held and as paused, and after the pause the job's retry goes first as before."""
    job = await held_for(dsn, client)
    await client.enqueue("t", queue=LANE)
    assert [held.paused for held in await client.held_queues()] == [False]
    await client.pause(queue="lane")
    assert await holder(dsn) == f"backfill:pause:{job}"
    [held] = await client.held_queues()
    assert (held.queue_name, held.job_id, held.paused) == ("lane", job, True)
    await client.free_held_queues()
    assert await holder(dsn) == f"backfill:pause:{job}"
    assert await could_start(dsn) == []
    await client.resume(queue="lane")
    assert await holder(dsn) == f"backfill:retry:{job}"
    assert await could_start(dsn) == [job]


ENDED: dict[str, Callable[[BackfillClient, int], Awaitable[Any]]] = {
    "cancelled": lambda client, job: client.cancel(job),
    "completed": lambda client, job: client.complete_jobs([job]),
    "failed": lambda client, job: client.fail_jobs([job]),
    "removed": lambda client, job: client.remove_job(id=job),
    "replaced without the flag": lambda client, _: client.enqueue("t", queue=Queue.serial("lane"), job_key="k"),
    "replaced into another queue": lambda client, _: client.enqueue("t", queue=Queue.serial("b"), job_key="k"),
}


@pytest.mark.parametrize("how", ENDED)
async def test_a_hold_that_nobody_needs_does_not_come_back(dsn: str, client: BackfillClient, how: str) -> None:
    """However the job was ended while its queue was paused, which nothing but the end of the pause unlocks."""
    job = await held_for(dsn, client, job_key="k")
    await client.pause(queue="lane")
    await ENDED[how](client, job)
    await client.free_held_queues()
    assert str(await holder(dsn)).startswith("backfill:pause")
    assert await client.held_queues() == []
    await client.resume(queue="lane")
    assert await holder(dsn) is None


async def test_producers_go_on_with_jobs_of_a_paused_queue(dsn: str, client: BackfillClient, role: NewRole) -> None:
    """They add, replace and remove them; the queue stays locked, and a producer's role may neither pause nor resume."""
    await client.pause(queue="lane")
    async with BackfillClient(role("producer")) as producer:
        first = await producer.enqueue("t", 1, queue=LANE, job_key="k")
        again = await producer.enqueue("t", 2, queue=LANE, job_key="k")
        assert again.id == first.id
        await producer.enqueue_bulk("t", [3, 4], queue=LANE)
        assert await producer.remove_job("k") is not None
        for refused in (producer.pause(queue="other"), producer.resume(queue="lane")):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await refused
    assert await value(dsn, f"select count(*) from {JOBS}") == 2
    assert await holder(dsn) == "backfill:pause"


async def test_cleanup_leaves_a_paused_queue_alone(dsn: str, client: BackfillClient) -> None:
    """Its lock goes at no age, and its row is not deleted, even where somebody has unlocked it."""
    await client.pause(queue="lane")
    await rows(dsn, f"update {QUEUES} set locked_at = now() - interval '1 day'")
    assert await client.release_stale_queue_locks(timedelta(0)) == 0
    assert await client.collect_tasks() == ()
    assert await holder(dsn) == "backfill:pause"
    await rows(dsn, f"update {QUEUES} set locked_at = null, locked_by = null")
    assert await client.collect_queues() == 0
    await client.free_held_queues()
    assert await holder(dsn) == "backfill:pause"
    await client.resume(queue="lane")
    assert await client.collect_queues() == 1


async def test_upkeep_locks_what_was_unlocked_and_renews_old_locks(dsn: str, client: BackfillClient) -> None:
    """Other programs take a lock of 4 hours for abandoned; young locks are left, and a busy queue as well."""
    age: LiteralString = f"select extract(epoch from now() - locked_at)::float8 from {QUEUES} where queue_name = 'lane'"
    await client.pause(queue="lane")
    await rows(dsn, f"update {QUEUES} set locked_at = now() - interval '10 minutes'")
    await client.free_held_queues()
    assert 500 < await value(dsn, age) < 1500
    await rows(dsn, f"update {QUEUES} set locked_at = now() - interval '3 hours'")
    await client.free_held_queues()
    assert await value(dsn, age) < 300
    await rows(dsn, f"update {QUEUES} set locked_by = 'node', locked_at = now() - interval '3 hours'")
    await client.free_held_queues()
    assert await holder(dsn) == "node"


@pytest.mark.parametrize("lock", ["backfill:pause", "backfill:pause:999", "backfill:pause:nonsense"])
async def test_a_lock_whose_pause_is_gone_is_freed(dsn: str, client: BackfillClient, lock: str) -> None:
    """Such as one that came with a restored copy, or that somebody wrote by hand; the cleaner looks for it."""
    await client.enqueue("t", queue=LANE)
    await rows(dsn, f"update {QUEUES} set locked_by = %s, locked_at = now()", lock)
    await client.pause(queue="other")
    async with ServicesClient(dsn) as services:
        released = await services.release_foreign_locks(queues=timedelta(hours=4), jobs=None, alone=True)
    assert released.queue_locks == 1
    assert await holder(dsn) is None
    assert await holder(dsn, "other") == "backfill:pause"


async def test_the_end_of_a_pause_waits_for_a_settlement_that_has_seen_it(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Else the settlement would lock the queue for a pause that is over."""
    await client.enqueue("t", queue=LANE)
    async with await psycopg.AsyncConnection.connect(dsn) as worker:
        await worker.execute(f"update {QUEUES} set locked_by = 'w', locked_at = now()")
        await worker.commit()
        await client.pause(queue="lane")
        await worker.execute(f"update {QUEUES} set locked_by = null, locked_at = null")
        await worker.execute(LOCK_AGAIN)
        resuming = asyncio.ensure_future(client.resume(queue="lane"))
        await eventually(lambda: value(dsn, WAITING))
        await keeps_waiting(resuming, 0.2)
        await worker.commit()
        assert await resuming is not None
    assert await holder(dsn) is None


async def test_a_settlement_waits_for_nobody_who_ends_a_pause(dsn: str, client: BackfillClient) -> None:
    """It leaves the queue as it is; whichever way the other transaction ends, that is right or a claim heals it."""
    await client.pause(queue="lane")
    await rows(dsn, f"update {QUEUES} set locked_by = null, locked_at = null")
    async with await psycopg.AsyncConnection.connect(dsn) as operator:
        await operator.execute(f"delete from {CONTROL} where kind = 'pause'")
        assert await value(dsn, LOCK_AGAIN) == []
        assert await holder(dsn) is None
        await operator.rollback()
    assert await value(dsn, LOCK_AGAIN) == []
    assert await holder(dsn) == "backfill:pause"
    await client.resume(queue="lane")
    assert await value(dsn, LOCK_AGAIN) == ["lane"]
    assert await holder(dsn) is None


async def test_a_pause_waits_for_a_claim_and_then_leaves_the_queue_to_its_worker(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """The claim holds the queue's row while the pause is said."""
    await client.enqueue("t", queue=LANE)
    async with await psycopg.AsyncConnection.connect(dsn) as worker:
        await worker.execute(f"update {QUEUES} set locked_by = 'w', locked_at = now()")
        pausing = asyncio.ensure_future(client.pause(queue="lane"))
        await eventually(lambda: value(dsn, WAITING))
        await worker.commit()
        await pausing
    assert await holder(dsn) == "w"


async def test_sessions_that_pause_and_resume_at_once_take_turns(dsn: str, client: BackfillClient) -> None:
    """None fails, and in the end the lock says what the control says."""
    async with BackfillClient(dsn) as other:
        for _ in range(10):
            await asyncio.gather(
                client.pause(queue="lane"), other.pause(queue="lane"), other.resume(queue="lane"),
                client.resume(queue="lane"), client.pause(queue="lane"),
            )  # fmt: skip
            stands = bool(await client.controls())
            assert await holder(dsn) == ("backfill:pause" if stands else None)
