"""Dead workers: who is given up, what becomes of each kind of job it held, and who comes back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import (
    BackfillClient,
    Queue,
    QueueConfig,
    RetryPolicy,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from backfill.client.lent import ServicesClient
from fleet.processes import fleet_of, jobs_left, nothing_locked

from plugins.periods import work_for
from plugins.waiting import Eventually
from reading import rows, value

JOBS = "graphile_worker._private_jobs"
QUEUES = "graphile_worker._private_job_queues"
WORKERS = "graphile_worker.backfill_workers"
DEAD: LiteralString = f"""
    insert into {WORKERS} (id, host, pid, heartbeat_at, protocol, version, dead_after)
    values ('backfill_dead', 'there', 7, now() - interval '1 hour', 3, '0', '1 second')
    returning (extract(epoch from heartbeat_at) * 1000000)::bigint"""
LOCK: LiteralString = f"""
    update {JOBS} set locked_by = 'backfill_dead', locked_at = now(), updated_at = now(), attempts = attempts + 1
    where id = any (%s) returning id"""
HELD: LiteralString = f"""
    select count(*) from {JOBS} as jobs join graphile_worker._private_tasks as tasks on tasks.id = task_id
    where identifier = 'hold' and locked_by is not null"""
SOON = timedelta(seconds=1)


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[ServicesClient]:
    """An open client."""
    async with ServicesClient(dsn) as one:
        yield one


async def test_each_job_of_a_dead_worker_goes_its_way(dsn: str, client: BackfillClient) -> None:
    """A first attempt is due as before, a later one after a delay; the last is a dead letter, a superseded job gone."""
    first = await client.enqueue("t", 1, queue=Queue.serial("q"), priority=3)
    later = await client.enqueue("t", 2)
    last = await client.enqueue("t", 3, max_attempts=2, job_key="k")
    replaced = await client.enqueue("t", 4, job_key="r")
    removed = await client.enqueue("t", 5, job_key="s")
    others = await client.enqueue("t", 6, queue=Queue.serial("other"))
    await rows(dsn, f"update {JOBS} set attempts = 1 where id = any (%s) returning id", [later.id, last.id])
    heartbeat = await value(dsn, DEAD)
    await rows(dsn, LOCK, [one.id for one in (first, later, last, replaced, removed)])
    await rows(dsn, f"update {QUEUES} set locked_by = 'backfill_dead', locked_at = now() where queue_name = 'q'")
    await rows(dsn, f"update {QUEUES} set locked_by = 'somebody', locked_at = now() where queue_name = 'other'")
    await rows(dsn, f"insert into {QUEUES} (queue_name, locked_by, locked_at) values ('empty', 'backfill_dead', now())")
    newer = await client.enqueue("t", "newer", job_key="r")
    await client.remove_job("s")
    assert newer.id != replaced.id
    due = await rows(dsn, f"select id, run_at from {JOBS} where id = %s", first.id)

    assert await client.recover_worker("backfill_dead", heartbeat - 1) is None  # it has beaten since it was seen
    done = await client.recover_worker("backfill_dead", heartbeat)
    assert done is not None
    assert (done.host, done.pid, done.jobs, done.queues, done.dead_letters, done.complete) == (
        "there",
        7,
        5,
        1,
        1,
        True,
    )
    assert await client.recover_worker("backfill_dead", heartbeat) is None

    left = {
        row[0]: row[1:] for row in await rows(dsn, f"select id, attempts, locked_by, left(last_error, 26) from {JOBS}")
    }
    died = "WorkerDied: its worker bac"
    assert left == {
        first.id: (1, None, died), later.id: (2, None, died), newer.id: (0, None, None), others.id: (0, None, None),
    }  # fmt: skip
    assert await rows(dsn, f"select id, run_at from {JOBS} where id = %s", first.id) == due
    delay = await value(dsn, f"select extract(epoch from run_at - now())::float8 from {JOBS} where id = %s", later.id)
    assert 3 < delay < 8  # the contract's schedule after a second attempt
    [entry] = (await client.list_dlq_jobs()).jobs
    assert (entry.original_job_id, entry.failure_reason, entry.error_type) == (last.id, "its worker died", "WorkerDied")
    assert await rows(dsn, f"select queue_name, locked_by from {QUEUES} order by 1") == [
        ("empty", None), ("other", "somebody"), ("q", None),
    ]  # fmt: skip
    assert await rows(dsn, f"select id from {WORKERS}") == []


async def test_a_row_that_somebody_holds_is_recovered_later(dsn: str, client: BackfillClient) -> None:
    """The worker's row stays until all is unlocked; others need not wait."""
    ids = [(await client.enqueue("t", number)).id for number in range(3)]
    heartbeat = await value(dsn, DEAD)
    await rows(dsn, LOCK, ids)
    async with await psycopg.AsyncConnection.connect(dsn) as other:
        await other.execute(f"select id from {JOBS} where id = %s for update", [ids[1]])
        done = await client.recover_worker("backfill_dead", heartbeat)
        assert done is not None
        assert (done.jobs, done.complete) == (2, False)
        await other.rollback()
    done = await client.recover_worker("backfill_dead", 0)  # given up once, it stays so
    assert done is not None
    assert (done.jobs, done.complete) == (1, True)


async def test_several_may_recover_at_once(dsn: str, client: BackfillClient) -> None:
    """Each job once, by whoever comes first; what is left is no error."""
    ids = (await client.enqueue_bulk("t", range(3000), return_ids=True)).ids
    assert ids is not None
    heartbeat = await value(dsn, DEAD)
    await rows(dsn, LOCK, ids)
    done = await asyncio.gather(*(client.recover_worker("backfill_dead", heartbeat) for _ in range(8)))
    assert sum(one.jobs for one in done if one is not None) == 3000
    assert await value(dsn, f"select count(*) from {JOBS} where locked_at is null and attempts = 1") == 3000


async def test_a_live_worker_takes_up_what_a_dead_one_left(dsn: str, eventually: Eventually) -> None:
    """Of tasks that it does not know as well; by the policy of a task that it does know."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran: list[Any] = []

    @tasks.task("t", retry=RetryPolicy(5, timedelta(hours=1), timedelta(hours=1), 1.0, 0.0), keep=timedelta(hours=1))
    async def handler(payload: Any) -> None:
        ran.append(payload)

    async with BackfillClient(dsn) as client:
        first, second, final = [await client.enqueue(handler.job(number)) for number in range(3)]
        foreign = await client.enqueue("unknown", "x")
        await rows(dsn, f"update {JOBS} set attempts = 1 where id = any (%s) returning id", [second.id])
        await rows(dsn, f"update {JOBS} set attempts = max_attempts - 1 where id = any (%s) returning id", [final.id])
        await value(dsn, DEAD)
        await rows(dsn, LOCK, [first.id, second.id, final.id, foreign.id])
        config = WorkerConfig(dsn, dead_after=SOON, heartbeat_interval=SOON / 5)
        async with WorkerRunner(config, tasks):
            await eventually(lambda: ran == [0])
            await eventually(lambda: value(dsn, f"select count(*) from {WORKERS}"), lambda count: count == 1)
        assert await rows(dsn, f"select id from {JOBS} where locked_at is not null") == []
        wait = await value(
            dsn, f"select extract(epoch from run_at - now())::float8 from {JOBS} where id = %s", second.id
        )
        assert 3500 < wait <= 3600
        end = await client.end(final)
        assert end is not None
        assert (end.how, end.worker_id) == ("failed", "backfill_dead")


async def test_the_jobs_of_a_killed_process_run_again(dsn: str, eventually: Eventually) -> None:
    """Two processes; one is killed in the midst of work: all jobs end, and no lock is left."""
    async with fleet_of(2, dsn, concurrency=8, dead_after=1.0) as fleet, BackfillClient(dsn) as client:
        await client.enqueue_bulk("record", range(2000))
        await client.enqueue_bulk("hold", [{}] * 8)
        await eventually(lambda: value(dsn, HELD), lambda count: count == 8)
        victim = fleet.workers[0]
        await fleet.kill(victim)
        await rows(dsn, "insert into released values (1)")
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
        await eventually(lambda: nothing_locked(dsn), lambda found: found == [])
        await eventually(lambda: value(dsn, f"select count(*) from {WORKERS}"), lambda count: count == 1)
        again = await rows(dsn, "select job_id from runs group by job_id having count(*) > 1")
        by_victim = await rows(dsn, "select job_id from runs where worker = %s", victim)
        assert set(again) <= set(by_victim)
        assert await value(dsn, "select count(distinct number) from runs where number >= 0") == 2000
        assert await fleet.stop() == [0]


GIVE_UP: LiteralString = f"update {WORKERS} set given_up_at = now() returning id"
UNLOCK: LiteralString = "select graphile_worker.force_unlock_workers(array[%s])"


async def test_a_worker_that_was_given_up_lets_go_and_goes_on_under_a_new_id(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Its async handlers are cancelled, the others asked to stop; it settles nothing of theirs, and runs new jobs."""
    tasks: TaskRegistry[None] = TaskRegistry()
    began, cancelled, ran = list[str](), list[Any](), list[tuple[str, Any]]()
    released = threading.Event()

    @tasks.task("hold")
    async def hold(payload: Any, ctx: WorkerContext[None]) -> None:
        began.append(ctx.worker_id)
        if began.count(ctx.worker_id) > 1 or len(set(began)) > 1:
            ran.append((ctx.worker_id, payload))
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(payload)
            raise

    @tasks.task("thread")
    def thread(payload: Any, ctx: WorkerContext[None]) -> None:
        if len(set(began)) == 1:
            began.append(ctx.worker_id)
            while not ctx.should_stop:
                released.wait(0.02)
            cancelled.append(payload)
        else:
            ran.append((ctx.worker_id, payload))

    # Both slots are in use, so that the worker cannot claim the jobs again before it knows that it was given up.
    lanes = [QueueConfig.default_queue(2)]
    config = WorkerConfig(dsn, queues=lanes, dead_after=4 * SOON, heartbeat_interval=SOON / 5)
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks) as runner:
        first = runner.worker_id
        await client.enqueue("hold", 1)
        await eventually(lambda: len(began) == 1)
        await client.enqueue("thread", 2, queue=Queue.serial("q"))
        await eventually(lambda: len(began) == 2)
        assert await rows(dsn, GIVE_UP) == [(first,)]
        await rows(dsn, UNLOCK, first)
        await eventually(lambda: runner.worker_id, lambda worker: worker != first)
        await eventually(lambda: len(cancelled) == 2)
        await eventually(lambda: sorted(payload for _, payload in ran), lambda found: found == [1, 2])
        assert {worker for worker, _ in ran} == {runner.worker_id}
        await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
        await client.enqueue("hold", 3)
        await eventually(lambda: (runner.worker_id, 3) in ran)
        await eventually(lambda: rows(dsn, f"select id from {WORKERS}"), lambda found: found == [(runner.worker_id,)])
    assert await nothing_locked(dsn) == []
    told = [record for record in caplog.records if "was given up by the others" in record.getMessage()]
    assert [record.levelname for record in told] == ["ERROR"]


async def test_a_worker_that_stops_while_it_was_given_up_stops(dsn: str, eventually: Eventually) -> None:
    """In the midst of it, and within its deadline; nothing is left locked."""
    tasks: TaskRegistry[None] = TaskRegistry()
    began = asyncio.Event()

    @tasks.task("hold")
    async def hold() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await work_for(0.5)
            raise

    config = WorkerConfig(dsn, dead_after=4 * SOON, heartbeat_interval=SOON / 5, shutdown_timeout=timedelta(0))
    async with BackfillClient(dsn) as client:
        await client.enqueue("hold")
        async with WorkerRunner(config, tasks) as runner:
            await began.wait()
            await rows(dsn, GIVE_UP)
            await eventually(lambda: runner._parts is not None and runner._parts._renewing is not None)
        assert await nothing_locked(dsn) == []
        assert await jobs_left(dsn) == 1


async def test_a_clock_that_goes_back_hides_no_dead_worker(dsn: str, eventually: Eventually) -> None:
    """The last heartbeat of one that died before lies in the server's future."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran = asyncio.Event()

    @tasks.task("t")
    async def handler() -> None:
        ran.set()

    async with BackfillClient(dsn) as client:
        job = await client.enqueue("t")
        await value(dsn, DEAD)
        await rows(dsn, f"update {WORKERS} set heartbeat_at = now() + interval '1 hour' returning id")
        await rows(dsn, LOCK, [job.id])
        async with WorkerRunner(WorkerConfig(dsn, dead_after=SOON, heartbeat_interval=SOON / 5), tasks):
            await eventually(ran.is_set, timeout=15)


@pytest.mark.leaves_rows
async def test_one_that_ends_with_jobs_locked_is_seen_dead(dsn: str, eventually: Eventually) -> None:
    """Its row stays, and others take up what it left, also where none of them cleans up."""
    tasks: TaskRegistry[None] = TaskRegistry()
    began = list[str]()

    @tasks.task("t")
    async def handler(_: Any, ctx: WorkerContext[None]) -> None:
        began.append(ctx.worker_id)

    config = WorkerConfig(dsn, dead_after=SOON, heartbeat_interval=SOON / 5, stale_lock_cleanup_interval=None)
    async with BackfillClient(dsn) as client:
        await rows(
            dsn,
            f"""create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
            create trigger refuse before delete on {JOBS} for each row execute function refuse();
            create trigger refuse_too before update on {JOBS}
            for each row when (old.locked_at is not null) execute function refuse()""",
        )
        await client.enqueue("t")
        async with WorkerRunner(config, tasks) as runner:
            await eventually(lambda: runner._parts is not None and runner._parts.one.station.settler.refused)
        assert runner.left == 1
        assert await rows(dsn, f"select id from {WORKERS}") == [(began[0],)]
        await rows(dsn, f"drop trigger refuse on {JOBS}; drop trigger refuse_too on {JOBS}")
        async with WorkerRunner(config, tasks):
            await eventually(lambda: len(began) == 2)
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0)


async def test_a_job_that_cannot_be_recovered_keeps_no_other(
    dsn: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither its worker's nor another's; it is named, and recovered once the database takes it."""
    tasks: TaskRegistry[None] = TaskRegistry()
    ran: list[Any] = []

    @tasks.task("t")
    async def handler(payload: Any) -> None:
        ran.append(payload)

    async with BackfillClient(dsn) as client:
        last = await client.enqueue("t", "last", max_attempts=1)
        beside, elsewhere, gone = [await client.enqueue("t", name) for name in ("beside", "elsewhere", "gone")]
        await rows(
            dsn,
            "alter table graphile_worker.backfill_dlq "
            "add constraint refused check (failure_reason <> 'its worker died')",
        )
        await value(dsn, DEAD)
        await rows(dsn, LOCK, [last.id, beside.id])
        await rows(
            dsn,
            f"""insert into {WORKERS} (id, host, pid, heartbeat_at, protocol, version)
            values ('backfill_dead2', 'there', 8, now() - interval '1 hour', 1, '0')""",
        )
        lock: LiteralString = (
            f"update {JOBS} set locked_by = %s, locked_at = now() - interval '1 hour', attempts = 1 where id = %s"
        )
        await rows(dsn, lock, "backfill_dead2", elsewhere.id)
        await rows(dsn, lock, "backfill_gone", gone.id)
        config = WorkerConfig(dsn, dead_after=SOON, heartbeat_interval=SOON / 5, stale_lock_cleanup_interval=SOON)
        async with WorkerRunner(config, tasks):
            await eventually(lambda: sorted(ran), lambda found: found == ["beside", "elsewhere", "gone"], timeout=15)
            await eventually(
                lambda: [r for r in caplog.records if f"job {last.id}: new row for relation" in r.getMessage()]
            )
            assert "Failing row" not in caplog.text  # it would show the payload
            await rows(dsn, "alter table graphile_worker.backfill_dlq drop constraint refused")
            await eventually(lambda: jobs_left(dsn), lambda left: left == 0)
            await eventually(lambda: value(dsn, f"select count(*) from {WORKERS}"), lambda count: count == 1)


async def test_handlers_that_hold_all_connections_keep_nobody_from_recovering(dsn: str, eventually: Eventually) -> None:
    """What looks after the queue has connections of its own."""
    tasks: TaskRegistry[None] = TaskRegistry()
    holding, release, ran = asyncio.Event(), asyncio.Event(), list[Any]()

    @tasks.task("greedy")
    async def greedy(_: Any, ctx: WorkerContext[None]) -> None:
        async with ctx.client._connection(None):
            holding.set()
            await release.wait()

    @tasks.task("t")
    async def handler(payload: Any) -> None:
        ran.append(payload)

    config = WorkerConfig(dsn, dead_after=SOON, heartbeat_interval=SOON / 5, pool_size=1)
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks):
        await client.enqueue("greedy", 1)
        await eventually(holding.is_set)
        job = await client.enqueue("t", 2, delay=timedelta(hours=1))
        await value(dsn, DEAD)
        await rows(
            dsn,
            f"update {JOBS} set run_at = now(), locked_by = 'backfill_dead', locked_at = now(), attempts = 1 "
            "where id = %s returning id",
            job.id,
        )
        await eventually(lambda: ran == [2], timeout=15)
        release.set()
