"""Floors of serial jobs: behind paused queues all is found, in order, and what comes back is not passed over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from backfill import BackfillClient, JobSpec, NewJob, Queue, TaskRegistry, WorkerConfig, WorkerContext, WorkerRunner
from backfill.storage.claims import LaneClaim, LaneFilter
from backfill.storage.connection import connect
from backfill.storage.serial_floors import SerialFloor
from backfill.storage.wire import Command, Parameter, Wire
from backfill.storage.workers import find_tasks

from reading import rows, value

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
LEVELS = (-5, 0, 3)
LANE = LaneClaim("graphile_worker", (LaneFilter(tasks=("t",)),))
CLEAR: LiteralString = """
select set_config('backfill.hidden', 'true', true), set_config('backfill.queues', '{}', true)"""
FILL: LiteralString = """
with task as (insert into graphile_worker._private_tasks (identifier) values ('t') returning id),
queues as (
  insert into graphile_worker._private_job_queues (queue_name) select 'q' || n from generate_series(1, 24) as n
  returning id
)
insert into graphile_worker._private_jobs (task_id, job_queue_id, priority, run_at)
select
  task.id, queues.id, ($1::int[])[1 + (random() * 2)::int],
  now() + ((random() * 4)::int - 3) * interval '1 minute' - (random() * 2)::int * interval '1 hour'
from task, queues, generate_series(1, 6)
order by random()"""
HOLD: LiteralString = """
update graphile_worker._private_job_queues as queues
set locked_at = now(), locked_by = case kind
    when 0 then 'other'
    when 1 then 'backfill:pause'
    when 2 then 'backfill:pause:' || job
    else 'backfill:retry:' || job
  end
from (
  select job_queue_id, max(id) as job, (random() * 6 - 0.5)::int as kind
  from graphile_worker._private_jobs group by 1
) as one
where one.job_queue_id = queues.id and kind <= 3"""
DUE: LiteralString = """
select
  jobs.priority, (extract(epoch from jobs.run_at - timestamptz '2000-01-01 00:00+00') * 1000000)::bigint,
  jobs.id, jobs.job_queue_id, coalesce(queues.locked_by, '')
from graphile_worker._private_jobs as jobs
join graphile_worker._private_job_queues as queues on queues.id = jobs.job_queue_id
where jobs.run_at <= now()
order by 1, 2, 3"""
LOCKED: LiteralString = "select current_setting('backfill.queues')"
PAUSED: LiteralString = """
select graphile_worker.backfill_say('pause', 'queue:paused' || n, '{}') from generate_series(1, 3) as n"""
AHEAD: LiteralString = """
insert into graphile_worker._private_jobs (task_id, job_queue_id, priority, run_at)
select tasks.id, queues.id, -5, now() - interval '1 hour'
from graphile_worker._private_tasks as tasks
join graphile_worker._private_job_queues as queues on starts_with(queues.queue_name, 'paused')
cross join generate_series(1, 800)"""


async def _locked(wire: Wire, name: str, parameters: Sequence[Parameter]) -> tuple[PGresult, list[int]]:
    """The result of a statement that locks queues, which saw nothing before it, and the queues that it has locked."""
    clear, locked = Command("clear", CLEAR, ()), Command("locked", LOCKED, ())
    results = await wire.send([clear, Command(name, LANE._texts[name], tuple(parameters)), locked], timeout=10)
    raw = results[2].get_value(0, 0)
    assert raw is not None
    return results[1], [int(number) for number in raw[1:-1].split(b",") if number]


@pytest.mark.parametrize("seed", range(8))
async def test_a_floor_hides_only_paused_queues(dsn: str, seed: int) -> None:
    """All else that is due lies beyond it or is watched: a look beyond it locks what one from the start would."""
    async with await connect(dsn) as connection:
        await connection.execute("select setseed($1)", [seed / 10])
        await connection.execute(FILL, [list(LEVELS)])
        await connection.execute(HOLD)
        due = await (await connection.execute(DUE)).fetchall()
        bound, _ = LANE.bind(await find_tasks(connection, ["t"], schema="graphile_worker"))
        wire = Wire(connection)
        result, _ = await _locked(wire, "lock_far_queues", ["0", "{}", *bound])
        found = SerialFloor.read(result)
        assert found is not None
        floor = found.cover(random.Random(seed).sample(LEVELS, 2))
        _, locked = await _locked(wire, "lock_beyond_queues", ["100", "{}", *floor.parameters, *bound])
    hidden = {
        queue
        for priority, run_at, number, queue, holder in due
        if not holder.startswith("backfill:pause") and (run_at, number) < floor._start(priority)
    }
    assert hidden <= set(floor.watched)
    assert set(locked) == {queue for *_, number, queue, holder in due if holder in ("", f"backfill:retry:{number}")}


async def _fill(dsn: str, client: BackfillClient, jobs: int, queues: int) -> None:
    """Three paused queues with 2,400 jobs ahead of all others, and the others."""
    await client.enqueue_bulk(
        NewJob("note", number, JobSpec(queue=Queue.serial(f"q{number % queues}"), run_at=BEGINNING))
        for number in range(jobs)
    )
    await rows(dsn, PAUSED)
    await rows(dsn, AHEAD)


class Noted:
    """A task that notes its jobs, and what is to happen at one of them."""

    def __init__(self) -> None:
        self.ran: list[tuple[int, Any]] = []
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.gate = asyncio.Event()
        self.at = 1_000_000
        self.reached = asyncio.Event()
        self.tasks.task("note")(self.note)

    async def note(self, payload: Any, ctx: WorkerContext[None]) -> None:
        """Note a job; one of them waits."""
        self.ran.append((ctx.job.priority, payload))
        if len(self.ran) == self.at:
            self.reached.set()
            await self.gate.wait()


async def test_one_slot_keeps_the_order_behind_paused_queues(dsn: str) -> None:
    """The jobs behind them run in the contract's order, and the worker finds out that nothing else is left."""
    noted = Noted()
    async with BackfillClient(dsn) as client:
        await _fill(dsn, client, 300, 40)
    runner = WorkerRunner(WorkerConfig(dsn, concurrency=1), noted.tasks)
    assert await runner.process_available_jobs() == 300
    assert [payload for _, payload in noted.ran] == list(range(300))
    assert await value(dsn, "select count(*) from graphile_worker._private_jobs") == 2_400


async def test_what_comes_before_the_floor_is_found(dsn: str) -> None:
    """Jobs of a queue that is resumed, and new ones that come first, run before the rest of the backlog."""
    noted = Noted()
    noted.at = 200
    async with BackfillClient(dsn) as client:
        await _fill(dsn, client, 3_000, 40)
        config = WorkerConfig(dsn, concurrency=1, poll_interval=timedelta(seconds=1))
        async with WorkerRunner(config, noted.tasks):
            await asyncio.wait_for(noted.reached.wait(), 30)
            await client.enqueue_bulk([NewJob("note", "first", JobSpec(queue=Queue.serial("new"), priority=-6))])
            await client.resume(queue="paused2")
            noted.reached.clear()
            noted.at = 1_100
            noted.gate.set()
            await asyncio.wait_for(noted.reached.wait(), 60)
    levels = [priority for priority, _ in noted.ran]
    assert "first" in [payload for _, payload in noted.ran]
    assert levels.count(-5) >= 700
