"""How observers are called: in order, some at once, with a bounded backlog, and never in anybody's task."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from backfill.hooks import HookRegistry, JobFetch, JobStart, WorkerStart
from backfill.hooks.failures import HookTally
from backfill.records import Job
from backfill.worker.execution import observers as module
from backfill.worker.execution.endings import Ending
from backfill.worker.execution.job_events import _MAKERS
from backfill.worker.execution.observers import Observers

from plugins.waiting import Eventually


def _observers(*callbacks: tuple[Any, Any]) -> tuple[Observers, HookTally]:
    hooks, tally = HookRegistry(), HookTally()
    for event, callback in callbacks:
        hooks.on(event, callback)
    return Observers(hooks, tally, lambda _: None), tally


def _fetch(number: int, size: int = 2) -> JobFetch:
    return JobFetch(Job(id=number, task_identifier="t", payload_bytes=b"1" * size), "w")


async def test_events_come_in_their_order_and_outside_of_tasks() -> None:
    """Also those of different kinds; a callback sees no task that it could cancel, and no job's log fields."""
    heard, tasks = list[str](), set[Any]()

    def note(event: Any) -> None:
        heard.append(f"{type(event).__name__} {event.job.id}")
        tasks.add(asyncio.current_task())

    observers, _ = _observers((JobFetch, note), (JobStart, note))
    for number in range(3):
        observers.tell(_fetch(number))
        observers.tell(JobStart(_fetch(number).job, "w"))
        observers.tell(WorkerStart("w"))  # nobody observes it
    assert heard == []
    await observers.close(1, asyncio.Event())
    assert heard == [f"{name} {number}" for number in range(3) for name in ("JobFetch", "JobStart")]
    assert tasks == {None}


async def test_a_slow_observer_has_a_bounded_backlog(eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many calls run, so many events wait, and the others are dropped and counted; a quick one hears of all."""
    monkeypatch.setattr(module, "MOST_WAITING", 50)
    quick, begun, release = list[int](), list[int](), asyncio.Event()

    async def slow(event: JobFetch) -> None:
        begun.append(event.job.id)
        await release.wait()

    observers, tally = _observers((JobFetch, slow), (JobFetch, lambda event: quick.append(event.job.id)))
    for number in range(400):
        observers.tell(_fetch(number))
        if number % 40 == 39:
            await eventually(lambda number=number: len(quick) == number + 1)
    assert begun == list(range(100))
    assert tally.so_far.dropped == 250
    release.set()
    await observers.close(5, asyncio.Event())
    assert begun == list(range(150))
    assert (quick, observers.busy, observers.held) == (list(range(400)), 0, 0)


async def test_waiting_events_hold_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large payloads fill the backlog before many events do."""
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    heard = list[int]()
    observers, tally = _observers((JobFetch, lambda event: heard.append(event.job.id)))
    for number in range(5):
        observers.tell(_fetch(number, 4_000))
    await observers.close(1, asyncio.Event())
    assert (heard, tally.so_far.dropped, observers.held) == ([0, 1], 3, 0)


async def test_a_slow_observer_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it is its own affair, and an event of the worker itself is never dropped."""
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    monkeypatch.setattr(module, "MOST_AT_ONCE", 1)
    quick, slow, release = list[int](), list[Any](), asyncio.Event()

    async def wait(event: Any) -> None:
        slow.append(event)
        await release.wait()

    observers, tally = _observers(
        (JobFetch, wait), (WorkerStart, wait), (JobFetch, lambda event: quick.append(event.job.id))
    )
    for number in range(20):
        observers.tell(_fetch(number, 4_000))
        observers.tell(WorkerStart("w"))
        await asyncio.sleep(0)
    release.set()
    await observers.close(5, asyncio.Event())
    assert quick == list(range(20))
    assert [event.job.id for event in slow if isinstance(event, JobFetch)] == [0, 1, 2]
    assert len(slow) == 3 + 20
    assert tally.so_far.dropped == 17


async def test_a_sync_observer_leaves_the_loop_to_others() -> None:
    """After some milliseconds of calls, whatever else is ready has its turn."""
    turns, heard = list[int](), 0

    def note(_event: JobFetch) -> None:
        nonlocal heard
        heard += 1
        until = time.monotonic() + 0.001
        while time.monotonic() < until:
            pass

    observers, _ = _observers((JobFetch, note))
    for number in range(100):
        observers.tell(_fetch(number))
    while heard < 100:
        await asyncio.sleep(0)
        turns.append(heard)
    assert len(set(turns)) > 3
    await observers.close(1, asyncio.Event())


@pytest.mark.parametrize("hurry", [False, True])
async def test_the_end_cuts_off_what_hangs(
    hurry: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After the grace, or at once in a hurry; what clings to its cancellation is left after a second."""
    monkeypatch.setattr(module, "GRACE", 60.0 if hurry else 0.2)
    monkeypatch.setattr(module, "LEAST_GRACE", 0.1)
    release = asyncio.Event()

    async def hang(event: JobFetch) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                if event.job.id:
                    raise

    observers, tally = _observers((JobFetch, hang))
    for number in range(101):
        observers.tell(_fetch(number))
    event = asyncio.Event()
    if hurry:
        asyncio.get_running_loop().call_later(0.05, event.set)
    began = time.monotonic()
    await observers.close(60, event)
    assert time.monotonic() - began < 20
    assert tally.so_far.dropped == 100
    assert caplog.text.count("does not end when it is cancelled") == 1
    observers.tell(_fetch(7))  # nobody hears of it any more
    assert tally.so_far.dropped == 101
    release.set()
    [clinging] = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    await clinging


async def test_a_log_handler_that_fails_stops_no_observer(eventually: Eventually) -> None:
    """A filter that raises is in the way of the line about a failed call, and of nothing else."""

    def refuse(_record: logging.LogRecord) -> bool:
        raise RuntimeError

    def fail(event: JobFetch) -> None:
        heard.append(event.job.id)
        raise ValueError

    heard = list[int]()
    observers, tally = _observers((JobFetch, fail))
    logger = logging.getLogger("backfill.hooks")
    logger.addFilter(refuse)
    try:
        for number in range(3):
            observers.tell(_fetch(number))
        await observers.close(1, asyncio.Event())
    finally:
        logger.removeFilter(refuse)
    assert (heard, tally.so_far.failed) == ([0, 1, 2], 3)


def test_every_way_to_end_has_its_event() -> None:
    """A new ending is given one on purpose."""
    # By name: a dataclass with slots is made anew, and the class that it was made from is still there.
    assert {kind.__name__ for kind in Ending.__subclasses__()} == {kind.__name__ for kind in _MAKERS}
