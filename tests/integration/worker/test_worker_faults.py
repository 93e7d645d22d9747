"""What goes wrong around a worker.

Killed backends, rows that others hold, refusals, late answers, handlers that interrupt.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from backfill import (
    BackfillClient,
    JobSpec,
    NewJob,
    Queue,
    TaskRegistry,
    WorkerConfig,
    WorkerContext,
    WorkerRunner,
)
from backfill.worker.pipeline import locks, pump, settler

from plugins.periods import block_for, let_pass
from reading import rows, value

NEVER = timedelta(hours=1)
LEFT: LiteralString = "select count(*) from graphile_worker._private_jobs"
HOT: LiteralString = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and application_name ~ '^backfill backfill_[0-9a-f]+$'
"""


class Runs:
    """A registry of tasks that note what they ran, and one that waits."""

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.ended: Counter[Any] = Counter()
        self.begun: list[Any] = []
        self.release = asyncio.Event()
        self.tasks.task("quick")(self._quick)
        self.tasks.task("hold")(self._hold)
        self.tasks.task("fail")(self._fail)

    async def _quick(self, payload: Any) -> None:
        self.begun.append(payload)
        self.ended[payload] += 1

    async def _hold(self, payload: Any) -> None:
        self.begun.append(payload)
        await self.release.wait()
        self.ended[payload] += 1

    async def _fail(self, payload: Any, ctx: WorkerContext[None]) -> None:
        self.begun.append(payload)
        if ctx.attempt == 1:
            raise ValueError("the first attempt fails")
        self.ended[payload] += 1


@asynccontextmanager
async def holding(dsn: str, query: LiteralString, *parameters: Any) -> AsyncIterator[psycopg.AsyncConnection]:
    """An open transaction of somebody's that holds rows."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(query, parameters or None)
        yield connection
        await connection.rollback()


async def test_backends_are_killed_in_mid_turn_and_every_job_ends_once(dsn: str) -> None:
    """Two workers of one process run a backlog while their connections are killed again and again.

    None is lost or doubled.
    """
    count, runs, kills = 6_000, Runs(), 0
    chance = random.Random(4)
    config = WorkerConfig(dsn, concurrency=20, poll_interval=timedelta(milliseconds=200))
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(
            NewJob("quick", number, JobSpec(queue=Queue.parallel() if number % 10 else Queue.serial(f"q{number % 70}")))
            for number in range(count)
        )
        async with (
            WorkerRunner(config, runs.tasks),
            WorkerRunner(config, runs.tasks),
            await psycopg.AsyncConnection.connect(dsn, autocommit=True) as killer,
        ):
            async with asyncio.timeout(40):
                while runs.ended.total() < count:
                    if kills < 12 and chance.random() < 0.5:
                        kills += (await killer.execute(HOT)).rowcount
                    await let_pass(chance.uniform(0, 0.1))
    assert kills > 0
    assert set(runs.ended.values()) == {1}
    assert await value(dsn, LEFT) == 0
    assert await rows(dsn, "select id from graphile_worker._private_job_queues where locked_at is not null") == []


async def test_a_row_that_somebody_holds_keeps_no_other_from_being_settled(dsn: str, eventually: Any) -> None:
    """The others' ends are written while the transaction is open.

    Afterwards its own, and the two lines work as before.
    """
    runs = Runs()
    async with BackfillClient(dsn) as client:
        outcome = await client.enqueue("hold", "held")
        await client.enqueue_bulk(NewJob("hold", number) for number in range(5))
        async with WorkerRunner(WorkerConfig(dsn, concurrency=10), runs.tasks) as runner:
            await eventually(lambda: len(runs.begun), lambda begun: begun == 6)
            async with holding(dsn, "select 1 from graphile_worker._private_jobs where id = %s for update", outcome.id):
                runs.release.set()
                await eventually(
                    lambda: rows(dsn, "select id from graphile_worker._private_jobs"), [(outcome.id,)].__eq__
                )
                await client.enqueue("quick", "after")
                await eventually(lambda: runs.ended["after"], timeout=5)
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)
            assert runner._parts is not None
            assert not runner._parts.one.station.apart
    assert set(runs.ended.values()) == {1}


async def test_many_rows_that_somebody_holds_do_not_keep_the_worker_from_its_work(dsn: str, eventually: Any) -> None:
    """A transaction over 60 running jobs.

    Others are claimed and run meanwhile, without waiting for each of those locks.
    """
    runs = Runs()
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk(NewJob("hold", number) for number in range(60))
        async with WorkerRunner(WorkerConfig(dsn, concurrency=100), runs.tasks):
            await eventually(lambda: len(runs.begun), lambda begun: begun == 60)
            async with holding(dsn, "select 1 from graphile_worker._private_jobs for update"):
                runs.release.set()
                await eventually(runs.ended.total, lambda ended: ended == 60)
                await client.enqueue("quick", "during")
                await eventually(lambda: runs.ended["during"], timeout=4)
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)


REFUSING: LiteralString = """
create sequence refusals;
create function refuse() returns trigger language plpgsql as $$
begin
  if old.locked_at is null or old.payload::text <> '"bad"' then
    return case when tg_op = 'DELETE' then old else new end;
  end if;
  perform nextval('refusals');
  raise exception 'not this one';
end $$;
create trigger refuse before update or delete on graphile_worker._private_jobs for each row execute function refuse()
"""


async def test_a_job_whose_end_is_refused_is_not_run_again(
    dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused as completed and as failed, it stays this worker's, and its end is written once the database lets it."""
    monkeypatch.setattr(locks, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(settler, "REFUSED_SECONDS", 0.05)
    runs = Runs()
    async with BackfillClient(dsn) as client:
        await rows(dsn, REFUSING)
        async with WorkerRunner(WorkerConfig(dsn, poll_interval=timedelta(seconds=0.1)), runs.tasks):
            await client.enqueue("quick", "bad")
            await eventually(lambda: value(dsn, "select last_value from refusals"), lambda count: count > 20)
            await client.enqueue("quick", "good")
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 1)
            await rows(dsn, "drop trigger refuse on graphile_worker._private_jobs")
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)
    assert runs.ended == {"bad": 1, "good": 1}


async def test_what_is_refused_keeps_no_run_from_ending(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """`process_available_jobs` runs the others and returns; the job stays locked, and the log says so."""
    runs = Runs()
    async with BackfillClient(dsn) as client:
        await rows(dsn, REFUSING)
        await client.enqueue_bulk("quick", ["bad", "good"])
    assert await WorkerRunner(WorkerConfig(dsn), runs.tasks).process_available_jobs() == 2
    assert runs.ended == {"bad": 1, "good": 1}
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs where locked_by is not null") == 1
    assert "1 jobs stay locked by this worker" in caplog.text
    await rows(dsn, "truncate graphile_worker._private_jobs")


async def test_a_look_for_strays_that_is_refused_beside_a_settlement_is_no_end_of_the_worker(
    dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A settlement was refused, and what must be done on the line before it is tried again is refused too."""
    old, met = pump.PipelineLoop._refused, list[str]()

    async def refused(self: pump.PipelineLoop, error: psycopg.Error, batch: Any, asked: Any) -> None:
        hot: Any = self._station.hot
        if batch and not asked and not met:
            compare = hot._compare

            async def refuse(_: Any) -> int:
                met.append("refused")
                hot._compare = compare
                raise psycopg.errors.InsufficientPrivilege("not now")

            hot._in_doubt, hot._compare = True, refuse
        await old(self, error, batch, asked)

    monkeypatch.setattr(pump.PipelineLoop, "_refused", refused)
    runs = Runs()
    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn), runs.tasks) as runner:
        await rows(dsn, REFUSING)
        await client.enqueue("quick", "bad")
        await eventually(lambda: met)
        await client.enqueue("quick", "good")
        await eventually(lambda: runs.ended["good"])
        assert runner._parts is not None
        assert not runner._parts.failed.done()
        await rows(dsn, "drop trigger refuse on graphile_worker._private_jobs")
        await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)
    assert "what must come before a settlement was refused" in caplog.text


async def test_a_lock_that_cannot_be_renewed_is_no_end_of_the_worker(
    dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's transaction holds the row when its lock is to be renewed.

    The others are renewed, and the worker goes on.
    """
    monkeypatch.setattr(locks, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(locks, "RENEW_AFTER", 0.2)
    runs = Runs()
    locked: LiteralString = "select locked_at from graphile_worker._private_jobs where id = %s"
    async with BackfillClient(dsn) as client:
        ids = [(await client.enqueue("hold", number)).id for number in range(2)]
        async with WorkerRunner(WorkerConfig(dsn), runs.tasks) as runner:
            await eventually(lambda: len(runs.begun), lambda begun: begun == 2)
            async with holding(dsn, "select 1 from graphile_worker._private_jobs where id = %s for update", ids[0]):
                for _ in range(2):
                    before = await value(dsn, locked, ids[1])
                    await eventually(lambda: value(dsn, locked, ids[1]), lambda now, at=before: now > at)
            before = await value(dsn, locked, ids[0])
            await eventually(lambda: value(dsn, locked, ids[0]), lambda now: now > before)
            assert runner._parts is not None
            assert not runner._parts.failed.done()
            runs.release.set()
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)


async def test_strays_that_somebody_holds_do_not_stop_the_lines(dsn: str, eventually: Any) -> None:
    """After a lost answer a row of ours is held by another's transaction.

    The worker goes on, and gives it back later.
    """
    runs = Runs()
    async with BackfillClient(dsn) as client:
        stray = await client.enqueue("quick", "stray", delay=NEVER)
        async with WorkerRunner(WorkerConfig(dsn), runs.tasks) as runner:
            await rows(
                dsn,
                "update graphile_worker._private_jobs set locked_at = now(), locked_by = %s, attempts = 1",
                runner.worker_id,
            )
            async with holding(dsn, "select 1 from graphile_worker._private_jobs where id = %s for update", stray.id):
                await rows(dsn, HOT)
                await client.enqueue("quick", "other")
                await eventually(lambda: runs.ended["other"], timeout=8)
            await rows(dsn, HOT)
            await client.enqueue("quick", "another")
            await eventually(
                lambda: rows(dsn, "select attempts, locked_by from graphile_worker._private_jobs"), [(0, None)].__eq__
            )


async def test_an_answer_that_is_late_is_a_lost_one(dsn: str, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that takes longer than its timeout is given up, and what it may have claimed is given back.

    The worker lives.
    """
    monkeypatch.setattr(pump, "QUERY_TIMEOUT", 0.4)
    runs = Runs()
    slow: LiteralString = """
    create function linger() returns trigger language plpgsql as $$ begin perform pg_sleep(1.5); return new; end $$;
    create trigger linger before update on graphile_worker._private_jobs for each row execute function linger()
    """
    async with BackfillClient(dsn) as client:
        config = WorkerConfig(dsn, poll_interval=timedelta(seconds=0.2))
        async with WorkerRunner(config, runs.tasks) as runner:
            await rows(dsn, slow)
            await client.enqueue("quick", 1)
            await eventually(lambda: value(dsn, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"))
            await rows(dsn, "drop trigger linger on graphile_worker._private_jobs")
            await eventually(lambda: runs.ended[1], timeout=10)
            assert runner._parts is not None
            assert not runner._parts.failed.done()
    assert runs.ended == {1: 1}


async def test_a_worker_that_ends_in_doubt_leaves_no_row_locked(dsn: str, eventually: Any) -> None:
    """The answer to its last claim is lost while it stops: what that may have taken goes back all the same."""
    runs = Runs()
    async with BackfillClient(dsn) as client:
        await client.enqueue("hold", 1)
        async with WorkerRunner(WorkerConfig(dsn, poll_interval=NEVER), runs.tasks) as runner:
            await eventually(lambda: len(runs.begun))
            await client.enqueue("quick", 2, delay=NEVER)
            claim: LiteralString = """
            update graphile_worker._private_jobs set locked_at = now(), locked_by = %s, attempts = 1
            where locked_at is null
            """
            runs.release.set()
            await eventually(lambda: value(dsn, LEFT), lambda left: left == 1)
            await rows(dsn, claim, runner.worker_id)
            assert runner._parts is not None
            runner._parts.one.hot._in_doubt = True
    assert await rows(dsn, "select attempts, locked_by from graphile_worker._private_jobs") == [(0, None)]


async def test_a_handler_that_blocks_the_loop_costs_nothing_but_time(dsn: str, eventually: Any) -> None:
    """Jobs claimed ahead behind it are run or given back, each once; a synchronous one blocks nobody."""
    runs = Runs()

    @runs.tasks.task("block")
    async def block() -> None:
        block_for(0.4)  # what no handler should do

    @runs.tasks.task("sync")
    def sync(payload: Any) -> None:
        block_for(0.01)
        runs.ended[payload] += 1

    async with BackfillClient(dsn) as client, WorkerRunner(WorkerConfig(dsn, concurrency=4), runs.tasks):
        for start in (0, 100):
            await client.enqueue_bulk(
                NewJob("block", None) if number == 50 else NewJob(("quick", "sync")[number % 2], start + number)
                for number in range(100)
            )
        await eventually(lambda: value(dsn, LEFT), lambda left: left == 0)
    assert len(runs.ended) == 198
    assert set(runs.ended.values()) == {1}
