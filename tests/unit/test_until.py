"""Work that ends at an event, and tasks that are ended: also where a cancellation gets lost on its way."""

from __future__ import annotations

import asyncio

import pytest

from backfill.storage import until as module
from backfill.storage.until import end_all, until


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


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks are cancelled again after a moment."""
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.05)


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
