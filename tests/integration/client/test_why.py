"""What holds a job back: each reason by itself, several at once, and what is known of jobs that are gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import (
    BackfillClient,
    InvalidJobError,
    Limit,
    Queue,
    Rate,
    ShareHolder,
    TaskRegistry,
    Why,
    WhyKind,
    WhyReason,
    WorkerConfig,
    WorkerRunner,
)

from plugins.roles import NewRole
from plugins.waiting import Eventually
from reading import rows, value

pytestmark = pytest.mark.leaves_rows
JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
WORKER = "backfill_0123456789abcdef00"
DEAD = "backfill_0123456789abcdef01"
HOUR = timedelta(hours=1)
ALIVE: LiteralString = """
    insert into graphile_worker.backfill_workers (id, host, pid, protocol, version, tasks, heartbeat_at)
    values (%s, 'box', 7, 99, '0', array['t'], now() - %s)"""
LOCK: LiteralString = f"""
    with mine as (
      update {JOBS} set locked_by = %s, locked_at = now(), attempts = attempts + 1 where id = %s
      returning job_queue_id, locked_by, locked_at
    )
    update {QUEUES} as queues set locked_by = mine.locked_by, locked_at = mine.locked_at
    from mine where queues.id = mine.job_queue_id"""
LIMITED: LiteralString = """
    insert into graphile_worker.backfill_limits (task, most, by_path, rate_count, rate_micros, burst, closed_until,
      probing, source)
    values ('t', %s, %s, %s, %s, 1, %s, %s, 'operator')"""
STATE: LiteralString = """
    insert into graphile_worker.backfill_limit_states (task, value, next_at, slots) values ('t', %s, %s, %s)"""
SHARE: LiteralString = """
    insert into graphile_worker.backfill_shares (task, value, slot, turn, job_id, worker, attempt)
    values ('t', %s, %s, %s, %s, %s, 1)"""


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[BackfillClient]:
    """An open client, and a live worker that knows the task t."""
    await rows(dsn, ALIVE, WORKER, timedelta(0))
    async with BackfillClient(dsn) as one:
        yield one


def only(why: Why) -> WhyReason:
    """The one reason that there is."""
    [reason] = why
    assert str(why) == reason.text
    return reason


async def test_nothing_holds_it_back(client: BackfillClient) -> None:
    """Then it waits for its turn, and the text says for how many workers."""
    job = await client.enqueue("t")
    why = await client.why(job)
    assert (why.job_id, why.task, why.queue, why.reasons, why.knowing) == (job.id, "t", None, (), 1)
    assert "is ready: it waits for its turn, and for a free slot of the worker that knows its task" in str(why)
    assert abs(datetime.now(UTC) - why.looked_at) < timedelta(minutes=5)


async def test_it_is_not_due(client: BackfillClient) -> None:
    """The reason says when it is."""
    job = await client.enqueue("t", run_at=datetime(2035, 1, 1, tzinfo=UTC))
    reason = only(await client.why(job.id))
    assert (reason.kind, reason.until) == (WhyKind.NOT_DUE, datetime(2035, 1, 1, tzinfo=UTC))
    assert reason.text == "it is not due before 2035-01-01 00:00:00+00:00"


async def test_its_time_is_infinite(dsn: str, client: BackfillClient) -> None:
    """SQL can add a job that is never due."""
    job = await value(dsn, "select (graphile_worker.add_job('t', run_at => 'infinity')).id")
    reason = only(await client.why(job))
    assert (reason.kind, reason.until) == (WhyKind.NOT_DUE, None)
    assert "never due" in reason.text


async def test_no_worker_knows_its_task(dsn: str, client: BackfillClient) -> None:
    """Dead workers and those that were given up do not count."""
    await rows(dsn, "update graphile_worker.backfill_workers set given_up_at = now()")
    await rows(dsn, ALIVE, DEAD, HOUR)
    why = await client.why(await client.enqueue("t"))
    assert only(why).kind is WhyKind.NO_WORKER
    assert why.knowing == 0


async def test_it_is_paused_in_three_ways(client: BackfillClient) -> None:
    """Each pause is named with its author, its time and its reason; pauses of others are not."""
    job = await client.enqueue("t", queue=Queue.serial("q"))
    pauses = [
        await client.pause(task="t", by="ann", reason="the provider is down"),
        await client.pause(queue="q", by="bob"),
        await client.pause(everything=True, by="eve"),
    ]
    await client.pause(task="other")
    await client.pause(queue="other")
    why = await client.why(job)
    assert [(reason.kind, reason.control, reason.since) for reason in why] == [
        (WhyKind.PAUSED, pause, pause.said_at) for pause in pauses
    ]
    said_at = pauses[0].said_at
    assert said_at is not None
    when = said_at.isoformat(sep=" ", timespec="seconds")
    assert str(why).splitlines()[0] == f"task t is paused by ann since {when}: the provider is down"
    assert [text.partition(" since ")[0] for text in str(why).splitlines()] == [
        "task t is paused by ann", "queue q is paused by bob", "everything is paused by eve",
    ]  # fmt: skip


async def test_it_runs(dsn: str, client: BackfillClient) -> None:
    """In which worker, since when; and nothing else counts then."""
    job = await client.enqueue("t")
    await client.pause(everything=True)
    await rows(dsn, LOCK, WORKER, job.id)
    reason = only(await client.why(job))
    assert (reason.kind, reason.worker_id) == (WhyKind.RUNNING, WORKER)
    assert reason.since == await value(dsn, f"select locked_at from {JOBS}")
    assert f"is run by worker {WORKER} (box:7) since at least " in reason.text
    await client.cancel(job)
    assert "it was cancelled" in str(await client.why(job))


async def test_it_is_locked_by_others(dsn: str, client: BackfillClient) -> None:
    """By a dead worker, or by one of another program."""
    job = await client.enqueue("t")
    await rows(dsn, LOCK, DEAD, job.id)
    assert f"is locked by worker {DEAD}, which gives no heartbeat" in str(await client.why(job))
    await rows(dsn, LOCK, "worker-node-1", job.id)
    reason = only(await client.why(job))
    assert reason.worker_id == "worker-node-1"
    assert "is locked by worker-node-1 since " in reason.text
    assert "which is not a worker of this package: if its process is dead" in reason.text
    assert "client.force_unlock_workers(['worker-node-1'])" in reason.text


async def test_its_attempts_are_used_up(dsn: str, client: BackfillClient) -> None:
    """And no worker has moved it yet."""
    job = await client.enqueue("t", max_attempts=1)
    await rows(dsn, f"update {JOBS} set attempts = 1")
    assert only(await client.why(job)).kind is WhyKind.FAILED


async def test_its_queue_is_busy(dsn: str, client: BackfillClient) -> None:
    """With which job, in which worker; before that, which job comes first."""
    first, second = [await client.enqueue("t", queue=Queue.serial("q")) for _ in range(2)]
    reason = only(await client.why(second))
    assert (reason.kind, reason.job_id) == (WhyKind.QUEUE_BEHIND, first.id)
    assert await client.why(first)
    assert (await client.why(first)).reasons == ()
    await rows(dsn, LOCK, WORKER, first.id)
    reason = only(await client.why(second))
    assert (reason.kind, reason.job_id, reason.worker_id) == (WhyKind.QUEUE_BUSY, first.id, WORKER)
    assert f"the serial queue q is busy with job {first.id} in worker {WORKER} (box:7)" in reason.text
    await rows(dsn, f"delete from {JOBS} where id = %s", first.id)
    assert "is busy with a job that is ending in" in str(await client.why(second))


async def test_jobs_of_paused_tasks_come_first_in_its_queue(dsn: str, client: BackfillClient) -> None:
    """They do not hold it back, since workers pass them over; a job of another task behind them does."""
    queue = Queue.serial("q")
    paused = [await client.enqueue("down", queue=queue) for _ in range(3)]
    first, second = [await client.enqueue("t", queue=queue) for _ in range(2)]
    assert only(await client.why(first)).job_id == paused[0].id
    await client.pause(task="down")
    assert (await client.why(first)).reasons == ()
    assert only(await client.why(second)).job_id == first.id
    await client.resume(task="down")
    assert only(await client.why(second)).job_id == paused[0].id


async def test_its_queue_is_held_for_a_retry(dsn: str, client: BackfillClient) -> None:
    """Of another job; for its own retry the job waits as any other does."""
    first = await client.enqueue("t", queue=Queue.serial("q", block_on_retry=True), delay=HOUR)
    second = await client.enqueue("t", queue=Queue.serial("q"))
    queue = await value(dsn, f"select id from {QUEUES}")
    hold: LiteralString = (
        f"update {QUEUES} set locked_at = now(), locked_by = graphile_worker.backfill_hold_queue(%s, %s)"
    )
    await rows(dsn, hold, queue, first.id)
    reason = only(await client.why(second))
    assert (reason.kind, reason.job_id) == (WhyKind.QUEUE_HELD, first.id)
    assert only(await client.why(first)).kind is WhyKind.NOT_DUE


async def test_a_paused_queue_is_named_once(dsn: str, client: BackfillClient) -> None:
    """By its pause, and not by the lock that the pause has on it; a lock without a pause is said to be freed."""
    job = await client.enqueue("t", queue=Queue.serial("q"))
    pause = await client.pause(queue="q")
    await rows(dsn, f"update {QUEUES} set locked_at = now(), locked_by = 'backfill:pause:7'")
    assert only(await client.why(job)).control == pause
    await client.undo(pause)
    await rows(dsn, f"update {QUEUES} set locked_at = now(), locked_by = 'backfill:pause'")
    assert "is still locked for a pause that has ended" in str(await client.why(job))


async def test_its_limit_is_full(dsn: str, client: BackfillClient) -> None:
    """Who has the shares is named; a slot whose job is not locked by its worker any more is free."""
    running = [await client.enqueue("t") for _ in range(3)]
    job = await client.enqueue("t")
    await rows(dsn, LIMITED, 2, None, None, None, None, False)
    await rows(dsn, STATE, "", datetime(2020, 1, 1, tzinfo=UTC), 3)
    for slot, one in enumerate(running, 1):
        await rows(dsn, SHARE, "", slot, 1, one.id + 1_000, WORKER)
        await rows(dsn, SHARE, "", slot, 2, one.id, WORKER)
    await rows(dsn, LOCK, WORKER, running[0].id)
    await rows(dsn, LOCK, DEAD, running[1].id)
    assert (await client.why(job)).reasons == ()
    await rows(dsn, LOCK, WORKER, running[2].id)
    reason = only(await client.why(job))
    assert (reason.kind, reason.limit) == (WhyKind.LIMIT_FULL, Limit(2))
    assert [(holder.job_id, holder.worker_id) for holder in reason.holders] == [
        (running[0].id, WORKER), (running[2].id, WORKER),
    ]  # fmt: skip
    assert all(isinstance(holder, ShareHolder) and holder.since is not None for holder in reason.holders)
    assert f"the limit of the task t is full: 2 of 2 jobs run ({running[0].id} in {WORKER}, " in reason.text
    assert reason.control is None


async def test_a_limit_of_an_operators_names_who_has_set_it(dsn: str, client: BackfillClient) -> None:
    """The limit that is full, and the rate that is used up, have the control with its author and reason."""
    running, job = [await client.enqueue("t") for _ in range(2)]
    said = await client.set_limit("t", 1, rate=Rate(5), reason="the licence", by="ann")
    await rows(dsn, STATE, "", datetime(2035, 1, 1, tzinfo=UTC), 1)
    await rows(dsn, SHARE, "", 1, 1, running.id, WORKER)
    await rows(dsn, LOCK, WORKER, running.id)
    full, slow = (await client.why(job)).reasons
    assert (full.kind, full.control) == (WhyKind.LIMIT_FULL, said)
    assert (slow.kind, slow.control) == (WhyKind.RATE, said)
    assert "; set by ann since " in full.text
    assert full.text.endswith(": the licence")


async def test_a_breaker_between_two_trials_is_no_rate(dsn: str, client: BackfillClient) -> None:
    """One job is tried in each pause: until the next one the breaker holds the others back."""
    job = await client.enqueue("t")
    await rows(dsn, LIMITED, 1, None, 1, 30_000_000, None, True)
    await rows(dsn, STATE, "", datetime(2035, 1, 1, tzinfo=UTC), 0)
    reason = only(await client.why(job))
    assert (reason.kind, reason.until) == (WhyKind.BREAKER_OPEN, datetime(2035, 1, 1, tzinfo=UTC))
    assert "tries one job in each pause" in reason.text


async def test_the_limit_of_its_value_is_full(dsn: str, client: BackfillClient) -> None:
    """Only the shares of the job's own value count."""
    running, job, other = [await client.enqueue("t") for _ in range(3)]
    for one, colour in ((running, "blue"), (job, "blue"), (other, "red")):
        flags = json.dumps({"backfill.limited": True, f"backfill.limit:{colour}": True})
        await rows(dsn, f"update {JOBS} set flags = %s::jsonb where id = %s", flags, one.id)
    await rows(dsn, LIMITED, 1, "colour", None, None, None, False)
    await rows(dsn, STATE, "blue", datetime(2020, 1, 1, tzinfo=UTC), 1)
    await rows(dsn, SHARE, "blue", 1, 1, running.id, WORKER)
    await rows(dsn, LOCK, WORKER, running.id)
    reason = only(await client.why(job))
    assert (reason.limit, len(reason.holders)) == (Limit(1, by="colour"), 1)
    assert "is full for colour = blue: 1 of 1 jobs run" in reason.text
    assert (await client.why(other)).reasons == ()


async def test_its_rate_is_used_up(dsn: str, client: BackfillClient) -> None:
    """Until the time of the next start."""
    job = await client.enqueue("t")
    await rows(dsn, LIMITED, None, None, 5, 60_000_000, None, False)
    assert (await client.why(job)).reasons == ()
    await rows(dsn, STATE, "", datetime(2035, 1, 1, tzinfo=UTC), 0)
    reason = only(await client.why(job))
    assert (reason.kind, reason.until) == (WhyKind.RATE, datetime(2035, 1, 1, tzinfo=UTC))
    assert reason.rate == Rate(5, timedelta(minutes=1))


async def test_its_breaker_is_open(dsn: str, client: BackfillClient) -> None:
    """Until a time; then another job may be the one that is tried."""
    trial, job = [await client.enqueue("t") for _ in range(2)]
    until = datetime(2035, 1, 1, tzinfo=UTC)
    await rows(dsn, "delete from graphile_worker.backfill_limits")
    said = json.dumps({"trips": 2, "until": until.isoformat()})
    await rows(dsn, "select graphile_worker.backfill_say('breaker', 'task:t', %s::jsonb)", said)
    await rows(dsn, "delete from graphile_worker.backfill_limits")
    await rows(dsn, LIMITED, 1, None, None, None, until, True)
    reason = only(await client.why(job))
    assert (reason.kind, reason.until) == (WhyKind.BREAKER_OPEN, until)
    assert reason.control is not None
    assert reason.control.trips == 2
    await rows(dsn, "update graphile_worker.backfill_limits set closed_until = now()")
    assert (await client.why(job)).reasons == ()
    await rows(dsn, STATE, "", datetime(2020, 1, 1, tzinfo=UTC), 1)
    await rows(dsn, SHARE, "", 1, 1, trial.id, WORKER)
    await rows(dsn, LOCK, WORKER, trial.id)
    reason = only(await client.why(job))
    assert (reason.kind, reason.until, [one.job_id for one in reason.holders]) == (
        WhyKind.BREAKER_OPEN, None, [trial.id],
    )  # fmt: skip


async def test_several_reasons_at_once(dsn: str, client: BackfillClient) -> None:
    """All that hold are given."""
    first = await client.enqueue("t", queue=Queue.serial("q"))
    job = await client.enqueue("t", queue=Queue.serial("q"), delay=HOUR)
    await rows(dsn, LOCK, WORKER, first.id)
    await rows(dsn, "delete from graphile_worker.backfill_workers")
    await client.pause(everything=True)
    why = await client.why(job)
    assert why.kinds == {WhyKind.NOT_DUE, WhyKind.NO_WORKER, WhyKind.PAUSED, WhyKind.QUEUE_BUSY}
    assert len(str(why).splitlines()) == 4


async def test_jobs_that_are_gone(dsn: str, eventually: Eventually) -> None:
    """Their end, or their dead letter, where it is known."""
    tasks: TaskRegistry[None] = TaskRegistry()

    @tasks.task("kept", keep=HOUR)
    async def kept() -> None:
        return None

    @tasks.task("failing", no_retry=[ValueError])
    async def failing() -> None:
        raise ValueError("no")

    async with BackfillClient(dsn) as client:
        done, failed, removed = [await client.enqueue(name) for name in ("kept", "failing", "other")]
        await client.remove_job(id=removed.id)
        await WorkerRunner(WorkerConfig(dsn), tasks).process_available_jobs()
        for job, text in (
            (done.id, "has ended at "),
            (failed.id, "is the dead letter 1 since "),
            (removed.id, "is not in the queue: it has ended and its end was not kept"),
            (2**40, "or it was never there"),
        ):
            why = await client.why(job)
            assert only(why).kind is WhyKind.GONE
            assert (why.task, why.queue) == (None, None)
            assert text in str(why)
        assert "completed" in str(await client.why(done.id))


async def test_a_real_worker_runs_it(dsn: str, eventually: Eventually) -> None:
    """The whole way: it waits for a serial queue behind a job that runs, and then runs itself."""
    tasks: TaskRegistry[None] = TaskRegistry()
    go = asyncio.Event()

    @tasks.task("t")
    async def handler() -> None:
        await go.wait()

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), tasks):
        first, second = [await client.enqueue(handler.job(), queue=Queue.serial("q")) for _ in range(2)]
        await eventually(lambda: client.why(first), lambda why: why.kinds == {WhyKind.RUNNING})
        reason = only(await client.why(second))
        assert (reason.kind, reason.job_id) == (WhyKind.QUEUE_BUSY, first.id)
        go.set()
        await eventually(lambda: client.why(second), lambda why: why.kinds == {WhyKind.GONE})


@pytest.mark.parametrize("job", [None, "1", 2**63, True])
async def test_what_is_no_job(client: BackfillClient, job: Any) -> None:
    """Is refused."""
    with pytest.raises(InvalidJobError, match="job = "):
        await client.why(job)


async def test_who_may_ask(client: BackfillClient, role: NewRole) -> None:
    """Workers and operators; a producer may not."""
    job = await client.enqueue("t", queue=Queue.serial("q"))
    await client.pause(task="t")
    await client.set_limit("t", 4)
    for duty in ("worker", "operator"):
        async with BackfillClient(role(duty)) as theirs:
            assert (await theirs.why(job)).kinds == {WhyKind.PAUSED}
            assert (await theirs.why(2**40)).kinds == {WhyKind.GONE}
    async with BackfillClient(role("producer")) as theirs:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await theirs.why(job)
