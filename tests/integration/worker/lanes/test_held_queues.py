"""Serial queues that are held for a job's retry: order holds, and no queue stays held once its job has ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import (
    BackfillClient,
    Discard,
    JobSpec,
    NewJob,
    Queue,
    RetryPolicy,
    Snooze,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)

from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
HELD_ROWS = "graphile_worker.backfill_held_queues"
DUE = f"update {JOBS} set run_at = now() - interval '1 second'"
AT_ONCE = RetryPolicy(9, timedelta(0), timedelta(0), 1.0, 0.0)
LATER = RetryPolicy(9, timedelta(hours=1), timedelta(hours=1), 1.0, 0.0)
LANE = Queue.serial("lane", block_on_retry=True)
ENDS = ("completes", "is discarded", "dies")
Ran = list[tuple[int, str]]


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client."""
    async with BackfillClient(dsn) as one:
        yield one


def registry_of(ran: Ran) -> TaskRegistry[None]:
    """A task whose payload says how each attempt of the job is to end; it notes what ran, by id."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("t", retry=LATER)
    async def t(payload: list[str], ctx: WorkerContext[None]) -> None:
        done = sum(job == ctx.job.id for job, _ in ran)
        how = payload[done]
        ran.append((ctx.job.id, how))
        if how in ("fails", "dies"):
            raise ValueError(how)
        if how == "is snoozed":
            raise Snooze(timedelta(hours=1))
        if how == "is discarded":
            raise Discard("it is enough")

    return tasks


async def run(dsn: str, ran: Ran) -> None:
    """Run what is due."""
    await WorkerRunner(WorkerConfig(dsn, concurrency=3), registry_of(ran)).process_available_jobs()


async def locks(dsn: str) -> list[tuple[Any, ...]]:
    """The serial queues that are locked, each with its holder."""
    return await rows(dsn, f"select queue_name, locked_by from {QUEUES} where locked_at is not null order by 1")


async def failed_once(dsn: str, client: BackfillClient, **how: Any) -> tuple[int, int]:
    """A job whose first attempt has failed and that holds its queue, and one behind it."""
    first = await client.enqueue("t", ["fails", "completes"], queue=LANE, **how)
    second = await client.enqueue("t", ["completes"], queue=Queue.serial("lane"))
    await run(dsn, [])
    assert await locks(dsn) == [("lane", f"backfill:retry:{first.id}")]
    return first.id, second.id


def overtaken(jobs: dict[int, tuple[str, bool]], ran: Ran) -> list[tuple[int, int]]:
    """The jobs that ran in a queue while another one held it: who held it, who ran."""
    found, holders = [], dict[str, int]()
    for job, how in ran:
        queue, blocks = jobs[job]
        if holders.get(queue, job) != job:
            found.append((holders[queue], job))
        if how in ENDS:
            holders.pop(queue, None)
        elif blocks:
            holders[queue] = job
    return found


def plans() -> st.SearchStrategy[list[tuple[str, bool, list[str]]]]:
    """Jobs of two queues: where each is, whether it blocks, and how its attempts end."""
    before = st.lists(st.sampled_from(["fails", "is snoozed"]), max_size=3)
    attempts = st.builds(lambda some, last: [*some, last], before, st.sampled_from(ENDS))
    return st.lists(st.tuples(st.sampled_from(["one", "two"]), st.booleans(), attempts), min_size=1, max_size=8)


@settings(max_examples=12)
@given(plan=plans())
async def test_no_job_overtakes_one_that_blocks(dsn: str, plan: list[tuple[str, bool, list[str]]]) -> None:
    """However attempts end: from a first bad one until its end no other job of the queue runs, and all end once."""
    ran: Ran = []
    jobs = {}
    async with BackfillClient(dsn) as client:
        for queue, blocks, attempts in plan:
            # A snooze counts no attempt, so the last one that fails has to be the last that is allowed.
            most = sum(how != "is snoozed" for how in attempts) if attempts[-1] == "dies" else 20
            where = Queue.serial(queue, block_on_retry=blocks)
            outcome = await client.enqueue("t", attempts, queue=where, max_attempts=most)
            jobs[outcome.id] = queue, blocks
        while await value(dsn, f"select count(*) from {JOBS}"):
            before = len(ran)
            await rows(dsn, DUE)
            await run(dsn, ran)
            assert len(ran) > before, await locks(dsn)
        assert await client.held_queues() == []
        await client.free_held_queues()
    assert overtaken(jobs, ran) == []
    for job, (_, _, attempts) in zip(jobs, plan, strict=True):
        assert [how for one, how in ran if one == job] == attempts
    assert await locks(dsn) == []
    assert await rows(dsn, f"select * from {HELD_ROWS}") == []


async def test_order_holds_among_many_workers(dsn: str, client: BackfillClient, eventually: Eventually) -> None:
    """While they run, jobs are ended by hand at random and upkeep goes on: nothing overtakes, and all queues empty."""
    chance = random.Random(1)
    tasks: TaskRegistry[None] = TaskRegistry()
    ran: Ran = []
    running, together = set[str | None](), list[str | None]()

    @tasks.task("t", retry=AT_ONCE)
    async def t(ctx: WorkerContext[None]) -> None:
        if ctx.job.queue_name in running:
            together.append(ctx.job.queue_name)
        running.add(ctx.job.queue_name)
        await asyncio.sleep(0)
        running.discard(ctx.job.queue_name)
        how = chance.choice(["fails", "fails", "completes"])
        ran.append((ctx.job.id, how))
        if how == "fails":
            raise ValueError(how)

    names = [f"lane{number}" for number in range(6)]
    lanes = [Queue.serial(name, block_on_retry=True) for name in names]
    await client.enqueue_bulk(
        NewJob("t", None, JobSpec(queue=lane, max_attempts=1000)) for _ in range(15) for lane in lanes
    )
    jobs = {job: (name, True) for job, name in await rows(dsn, "select id, queue_name from graphile_worker.jobs")}
    by_hand: set[int] = set()

    async def meddle() -> bool:
        """Remove some job that waits, tend the queues; whether no job is left."""
        left = [job for [job] in await rows(dsn, f"select id from {JOBS} order by id")]
        if left and len(by_hand) < 20:
            removed = await client.complete_jobs([chance.choice(left)])
            by_hand.update(job.id for job in removed)
        await client.free_held_queues()
        return not left

    config = WorkerConfig(dsn, concurrency=3, poll_interval=timedelta(milliseconds=20))
    async with WorkerRunner(config, tasks), WorkerRunner(config, tasks), WorkerRunner(config, tasks):
        await eventually(meddle)
    assert together == []
    assert await locks(dsn) == []
    # A job that was ended by hand holds its queue no more, wherever it stood.
    assert [(held, other) for held, other in overtaken(jobs, ran) if held not in by_hand] == []
    for name in names:
        mine = [job for job, how in ran if jobs[job][0] == name and how == "completes"]
        assert mine == sorted(mine)
    assert {job for job, how in ran if how == "completes"} | by_hand == set(jobs)


async def test_without_it_the_next_job_runs_meanwhile(dsn: str, client: BackfillClient) -> None:
    """As the contract has it."""
    first = await client.enqueue("t", ["fails", "completes"], queue=Queue.serial("lane"))
    second = await client.enqueue("t", ["completes"], queue=Queue.serial("lane"))
    ran: Ran = []
    await run(dsn, ran)
    assert ran == [(first.id, "fails"), (second.id, "completes")]
    assert await locks(dsn) == []


async def test_a_held_queue_can_be_seen(dsn: str, client: BackfillClient) -> None:
    """By its name, with the job, since when, and when it is due; while the job runs it is its worker's."""
    before = datetime.now(UTC)
    first, _ = await failed_once(dsn, client)
    [held] = await client.held_queues()
    assert (held.queue_name, held.job_id) == ("lane", first)
    assert before - timedelta(minutes=5) < held.since < datetime.now(UTC) + timedelta(minutes=5)
    assert held.run_at is not None
    assert held.run_at > before + timedelta(minutes=50)
    await rows(dsn, DUE)
    await run(dsn, [(first, "fails")])
    assert await client.held_queues() == []


async def test_every_way_to_add_jobs_carries_it(dsn: str, client: BackfillClient) -> None:
    """One by one, with a key, in bulk with and without keys, by a task's default, and by SQL."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("by default", queue=Queue.serial_for("user", 7, block_on_retry=True))
    async def by_default() -> None: ...

    await client.enqueue("one", queue=LANE)
    await client.enqueue("keyed", queue=LANE, job_key="k")
    await client.enqueue(by_default)
    await client.enqueue_bulk("bulk", [1, 2], queue=LANE)
    await client.enqueue_bulk(NewJob("bulk keyed", 1, JobSpec(queue=LANE, job_key=f"k{n}")) for n in range(2))
    await rows(
        dsn,
        "select 1 from graphile_worker.add_job('sql', queue_name := 'lane', flags := array['backfill.block_on_retry'])",
    )
    found = await rows(dsn, "select task_identifier, queue_name, flags from graphile_worker.jobs order by id")
    assert [name for name, _, _ in found] == ["one", "keyed", "by default", *["bulk"] * 2, *["bulk keyed"] * 2, "sql"]
    assert {queue for _, queue, _ in found} == {"lane", "user:7"}
    assert all(flags == {"backfill.block_on_retry": True} for _, _, flags in found)


BY_CLIENT: dict[str, Callable[[BackfillClient, int], Awaitable[Any]]] = {
    "failed": lambda client, job: client.fail_jobs([job]),
    "completed": lambda client, job: client.complete_jobs([job]),
    "removed by its key": lambda client, _: client.remove_job("k"),
    "removed by its id": lambda client, job: client.remove_job(id=job),
}
BY_SQL: dict[str, LiteralString] = {
    "failed": "select 1 from graphile_worker.permanently_fail_jobs(array[%s::bigint])",
    "completed": "select 1 from graphile_worker.complete_jobs(array[%s::bigint])",
    "removed": """select 1 from graphile_worker.remove_job(
        (select key from graphile_worker._private_jobs where id = %s))""",
    "deleted": f"delete from {JOBS} where id = %s returning 1",
    "out of attempts": """select 1 from graphile_worker.reschedule_jobs(
        array[%s::bigint], attempts := 25, max_attempts := 9)""",
    "in another queue": "select 1 from graphile_worker.add_job('t', '[\"completes\"]', 'other', job_key := 'k'), "
    "(select %s) as job",
    "without the flag": "select 1 from graphile_worker.add_job('t', '[\"completes\"]', 'lane', job_key := 'k', "
    "run_at := now() + interval '1 hour'), (select %s) as job",
}


@pytest.mark.parametrize("how", BY_CLIENT)
async def test_ending_the_job_by_a_client_frees_its_queue_at_once(dsn: str, client: BackfillClient, how: str) -> None:
    """The next job runs without any upkeep."""
    first, second = await failed_once(dsn, client, job_key="k")
    await BY_CLIENT[how](client, first)
    assert await locks(dsn) == []
    ran: Ran = []
    await run(dsn, ran)
    assert ran == [(second, "completes")]


@pytest.mark.parametrize("how", BY_SQL)
async def test_workers_free_the_queue_of_a_job_that_another_program_ended(
    dsn: str, client: BackfillClient, eventually: Eventually, how: str
) -> None:
    """Within their dead time a worker sees it, and the next job runs."""
    first, second = await failed_once(dsn, client, job_key="k")
    ran: Ran = []
    config = WorkerConfig(
        dsn,
        dead_after=timedelta(seconds=1),
        heartbeat_interval=timedelta(milliseconds=250),
        dlq_processor_interval=None,
    )
    async with WorkerRunner(config, registry_of(ran)):
        await rows(dsn, BY_SQL[how], first)
        await eventually(lambda: (second, "completes") in ran)
    assert [lock for lock in await locks(dsn) if lock[1].startswith("backfill:retry:")] == []


async def test_a_producers_role_frees_the_queue_of_what_it_removes(
    dsn: str, client: BackfillClient, role: NewRole
) -> None:
    """Though it has no right on the table of queues."""
    first, second = await failed_once(dsn, client)
    async with BackfillClient(role("producer")) as producer:
        await producer.enqueue("t", ["completes"], queue=LANE, job_key="theirs")
        await producer.enqueue_bulk("t", [["completes"]], queue=LANE)
        assert (await producer.remove_job(id=first)) is not None
    assert await locks(dsn) == []
    ran: Ran = []
    await run(role("worker"), ran)
    assert ran == [(number, "completes") for number in (second, second + 1, second + 2)]


async def test_a_workers_role_holds_and_sees_queues(dsn: str, role: NewRole) -> None:
    """With the printed grants and no others."""
    theirs = role("worker")
    async with BackfillClient(theirs) as client:
        first, second = await failed_once(theirs, client)
        assert [held.job_id for held in await client.held_queues()] == [first]
        ran: Ran = [(first, "fails")]
        await rows(dsn, DUE)
        await run(theirs, ran)
        assert ran[1:] == [(first, "completes"), (second, "completes")]


async def test_the_last_failure_frees_the_queue_and_a_requeued_job_holds_it_again(
    dsn: str, client: BackfillClient
) -> None:
    """The dead letter keeps the flag; requeued it comes behind what waits by then, and blocks like the first time."""
    first = await client.enqueue("t", ["fails", "dies", "fails", "completes"], queue=LANE, max_attempts=2)
    ran: Ran = []
    await run(dsn, ran)
    await rows(dsn, DUE)
    await run(dsn, ran)
    assert ran == [(first.id, "fails"), (first.id, "dies")]
    assert await locks(dsn) == []
    [entry] = (await client.list_dlq_jobs()).jobs
    again = await client.requeue_dlq_job(entry.id)
    number = await value(dsn, f"select id from {JOBS}")
    assert again is not None
    behind = await client.enqueue("t", ["completes"], queue=Queue.serial("lane"))
    ran = [(number, "fails"), (number, "dies")]
    await run(dsn, ran)
    assert ran[2:] == [(number, "fails")]
    assert await locks(dsn) == [("lane", f"backfill:retry:{number}")]
    await rows(dsn, DUE)
    await run(dsn, ran)
    assert ran[3:] == [(number, "completes"), (behind.id, "completes")]


async def test_a_replaced_job_keeps_its_queue(dsn: str, client: BackfillClient) -> None:
    """While it waits for its retry it is the same job with another payload, and the queue waits for it."""
    first, second = await failed_once(dsn, client, job_key="k")
    replaced = await client.enqueue("t", ["completes"], queue=LANE, job_key="k", delay=timedelta(hours=1))
    assert replaced.id == first
    await client.free_held_queues()
    ran: Ran = [(first, "fails")]  # the payloads are lists, which adding by key puts together
    await run(dsn, ran)
    assert ran[1:] == []
    await rows(dsn, DUE)
    await run(dsn, ran)
    assert ran[1:] == [(first, "completes"), (second, "completes")]


async def test_a_job_replaced_while_it_runs_lets_its_queue_go(
    dsn: str, client: BackfillClient, eventually: Eventually
) -> None:
    """Its attempt fails, but no other follows: the job that replaced it is another one and runs in its turn."""
    tasks: TaskRegistry[None] = TaskRegistry()
    started, go_on, ran = asyncio.Event(), asyncio.Event(), list[str]()

    @tasks.task("t")
    async def t(payload: str) -> None:
        ran.append(payload)
        if payload == "first":
            started.set()
            await go_on.wait()
            raise ValueError("no")

    await client.enqueue("t", "first", queue=LANE, job_key="k")
    async with WorkerRunner(WorkerConfig(dsn), tasks):
        await started.wait()
        await client.enqueue("t", "second", queue=LANE, job_key="k")
        go_on.set()
        await eventually(lambda: ran == ["first", "second"])
        await eventually(lambda: locks(dsn), lambda left: left == [])


async def test_a_holder_behind_any_number_of_jobs_is_found(dsn: str, client: BackfillClient) -> None:
    """Those of its own queue and of another held one, all before it in order: it runs first."""
    first, _ = await failed_once(dsn, client)
    other = await client.enqueue("t", ["fails", "completes"], queue=Queue.serial("other", block_on_retry=True))
    await run(dsn, [])
    for name in ("lane", "other"):
        await client.enqueue_bulk("t", [["completes"]] * 1500, queue=Queue.serial(name), priority=-5)
    await rows(dsn, f"update {JOBS} set run_at = now() - interval '1 second' where id = %s", first)
    ran: Ran = [(first, "fails"), (other.id, "fails")]
    await run(dsn, ran)
    assert ran[2] == (first, "completes")
    assert len(ran) == 3 + 1500 + 1, "the other queue is still held"
    assert await locks(dsn) == [("other", f"backfill:retry:{other.id}")]


async def test_a_job_for_workers_that_are_not_there_keeps_its_queue(dsn: str, client: BackfillClient) -> None:
    """A worker with the job's flag among its forbidden ones leaves both the job and its queue alone."""
    first, second = await failed_once(dsn, client, flags=["slow"])
    await rows(dsn, DUE)
    ran: Ran = [(first, "fails")]
    config = WorkerConfig(dsn, forbidden_flags=("slow",))
    await WorkerRunner(config, registry_of(ran)).process_available_jobs()
    assert ran[1:] == []
    await run(dsn, ran)
    assert ran[1:] == [(first, "completes"), (second, "completes")]
