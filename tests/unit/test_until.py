"""Work that ends at an event, and tasks that are ended: also where a cancellation gets lost, never without a limit."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading

import pytest

from backfill.storage import until as module
from backfill.storage.until import MOST_CANCELS, end_all, in_own_thread, until, within
from backfill.worker.service import Service


class Clinging:
    """Work that catches its first cancellations.

    Attributes:
        cancels: how many have come.
    """

    def __init__(self, swallows: int) -> None:
        self._swallows = swallows
        self._free = asyncio.Event()
        self.cancels = 0

    async def work(self) -> None:
        """Wait until it is let go of, or cancelled once more than it swallows."""
        while not self._free.is_set():
            try:
                await self._free.wait()
            except asyncio.CancelledError:
                self.cancels += 1
                if self.cancels > self._swallows:
                    raise

    def let_go(self) -> None:
        """Let the work end."""
        self._free.set()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(module, "FURTHER_SECONDS", 0.05)


async def test_a_lost_cancellation_is_repeated() -> None:
    """As after a `wait_for` that has lost one."""
    clinging = Clinging(swallows=1)
    task = asyncio.ensure_future(clinging.work())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_all(task)
    assert task.cancelled()
    assert clinging.cancels == 2


async def test_what_never_ends_is_named_and_left(caplog: pytest.LogCaptureFixture) -> None:
    """The caller goes on."""
    clinging = Clinging(swallows=1_000)
    task = asyncio.create_task(clinging.work(), name="the clinging one")
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        with caplog.at_level(logging.ERROR):
            await end_all(task)
    assert not task.done()
    assert clinging.cancels == MOST_CANCELS
    assert "the clinging one" in caplog.text
    clinging.let_go()
    await task


async def test_a_caller_that_is_cancelled_still_ends_them() -> None:
    """And is told only then."""
    clinging = Clinging(swallows=1)
    task = asyncio.ensure_future(clinging.work())
    ending = asyncio.ensure_future(end_all(task))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait([ending], timeout=30)
    assert ending.cancelled()
    assert task.cancelled()


async def test_work_that_clings_is_an_error() -> None:
    """Until never returns a task that is not over."""
    event, clinging = asyncio.Event(), Clinging(swallows=1_000)
    event.set()
    with pytest.raises(TimeoutError, match="does not end, although it was cancelled"):
        await until(event, clinging.work())
    clinging.let_go()
    await asyncio.sleep(0)


class _Swallowing(Service):
    def __init__(self, clinging: Clinging) -> None:
        super().__init__("swallowing")
        self._clinging = clinging

    async def _run(self) -> None:
        await self._until_stopped(self._clinging.work())


@pytest.mark.parametrize("swallows", [0, 1, MOST_CANCELS])
async def test_a_service_stops_whatever_its_work_swallows(swallows: int) -> None:
    """One that swallows all cancellations fails, so that a shutdown goes on."""
    clinging = Clinging(swallows)
    service = _Swallowing(clinging)
    service.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        if swallows < MOST_CANCELS:
            await service.stop(10)
        else:
            with pytest.raises(TimeoutError):
                await service.stop(10)
    clinging.let_go()
    await asyncio.sleep(0)


async def test_a_thread_of_its_own_needs_no_pool() -> None:
    """The pool of `asyncio.to_thread` is full of calls that hang; what a shutdown calls is called all the same."""
    hanging, called = threading.Event(), []
    pool = concurrent.futures.ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    try:
        waiting = asyncio.ensure_future(asyncio.to_thread(hanging.wait))
        assert await in_own_thread(lambda: called.append(1), timeout=30)
        assert called == [1]
        assert not await in_own_thread(hanging.wait, timeout=0.05)
    finally:
        hanging.set()
    await waiting
    pool.shutdown()


class Deaf:
    """Work that does not hear its first cancellations, as a wait for a pool's connection may before Python 3.12."""

    def __init__(self, misses: int) -> None:
        self._misses = misses
        self.heard = False
        self.begun = asyncio.Event()

    async def work(self) -> None:
        """Wait for ever, again after each cancellation that was missed."""
        self.begun.set()
        for _ in range(self._misses):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue
        try:
            await asyncio.Event().wait()
        finally:
            self.heard = True


@pytest.mark.parametrize("misses", [0, 1, 3])
async def test_a_task_that_misses_cancellations_ends(misses: int) -> None:
    """It is cancelled again until it has ended."""
    deaf = Deaf(misses)
    task = asyncio.ensure_future(deaf.work())
    await deaf.begun.wait()
    async with asyncio.timeout(10):
        await end_all(task)
    assert task.cancelled()
    assert deaf.heard


async def test_work_that_misses_its_cancellation_ends_at_the_event() -> None:
    """A service that is asked to stop does not wait for ever for its work."""
    deaf, event = Deaf(1), asyncio.Event()
    work = asyncio.ensure_future(until(event, deaf.work()))
    await deaf.begun.wait()
    event.set()
    async with asyncio.timeout(10):
        assert (await work).cancelled()


async def test_a_cancelled_caller_is_cancelled_once_the_tasks_have_ended() -> None:
    """The caller's own cancellation ends none of them sooner and is not lost."""
    deaf = Deaf(2)
    task = asyncio.ensure_future(deaf.work())
    await deaf.begun.wait()
    caller = asyncio.ensure_future(end_all(task))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller], timeout=10)
    assert caller.cancelled()
    assert task.cancelled()


async def test_a_task_is_not_cancelled_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clean-up has its time: the driver's takes seconds, and a second cancellation would break it off."""
    monkeypatch.setattr(module, "AGAIN_SECONDS", 60.0)
    cleaning, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await done.wait()

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    caller = asyncio.ensure_future(end_all(task))
    await cleaning.wait()
    caller.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    done.set()
    await asyncio.wait([caller, task], timeout=10)
    assert task.cancelled()
    assert caller.cancelled()


async def test_work_within_its_time_and_beyond(caplog: pytest.LogCaptureFixture) -> None:
    """What hangs is cancelled and logged, and the caller goes on; what fails in time raises its error."""
    clinging = Clinging(swallows=0)
    await within(0.05, clinging.work)
    assert clinging.cancels == 1
    assert "Clinging.work took longer than 0.05 s" in caplog.text

    async def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await within(30, fail)
