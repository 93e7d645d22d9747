"""Every service of a worker, started, stopped, cancelled and failed in any order: it ends, and leaves nothing behind.

The tests take the services from the lists by which workers make them. So a new service is covered once it is
registered.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from backfill import TaskRegistry, WorkerConfig, WorkerRunner
from backfill.storage import until as until_module
from backfill.storage.until import end_all
from backfill.worker import process as process_module
from backfill.worker.process import WorkerProcess
from backfill.worker.service import Service
from backfill.worker.service_lists import ATTENDANTS, PROBES, PUMPS, UPKEEP
from backfill.worker.services import ServiceFactory, ServiceGroup
from backfill.worker.upkeep.periodic import Periodic

from plugins.waiting import Eventually

OF_A_PROCESS: list[ServiceFactory[Any]] = [*PROBES, *UPKEEP]
OF_A_SESSION: list[ServiceFactory[Any]] = [*ATTENDANTS, *PUMPS]
LISTS: list[Sequence[ServiceFactory[Any]]] = [PROBES, ATTENDANTS, PUMPS, UPKEEP]
STEPS = ("start", "stop", "stop at once", "cancel", "cancel a stop", "fail", "resume", "turn", "work", "cut")
PATIENCE = 30.0
# A failure is not made small: an example takes long where something is left behind.
QUICKLY = settings(
    max_examples=max(settings.default.max_examples // 10, 10), phases=[Phase.explicit, Phase.reuse, Phase.generate]
)

tasks: TaskRegistry[None] = TaskRegistry()


@tasks.task("t", keep=timedelta(hours=1))
async def handler(payload: dict[str, Any]) -> None:
    """Do nothing."""


@tasks.task("express", express=True)
async def short(payload: dict[str, Any]) -> None:
    """Do nothing, in a window."""


class BrokenError(Exception):
    """What a service fails with here."""


class Broken(Service):
    """A service that cannot be started."""

    def __init__(self) -> None:
        super().__init__("broken")

    def _open(self) -> None:
        raise BrokenError


def _config(dsn: str, folder: Path) -> WorkerConfig:
    """A configuration to which every factory applies."""
    return WorkerConfig(
        dsn, health_address="127.0.0.1:0", health_file=str(folder / "health"), blocked_after=timedelta(seconds=5)
    )


@asynccontextmanager
async def _process(dsn: str, folder: Path) -> AsyncIterator[WorkerProcess]:
    """The parts of a worker, of which no service runs yet; at the end nothing is left of it, whatever a service did."""
    before = _here()
    process = WorkerProcess(_config(dsn, folder), tasks, attended=False)
    await process.open(background=False)
    try:
        yield process
    finally:
        with suppress(BrokenError):
            await process.close()
    async with asyncio.timeout(PATIENCE):
        while _here() - before:
            gc.collect()  # the traceback of a service that failed holds its frames, with all that they had open
            await asyncio.to_thread(_look, dsn)
    assert os.listdir(folder) == []


def _here() -> set[Any]:
    """The tasks, threads of ours and open files of this process."""
    threads = {thread for thread in threading.enumerate() if thread.name.startswith("backfill")}
    files = {name for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")}
    return {task for task in asyncio.all_tasks() if not task.done()} | threads | files


def _look(dsn: str) -> None:
    """Ask the database for something: it takes a moment, in which others can end."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select 1")


def _cut(dsn: str) -> None:
    """End every connection to the database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )


class Trial:
    """One service to which all of it happens."""

    def __init__(self, service: Service, process: WorkerProcess, dsn: str, *, fails: bool) -> None:
        self.service = service
        self._process = process
        self._dsn = dsn
        self._broken = asyncio.Event()
        if fails:
            self._run = service._run
            service._run = self._run_until_broken  # type: ignore[method-assign]

    async def _run_until_broken(self) -> None:
        work, broken = asyncio.ensure_future(self._run()), asyncio.ensure_future(self._broken.wait())
        try:
            await asyncio.wait([work, broken], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_all(work, broken)
            del work, broken  # the error below holds this frame, which would hold what the service had open
        if self._broken.is_set():
            raise BrokenError

    async def stop(self, timeout: float | None = None) -> None:
        """Stop it; what it was made to fail with is no surprise."""
        with suppress(BrokenError):
            await self.service.stop(timeout)

    async def take(self, step: str) -> None:
        """Let one thing happen."""
        match step:
            case "start":
                self.service.start()
            case "stop":
                await self.stop(PATIENCE)
            case "stop at once":
                await self.stop(0.0)
            case "cancel":
                if self.service.task is not None:
                    self.service.task.cancel()
            case "cancel a stop":
                stop = asyncio.ensure_future(self.stop(PATIENCE))
                await asyncio.sleep(0)
                stop.cancel()
                await asyncio.wait([stop])
            case "fail":
                self._broken.set()
            case "resume":
                await self.service.resume()
            case "turn":
                await asyncio.sleep(0)
            case "work":
                await asyncio.to_thread(_look, self._dsn)
            case _:
                await asyncio.to_thread(_cut, self._dsn)


@pytest.mark.parametrize("factory", [*OF_A_PROCESS, *OF_A_SESSION], ids=lambda factory: factory.name)
def test_any_service_ends_whatever_happens_to_it(dsn: str, tmp_path: Path, factory: ServiceFactory[Any]) -> None:
    """No task, thread, file, socket or connection is left, whatever the order of start, stop, cancel and failure."""

    @QUICKLY
    @given(steps=st.lists(st.sampled_from(STEPS), max_size=8))
    def check(steps: list[str]) -> None:
        asyncio.run(example(steps))

    async def example(steps: list[str]) -> None:
        async with _process(dsn, tmp_path) as process:
            service = factory.make(process if factory in OF_A_PROCESS else process.one)
            trial = Trial(service, process, dsn, fails="fail" in steps)
            assert service.name == factory.name
            for step in steps:
                await trial.take(step)
            async with asyncio.timeout(PATIENCE):
                await trial.stop(PATIENCE)
            assert service.task is None or service.task.done()

    check()


@pytest.mark.parametrize("factories", LISTS, ids=["probes", "attendants", "pumps", "upkeep"])
def test_a_group_ends_whole(dsn: str, tmp_path: Path, factories: Sequence[ServiceFactory[Any]]) -> None:
    """A service that cannot be made or started stops those before it; a cancelled stop stops all of them first."""
    places = st.integers(0, len(factories))

    @QUICKLY
    @given(place=places | st.none(), makes=st.booleans(), turns=st.integers(1, 20), cancels=st.booleans())
    def check(place: int | None, makes: bool, turns: int, cancels: bool) -> None:
        asyncio.run(example(place, makes, turns, cancels))

    async def example(place: int | None, makes: bool, turns: int, cancels: bool) -> None:
        made: list[Service] = []

        def noting(factory: ServiceFactory[Any]) -> ServiceFactory[Any]:
            def make(owner: Any) -> Service:
                made.append(factory.make(owner))
                return made[-1]

            return ServiceFactory(factory.name, make)

        def broken(_: Any) -> Service:
            if makes:
                return Broken()
            raise BrokenError

        listed = [noting(factory) for factory in factories]
        if place is not None:
            listed.insert(place, ServiceFactory("broken", broken))
        async with _process(dsn, tmp_path) as process:
            group: ServiceGroup[Any] = ServiceGroup(listed)
            owner = process if factories[0] in OF_A_PROCESS else process.one
            if place is None:
                await group.start(owner, process.config)
            else:
                with pytest.raises(BrokenError):
                    await group.start(owner, process.config)
                assert [one.name for one in made] == [factory.name for factory in factories[:place]]
            stop = asyncio.ensure_future(group.stop(PATIENCE))
            for _ in range(turns):
                await asyncio.sleep(0)
            was_done = stop.done()
            if cancels:
                stop.cancel()
            await asyncio.wait([stop])
            assert stop.cancelled() is (cancels and not was_done)
            assert all(one.task is not None and one.task.done() for one in made)

    check()


async def test_services_stop_in_reverse(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked to end after those that were started behind it."""
    asked, old = list[str](), Service.stop

    async def stop(self: Service, timeout: float | None = None) -> None:
        asked.append(self.name)
        await old(self, timeout)

    async with WorkerRunner(_config(dsn, tmp_path), tasks):
        monkeypatch.setattr(Service, "stop", stop)
    names = [[factory.name for factory in reversed(factories)] for factories in (PUMPS, ATTENDANTS, UPKEEP, PROBES)]
    assert asked == [name for group in names for name in group]


async def test_a_worker_that_cannot_start_a_service_leaves_nothing(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """What was started is stopped, its row is deleted, and the runner can be started again."""
    before = _here()
    runner = WorkerRunner(_config(dsn, tmp_path), tasks)
    with monkeypatch.context() as patch:
        patch.setattr(process_module, "UPKEEP", (*UPKEEP, ServiceFactory("broken", lambda _: Broken())))
        with pytest.raises(BrokenError):
            await runner.__aenter__()
    assert runner.worker_id is None
    await eventually(lambda: _here() - before, lambda left: not left)
    async with runner:
        assert runner.worker_id is not None
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select count(*) from graphile_worker.backfill_workers").fetchone() == (0,)


async def test_a_service_ends_although_its_cancellation_gets_lost(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait for a connection may drop it; the service sees then that it should end, and does not begin anew."""
    looking = asyncio.Event()

    async def recover_abandoned(*_: Any, **__: Any) -> list[Any]:
        looking.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return []

    monkeypatch.setattr(until_module, "AGAIN_SECONDS", 3600.0)
    async with _process(dsn, tmp_path) as process:
        recoverer = process.one.recoverer
        monkeypatch.setattr(recoverer, "_dead_after", 0.0)
        monkeypatch.setattr(process.own, "recover_abandoned", recover_abandoned)
        recoverer.start()
        await looking.wait()
        async with asyncio.timeout(PATIENCE):
            await recoverer.stop(PATIENCE)


async def test_every_service_is_registered(dsn: str, tmp_path: Path) -> None:
    """No class of the package is a service without standing in one of the lists."""
    async with _process(dsn, tmp_path) as process:
        made = {type(factory.make(process)) for factory in OF_A_PROCESS}
        made |= {type(factory.make(process.one)) for factory in OF_A_SESSION}
    ours = {kind for kind in _kinds(Service) if kind.__module__.startswith("backfill.")}
    assert ours - {Periodic} == made


def _kinds(kind: type[Service]) -> set[type[Service]]:
    """All classes that inherit from one."""
    return {found for one in kind.__subclasses__() for found in {one, *_kinds(one)}}
