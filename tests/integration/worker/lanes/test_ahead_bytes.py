"""What is claimed ahead is bounded in bytes: by the claim itself, which knows sizes, and by lanes that learn them."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from backfill import BackfillClient, JobSpec, NewJob, Queue, QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.records import Job
from backfill.storage.claims import EVERYTHING, LaneClaim, Look
from backfill.storage.connection import connect
from backfill.storage.wire import Command, Wire
from backfill.storage.workers import find_tasks

from reading import rows

SCHEMA = "graphile_worker"
NEVER = timedelta(hours=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LIMIT = 60.0
MEASURED = 512
"""Payloads that are stored in so many bytes count for nothing."""

sizes = st.sampled_from([0, 10, 700, 700, 3_000, 20_000, 100_000])


def _payload(size: int) -> dict[str, str]:
    """Text that cannot be compressed much."""
    return {"x": random.Random(size).randbytes(size // 2).hex()}


async def _look(dsn: str, look: Look) -> tuple[list[Job], bool]:
    """What one look claims, and whether it says that it was cut; all of it is undone."""
    async with await connect(dsn) as connection:
        ids = await find_tasks(connection, ("t",), schema=SCHEMA)
        config = QueueConfig.default_queue(1)
        claim = LaneClaim(SCHEMA, (config.filter(("t",), own=True),))
        await connection.execute("begin")
        wire = Wire(connection)
        commands = [Command.of("set_hot", SCHEMA, "true"), *claim.commands(look, worker="w", bound=claim.bind(ids))]
        results = await wire.send(commands, timeout=LIMIT)
        taken = claim.read(results[1:], {number: name for name, number in ids.items()})
        await connection.execute("rollback")
    return taken.jobs, taken.cut


@given(
    backlog=st.lists(st.tuples(sizes, st.booleans()), max_size=12),
    wanted=st.integers(1, 12),
    slots=st.integers(0, 4),
    budget=st.sampled_from([1, 1_000, 5_000, 50_000, 250_000]),
    near=st.booleans(),
)
@example(backlog=[(100_000, False)] * 12, wanted=12, slots=0, budget=1, near=False)
@example(backlog=[(100_000, True)] * 12, wanted=12, slots=2, budget=250_000, near=True)
@settings(max_examples=40)
async def test_a_look_takes_the_first_jobs_that_fit(
    dsn: str, backlog: list[tuple[int, bool]], wanted: int, slots: int, budget: int, near: bool
) -> None:
    """As many as slots are free, and more only within the budget, one at least; in order, and it says what it left."""
    async with BackfillClient(dsn) as client:
        jobs = list[NewJob[Any]]()
        for n, (size, serial) in enumerate(backlog):
            queue = Queue.serial(f"queue {n}") if serial and near else None
            jobs.append(NewJob("t", _payload(size), JobSpec(queue=queue, run_at=LONG_AGO + n * MINUTE)))
        ids = (await client.enqueue_bulk(jobs, return_ids=True)).ids or []
        look = Look(wanted, EVERYTHING, scan_jobs=near, scan_queues=near, slots=slots, budget=budget)
        taken, cut = await _look(dsn, look)
        await rows(dsn, "delete from graphile_worker._private_jobs")
    count = len(taken)
    assert sorted(job.id for job in taken) == sorted(ids)[:count]
    most = min(wanted, len(backlog))
    assert min(max(slots, 1), most) <= count <= most
    assert cut == (count < most)
    beyond = [len(job.payload_bytes) for job in taken[max(slots, 1) :]]
    assert sum(size for size in beyond if size > MEASURED) <= budget


class Heavy:
    """A task that notes how many bytes its worker holds ready, beyond the jobs that start at once in free slots."""

    def __init__(self) -> None:
        self.tasks: TaskRegistry[None] = TaskRegistry()
        self.runner: WorkerRunner | None = None
        self.ran = 0
        self.most = 0
        self.tasks.task("t")(self._run)

    async def _run(self, payload: Any) -> None:
        self.ran += 1
        lanes = self._station.claimer.lanes
        for lane in lanes:
            ahead = list(lane.ready)[max(lane.free, 0) :]
            self.most = max(self.most, sum(len(run.job.payload_bytes) for run in ahead))
        await asyncio.sleep(0)

    async def process(self, config: WorkerConfig) -> int:
        self.runner = WorkerRunner(config, self.tasks)
        async with asyncio.timeout(LIMIT):
            return await self.runner.process_available_jobs()

    @property
    def _station(self) -> Any:
        assert self.runner is not None
        assert self.runner._parts is not None
        return self.runner._parts.one.station


async def test_large_payloads_after_many_small_ones_are_not_claimed_by_the_hundred(dsn: str) -> None:
    """The lane has learnt to claim far ahead when they come, and two lines look at once.

    Nothing of them is passed over.
    """
    heavy, big = Heavy(), 50_000
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk([NewJob("t", number) for number in range(4000)])
        await client.enqueue_bulk([NewJob("t", _payload(big), JobSpec(priority=5)) for _ in range(400)])
        await client.enqueue_bulk([NewJob("t", number, JobSpec(priority=6)) for number in range(1000)])
    limit = 20 * big
    assert await heavy.process(WorkerConfig(dsn, concurrency=10, poll_interval=NEVER, ahead_bytes=limit)) == 5400
    # A look at light payloads brings at most one job beyond what the slots and its half of the bytes hold; there are
    # two.
    assert 0 < heavy.most <= limit + (2 + 10) * big
    assert await rows(dsn, "select 1 from graphile_worker._private_jobs") == []


async def test_with_no_bytes_nothing_is_claimed_ahead(dsn: str) -> None:
    """As many jobs are claimed as slots are free, whatever their size."""
    heavy = Heavy()
    async with BackfillClient(dsn) as client:
        await client.enqueue_bulk([NewJob("t", number) for number in range(300)])
    assert await heavy.process(WorkerConfig(dsn, concurrency=4, poll_interval=NEVER, ahead_bytes=0)) == 300
    assert heavy.most == 0
