"""The concurrency of a lane is changed while its jobs run: no slot is lost, and no more jobs run than may."""

from __future__ import annotations

import asyncio
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import BackfillClient, Job, QueueConfig, TaskRegistry
from backfill.storage.claims import Look
from backfill.worker.control.concurrency import set_concurrency
from backfill.worker.execution.endings import GIVEN_BACK
from backfill.worker.execution.executor import Executor
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.lanes.lane import Lane
from backfill.worker.lanes.making import make_lanes

from plugins.waiting import Eventually

STEPS = st.one_of(
    st.tuples(st.just("change"), st.integers(1, 12)),
    st.tuples(st.sampled_from(["look", "answer", "end", "end", "turn"]), st.integers(0, 50)),
)


class Bench:
    """An executor without a database, and its lane; each handler runs until it is told to end."""

    def __init__(self, concurrency: int) -> None:
        tasks: TaskRegistry[None] = TaskRegistry()
        tasks.task("t")(self._handle)
        config = QueueConfig.default_queue(concurrency)
        [self.lane] = make_lanes((config,), schema="graphile_worker", tasks=("t",), forbidden_flags=())
        self.executor = Executor(tasks, worker_id="backfill_0123456789", client=cast("BackfillClient", None), deps=None)
        self.ended = list[HeldJob]()
        self.executor.ended, self.executor.thirsty = self.ended.append, lambda: None
        self.running = dict[int, asyncio.Event]()
        self.began = list[int]()
        self.looks = list[Look]()
        self._next = 0

    async def _handle(self, number: int) -> None:
        self.began.append(number)
        self.running[number] = asyncio.Event()
        await self.running[number].wait()
        del self.running[number]

    def claim(self, count: int) -> None:
        """Hold some jobs that were claimed just now."""
        numbers = range(self._next, self._next + count)
        self._next += count
        self.executor.hold(
            [
                Job(id=n, task_identifier="t", payload_bytes=b"%d" % n, attempts=1, run_at_micros=n, locked_at_micros=1)
                for n in numbers
            ],
            self.lane,
        )

    def change(self, concurrency: int) -> None:
        """Set the lane's concurrency, as the worker does."""
        set_concurrency(self.executor, self.lane, concurrency)

    async def step(self, step: str, number: int) -> None:
        """Do one thing that may happen to a lane."""
        lane = self.lane
        if step == "change":
            self.change(number)
        elif step == "look" and lane.low and len(self.looks) < 2:
            self.looks.append(lane.look(500, 0.0))
        elif step == "answer" and self.looks:
            look = self.looks.pop(number % len(self.looks))
            lane.answered(look)
            lane.holding = False
            self.claim(min(look.wanted, number))
        elif step == "end" and self.running:
            [*self.running.values()][number % len(self.running)].set()
        elif step == "turn":
            await asyncio.sleep(0)

    async def empty(self) -> None:
        """Let all that runs end, and what is ready begin and end."""
        while not self.executor.idle or self.lane.ready:
            self.lane.holding = False
            for event in list(self.running.values()):
                event.set()
            await asyncio.sleep(0)
            self.executor.dispatch(self.lane)
            await asyncio.sleep(0)


def invariant(lane: Lane, running: int) -> None:
    """Each slot is free or used."""
    assert lane.free + running == lane.concurrency


@given(first=st.integers(1, 12), steps=st.lists(STEPS, max_size=60), seconds=st.sampled_from([1e-3, 1e-2, 1.0]))
@settings(max_examples=200, deadline=None)
async def test_no_slot_is_lost_and_no_more_jobs_run_than_may(
    first: int, steps: list[tuple[str, int]], seconds: float
) -> None:
    """Whatever happens in whatever order.

    Those that ran when the concurrency was lowered may run out, and no other starts meanwhile.
    """
    bench = Bench(first)
    lane, executor = bench.lane, bench.executor
    for _ in range(100):
        lane.note_end(seconds)
    for step, number in steps:
        before = executor.started
        left = lane.free
        await bench.step(step, number)
        invariant(lane, len(executor._running))
        assert lane.free >= 0 or executor.started == before or left > 0
        if step == "change":
            assert len(lane.ready) <= max(lane.free + lane.ahead, 0)
        assert lane.asked == sum(look.wanted for look in bench.looks)
        assert lane.ordered is (lane.concurrency == 1)
    await bench.empty()
    for look in bench.looks:
        lane.answered(look)
    invariant(lane, 0)
    assert (lane.asked, len(lane.ready)) == (0, 0)
    started = {one.job.id for one in bench.ended if one.ending is not GIVEN_BACK}
    assert started == set(bench.began)
    assert {one.job.id for one in bench.ended} == set(range(bench._next))
    executor.close()


async def test_a_raise_starts_what_is_ready_at_once(eventually: Eventually) -> None:
    """Without another look; and the lane has room for as many more."""
    bench = Bench(2)
    bench.claim(10)
    await eventually(lambda: len(bench.running) == 2)
    bench.change(7)
    await eventually(lambda: len(bench.running) == 7)
    assert bench.lane.room == -3
    await bench.empty()
    assert (bench.lane.free, bench.lane.ahead) == (7, bench.lane.room - 7)
    bench.executor.close()


async def test_a_lowered_lane_gives_back_what_comes_last_and_lets_the_rest_run_out(eventually: Eventually) -> None:
    """The jobs of a look that began before are given back too; none that runs is cancelled."""
    bench = Bench(10)
    lane = bench.lane
    for _ in range(1000):
        lane.note_end(0.01)
    ahead = lane.ahead
    look = lane.look(500, 0.0)
    bench.claim(30)
    await eventually(lambda: len(bench.running) == 10)
    bench.change(2)
    assert lane.ahead < ahead
    assert (lane.free, len(lane.ready)) == (-8, max(lane.ahead - 8, 0))
    assert {one.job.id for one in bench.ended} == set(range(10 + len(lane.ready), 30))
    lane.answered(look)
    bench.claim(20)
    assert len(lane.ready) == max(lane.ahead - 8, 0)
    assert not lane.lowered
    assert len(bench.running) == 10
    await bench.empty()
    assert all(one.ending is not GIVEN_BACK for one in bench.ended if one.job.id < 10)
    bench.executor.close()


async def test_a_lane_that_becomes_ordered_looks_before_it_starts_the_next_job(eventually: Eventually) -> None:
    """Once its last attempt has ended, since that may have freed a job which comes first; then it starts one by one.

    With two slots again it waits for no look.
    """
    bench = Bench(2)
    lane = bench.lane
    for _ in range(1000):
        lane.note_end(0.001)
    bench.claim(6)
    await eventually(lambda: len(bench.running) == 2)
    bench.change(1)
    assert (lane.ordered, lane.holding, lane.low) == (True, True, False)
    for event in list(bench.running.values()):
        event.set()
    await eventually(lambda: not bench.running)
    assert (lane.free, lane.low, bench.began) == (1, True, [0, 1])
    bench.change(2)
    await eventually(lambda: bench.began == [0, 1, 2, 3])
    assert not lane.holding
    await bench.empty()
    bench.executor.close()
