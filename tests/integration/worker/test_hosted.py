"""A worker beside a program's other work: how it begins and ends, also where the program is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backfill import BackfillClient, DatabaseConnectionError, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.worker.hosted import HostedWorker

from reading import value


class Scene:
    """A registry whose lifespan and whose task can be made to wait."""

    def __init__(self) -> None:
        self.entering, self.enter = asyncio.Event(), asyncio.Event()
        self.begun, self.release = asyncio.Event(), asyncio.Event()
        self.left = 0
        self.tasks: TaskRegistry[None] = TaskRegistry(lifespan=self._lifespan)
        self.tasks.task("hold")(self._hold)

    @asynccontextmanager
    async def _lifespan(self, client: BackfillClient) -> AsyncIterator[None]:
        self.entering.set()
        try:
            await self.enter.wait()
            yield
        finally:
            self.left += 1

    async def _hold(self, payload: Any) -> None:
        self.begun.set()
        await self.release.wait()

    def worker(self, dsn: str) -> HostedWorker:
        """A worker of the registry."""
        return HostedWorker(WorkerRunner(WorkerConfig(dsn), self.tasks))


async def test_it_works_once_it_has_begun(dsn: str) -> None:
    """`begin` returns after the whole start, and `end` after the whole stop; ending it again does no harm."""
    scene = Scene()
    worker = scene.worker(dsn)
    beginning = asyncio.ensure_future(worker.begin())
    await scene.entering.wait()
    assert worker.health().ready is False
    assert not beginning.done()
    scene.enter.set()
    await beginning
    assert worker.health().worker_id is not None
    await worker.end()
    await worker.end()
    assert worker.health().worker_id is None
    assert scene.left == 1


async def test_a_start_that_is_cancelled_leaves_nothing(dsn: str) -> None:
    """The lifespan is left again, and no task or connection stays."""
    scene = Scene()
    worker = scene.worker(dsn)
    beginning = asyncio.ensure_future(worker.begin())
    await scene.entering.wait()
    beginning.cancel()
    await asyncio.wait([beginning])
    assert beginning.cancelled()
    assert worker.task is not None
    assert worker.task.done()
    assert scene.left == 1


async def test_a_start_that_fails_tells_its_host_and_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    """The host gets the error; that the worker has ended is no news then."""
    with pytest.raises(DatabaseConnectionError):
        await Scene().worker("host=127.0.0.1 port=1 user=nobody dbname=none").begin()
    assert [record for record in caplog.records if record.name == "backfill.worker.hosted"] == []


@pytest.mark.parametrize("everything", [False, True])
async def test_a_stop_that_is_cancelled_goes_on(dsn: str, everything: bool) -> None:
    """The running job is completed before the cancellation is raised, also where the worker's task is cancelled too."""
    scene = Scene()
    scene.enter.set()
    worker = scene.worker(dsn)
    await worker.begin()
    async with BackfillClient(dsn) as client:
        await client.enqueue("hold")
    await scene.begun.wait()
    ending = asyncio.ensure_future(worker.end())
    await asyncio.sleep(0)
    for task in (ending, worker.task) if everything else (ending,):
        assert task is not None
        task.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not ending.done()
    scene.release.set()
    await asyncio.wait([ending])
    assert ending.cancelled()
    assert await value(dsn, "select count(*) from graphile_worker.jobs") == 0
    assert scene.left == 1


async def test_a_worker_that_somebody_cancels_is_told(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """It has drained, the log and the health say that it has ended, and ending it raises nothing."""
    scene = Scene()
    scene.enter.set()
    worker = scene.worker(dsn)
    await worker.begin()
    assert worker.task is not None
    worker.task.cancel()
    await asyncio.wait([worker.task])
    await asyncio.sleep(0)
    health = worker.health()
    assert (health.live, health.ready) == (False, False)
    assert health.reasons == ("it has ended: somebody cancelled its task",)
    await worker.end()
    told = [record.levelno for record in caplog.records if record.name == "backfill.worker.hosted"]
    assert told == [logging.CRITICAL]
