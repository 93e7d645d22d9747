"""Attempts are started one after the other in one task; each runs as if its task and its context were its own."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill import Job, QueueConfig
from backfill.worker.execution import starting
from backfill.worker.execution.forks import ForkGuard
from backfill.worker.execution.held_job import HeldJob
from backfill.worker.execution.starting import Starter
from backfill.worker.execution.wiring import Wiring
from backfill.worker.lanes.making import make_lanes

from plugins.periods import work_for
from plugins.waiting import Eventually, wait_until

NOTE: contextvars.ContextVar[int] = contextvars.ContextVar("NOTE", default=-1)
STEPS = st.sampled_from(["go", "turn", "future", "in_time", "out_of_time", "cancel", "error", "child"])


class Bench:
    """A starter, and a lane; each attempt is a call with the number of its job."""

    def __init__(self, attempt: Callable[[int], Awaitable[None]], *, slots: int = 100) -> None:
        self._call = attempt
        self._left = set[int]()
        self._done = asyncio.Event()
        self._guard = ForkGuard()
        self.wiring = Wiring()
        self.wiring.thirsty = lambda: None
        self.undone = list[HeldJob]()
        [self.lane] = make_lanes(
            (QueueConfig.default_queue(slots),), schema="graphile_worker", tasks=("t",), forbidden_flags=()
        )
        self.starter = Starter(self.wiring, attempt=self._attempt, undo=self.undone.append, guard=self._guard)

    async def _attempt(self, running: HeldJob) -> None:
        try:
            await self._call(running.job.id)
        finally:
            self._left.discard(running.job.id)
            if not self._left:
                self._done.set()
            self.lane.free += 1
            self.starter.waiting.discard(running)
            self.starter.dispatch(self.lane)

    def add(self, *numbers: int) -> list[HeldJob]:
        """Have jobs ready, and started."""
        jobs = [Job(id=n, task_identifier="t", payload_bytes=b"1", attempts=1, run_at_micros=0) for n in numbers]
        held = [HeldJob(job, self.lane) for job in jobs]
        self._left.update(numbers)
        self.lane.add(held)
        self.starter.dispatch(self.lane)
        return held

    async def end(self) -> None:
        """Wait until all attempts have ended."""
        if self._left:
            await self._done.wait()
        self._guard.close()


def task_now() -> asyncio.Task[Any]:
    """The task that runs this."""
    task = asyncio.current_task()
    assert task is not None
    return task


async def test_only_attempts_that_wait_have_a_task_of_their_own() -> None:
    """Attempts that do not wait share one; the first that waits keeps it, and the next ones have another."""
    tasks = dict[int, list[asyncio.Task[Any]]]()

    async def attempt(number: int) -> None:
        tasks[number] = [task_now()]
        if number == 2:
            await asyncio.sleep(0)
            tasks[number].append(task_now())

    bench = Bench(attempt)
    bench.add(0, 1, 2, 3, 4)
    await bench.end()
    first = tasks[0][0]
    assert [tasks[number] for number in (1, 2)] == [[first], [first, first]]
    assert tasks[3] == tasks[4] != [first]
    assert bench.starter.started == 5
    assert bench.lane.free == bench.lane.concurrency


@given(scripts=st.lists(st.lists(STEPS, max_size=5), max_size=8), slots=st.integers(1, 4))
@settings(max_examples=150, deadline=None)
async def test_each_attempt_runs_as_in_a_task_and_a_context_of_its_own(scripts: list[list[str]], slots: int) -> None:
    """Whatever attempts do, none of them meets what another one does with its task or its context."""
    under_way, ends = dict[int, asyncio.Task[Any]](), dict[int, list[str]]()
    before = NOTE.get()

    async def attempt(number: int) -> None:
        assert NOTE.get() == before
        assert task_now() not in under_way.values()
        under_way[number] = task_now()
        ends[number] = []
        try:
            for step in scripts[number]:
                NOTE.set(number)
                ends[number].append(await one(step))
                assert task_now() is under_way[number]
                assert NOTE.get() == number
        except asyncio.CancelledError:
            ends[number].append("cancelled")
        finally:
            del under_way[number]

    bench = Bench(attempt, slots=slots)
    bench.add(*range(len(scripts)))
    await bench.end()
    assert ends == {number: expected(script) for number, script in enumerate(scripts)}
    assert NOTE.get() == before


async def one(step: str) -> str:
    """Do what a handler may do."""
    loop = asyncio.get_running_loop()
    if step == "turn":
        await asyncio.sleep(0)
    elif step == "future":
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
    elif step == "in_time":
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
    elif step == "out_of_time":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await loop.create_future()
    elif step == "cancel":
        task_now().cancel()
        await asyncio.sleep(0)
    elif step == "error":
        failing = loop.create_future()
        loop.call_soon(failing.set_exception, KeyError(step))
        with pytest.raises(KeyError):
            await failing
    elif step == "child":
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
    return step


def expected(script: list[str]) -> list[str]:
    """What becomes of the steps: all of them are done up to the first that cancels its task."""
    if "cancel" in script:
        return [*script[: script.index("cancel")], "cancelled"]
    return script


async def test_many_that_wait_begin_within_few_turns_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn begins twice as many as the one before; those that do not wait need one turn for all."""
    monkeypatch.setattr(starting, "_TURN_SECONDS", 60.0)  # else a machine that is slow for a moment ends a turn early
    began = list[int]()

    async def attempt(number: int) -> None:
        began.append(number)
        if number < 100:
            await work_for(0.01)

    bench = Bench(attempt)
    bench.add(*range(100))
    counts = []
    for _ in range(7):
        await asyncio.sleep(0)
        counts.append(len(began))
    assert counts == [1, 3, 7, 15, 31, 63, 100]
    await bench.end()
    bench = Bench(attempt)
    bench.add(*range(100, 200))
    await asyncio.sleep(0)
    assert len(began) == 200
    await bench.end()


async def test_one_that_cancels_its_task_and_ends_harms_no_other() -> None:
    """The cancellation of a task whose attempt has ended reaches no later attempt."""
    ended = list[int]()

    async def attempt(number: int) -> None:
        if number == 0:
            task_now().cancel()
        else:
            await asyncio.sleep(0)
        ended.append(number)

    bench = Bench(attempt)
    bench.add(0, 1)
    await bench.end()
    assert ended == [0, 1]


async def test_a_waiting_attempt_is_cancelled_alone(eventually: Eventually) -> None:
    """The task of an attempt is known as soon as it waits, and cancelling it raises in that attempt."""
    ended = dict[int, str]()

    async def attempt(number: int) -> None:
        try:
            await (asyncio.get_running_loop().create_future() if number == 1 else asyncio.sleep(0))
            ended[number] = "returned"
        except asyncio.CancelledError:
            ended[number] = "cancelled"
            raise

    bench = Bench(attempt)
    held = bench.add(0, 1, 2)
    await eventually(lambda: held[1] in bench.starter.waiting)
    assert held[1].task is not None
    held[1].task.cancel()
    await bench.end()
    assert ended == {0: "returned", 1: "cancelled", 2: "returned"}


async def test_an_error_has_no_frame_of_the_starter() -> None:
    """What an awaited thing raises looks as it does in a plain task: the handler's own lines, and what it called."""
    found = list[str]()
    contexts = list[BaseException | None]()

    async def attempt(_: int) -> None:
        failing = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(failing.set_exception, KeyError("away"))
        try:
            await failing
        except KeyError as error:
            found.extend(frame.name for frame in traceback.extract_tb(error.__traceback__))
            contexts.append(error.__context__)

    bench = Bench(attempt)
    bench.add(1)
    await bench.end()
    assert (found, contexts) == (["attempt"], [None])


async def test_without_a_lease_nothing_starts() -> None:
    """A lease that is over when the task gets its turn starts nothing, and what is ready stays ready."""
    ended = list[int]()

    async def attempt(number: int) -> None:
        ended.append(number)

    bench = Bench(attempt)
    bench.add(1)
    bench.wiring.leased_until = 0.0
    for _ in range(3):
        await asyncio.sleep(0)
        bench.starter.dispatch(bench.lane)
    assert (ended, len(bench.lane.ready), bench.lane.free) == ([], 1, bench.lane.concurrency)
    bench.wiring.leased_until = float("inf")
    bench.starter.dispatch(bench.lane)
    await bench.end()
    assert ended == [1]


async def test_a_broken_attempt_does_not_keep_the_others_from_starting() -> None:
    """An error that an attempt should have handled ends its task alone, and the loop says so."""
    ended, told = list[int](), list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(repr(context["exception"])))

    async def attempt(number: int) -> None:
        if number == 0:
            raise KeyError(number)
        ended.append(number)

    bench = Bench(attempt)
    bench.add(0, 1, 2)
    await bench.end()
    gc.collect()  # the loop says so when nobody has the task any more
    assert (ended, told) == ([1, 2], ["KeyError(0)"])


def test_a_loop_that_ends_closes_those_that_wait() -> None:
    """They hear of it as any coroutine does, in their own contexts."""
    seen = list[tuple[str, int]]()

    async def attempt(number: int) -> None:
        NOTE.set(number)
        try:
            await asyncio.get_running_loop().create_future()
        except BaseException as error:
            seen.append((type(error).__name__, NOTE.get()))
            raise

    async def main() -> None:
        bench = Bench(attempt)
        held = bench.add(7)
        await wait_until(lambda: held[0] in bench.starter.waiting)

    asyncio.run(main())
    assert seen == [("CancelledError", 7)]


async def test_all_jobs_begin_where_the_lease_comes_back_at_a_dispatch() -> None:
    """All lanes are told to go on then, in the midst of the dispatch; later jobs begin as ever."""
    began = list[int]()

    async def attempt(number: int) -> None:
        began.append(number)
        await asyncio.sleep(0)

    def come_back() -> float:
        bench.wiring.leased_until = math.inf
        bench.starter.dispatch(bench.lane)
        return math.inf

    bench = Bench(attempt)
    bench.wiring.renew_lease = come_back
    for turn in range(3):
        bench.wiring.leased_until = 0.0
        bench.add(*range(10 * turn, 10 * turn + 10))
        await wait_until(lambda: not bench._left, timeout=5)
    assert began == [*range(30)]
    await bench.end()


async def test_jobs_begin_although_the_tasks_that_were_to_start_them_are_cancelled() -> None:
    """A handler may cancel all tasks there are, some of which have not had their first turn."""
    began = list[int]()

    async def attempt(number: int) -> None:
        began.append(number)
        await asyncio.sleep(0)

    bench = Bench(attempt)
    bench.add(*range(20))
    await asyncio.sleep(0)  # the first has begun, and its round has made the tasks of the next
    for task in asyncio.all_tasks() - {task_now()}:
        task.cancel()
    await bench.end()
    assert sorted(began) == [*range(20)]
