"""Node's scheduler and ours with the same fifty items on one database: each run is there once, whoever adds it.

Both live in a time that goes faster than the real one, so that an hour of minutes takes some seconds. Node's process
gets a clock and timers of its own; ours gets its time from the one statement that reads it.
"""

from __future__ import annotations

import asyncio
import json
import random
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import LiteralString

import pytest

from backfill import JobKeyMode, TaskRegistry, WorkerConfig, WorkerRunner
from backfill.client.schedule_table import ScheduleTable
from backfill.cron import Schedule, parse_crontab
from backfill.storage.schedules import Look
from backfill.worker.scheduling.scheduler import Scheduler
from fleet.clocks import Clock
from fleet.node_items import node_items
from fleet.ticks import Tick, Ticks, expected, missing, more_than

from plugins.node import Node
from plugins.periods import let_pass
from plugins.waiting import wait_until
from reading import value

SHOWN = datetime(2026, 2, 28, 23, 40, 20, tzinfo=UTC)
"""What the clocks show at the beginning: a month ends within the test, and so do a day and an hour."""
KNOWN: LiteralString = "select max(known_since) from graphile_worker._private_known_crontabs"
STARTED: LiteralString = "select extract(epoch from max(started_at))::float8 from graphile_worker.backfill_workers"
REACHED: LiteralString = """
select coalesce(min(last_execution), 'epoch') from graphile_worker._private_known_crontabs where identifier = any(%s)
"""
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Form:
    """How much of the test is done.

    Attributes:
        speed: how fast the time goes.
        minutes: how many minutes each part of the test has.
        apart: how many seconds Node's clock is first ahead of ours, and then behind it.
    """

    speed: float
    minutes: int
    apart: float


SHORT = Form(240, 8, 15.0)
FULL = Form(240, 120, 15.0)
REAL = Form(1, 2, 0.0)
FORMS = [
    pytest.param(SHORT, id="short"),
    pytest.param(FULL, marks=pytest.mark.long, id="full"),
    pytest.param(REAL, marks=pytest.mark.long, id="real time"),
]


class Sides:
    """The two schedulers of one database.

    Args:
        node: Node's.
        package: which version of it.
        crontab: the items of both.
        clock: what the database's clock is taken to show.
    """

    def __init__(self, node: Node, package: str, crontab: str, clock: Clock) -> None:
        self._node = node
        self._package = package
        self._crontab = crontab
        self.clock = clock

    @asynccontextmanager
    async def theirs(self, ahead: float = 0.0) -> AsyncIterator[None]:
        """Node's scheduler, whose clock is so many seconds ahead; it may log no error."""
        process = await self._node.start(
            "schedule.js",
            self._package,
            self._crontab,
            before="fast.js",
            CLOCK=self.clock.ahead(ahead).for_node(),
            PGAPPNAME="node",
        )
        try:
            assert process.stdout is not None
            assert json.loads(await asyncio.wait_for(process.stdout.readline(), 60)) == "ready"
            yield
        finally:
            told, complaints = await _end(process)
        assert told == "", "it logged an error"
        assert process.returncode == 0, complaints

    @asynccontextmanager
    async def ours(self) -> AsyncIterator[None]:
        """Our scheduler, in a worker that runs none of the jobs."""
        tasks: TaskRegistry[None] = TaskRegistry(crontab=self._crontab)
        tasks.task("nothing")(_nothing)
        async with WorkerRunner(WorkerConfig(self._node.dsn, concurrency=1), tasks):
            yield

    async def pass_minutes(self, count: int) -> datetime:
        """Let so many minutes of the clock pass; what it shows then."""
        await let_pass(self.clock.real_seconds_until(self.clock.now() + count * MINUTE))
        return self.clock.now()

    async def schedule_minutes(self, count: int) -> datetime:
        """Let so many minutes pass, until their runs are there; the time up to which they are."""
        until = await self.pass_minutes(count) - MINUTE
        every = [item.identifier for item in parse_crontab(self._crontab) if item.when == "* * * * *"]
        await wait_until(lambda: value(self._node.dsn, REACHED, every), lambda reached: reached >= until, moving=True)
        return until


async def _nothing() -> None:
    """A task of which there are no jobs."""


async def _end(process: Process) -> tuple[str, str]:
    """Close a script's input and wait until it has ended; what it told and complained of."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        told, complaints = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
    return told.decode(), complaints.decode()


@pytest.fixture
def clock(form: Form, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the test, which our scheduler reads instead of the database's."""
    if form.speed == 1:
        return Clock.starting(datetime.now(UTC), 1)
    clock = Clock.starting(SHOWN, form.speed)
    read, look = ScheduleTable.read_schedules, Scheduler.look

    async def read_shown(self: ScheduleTable) -> Look:
        found = await read(self)
        workers = tuple(replace(worker, started_at=clock.at(worker.started_at.timestamp())) for worker in found.workers)
        return replace(found, clock=clock.at(found.clock.timestamp()), workers=workers)

    async def look_sooner(self: Scheduler) -> float:
        return await look(self) / clock.speed

    monkeypatch.setattr(ScheduleTable, "read_schedules", read_shown)
    monkeypatch.setattr(Scheduler, "look", look_sooner)
    return clock


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("package", ["graphile-worker", "graphile-worker-0.18"])
@pytest.mark.parametrize("form", FORMS)
async def test_each_run_once(node_modules: Path, dsn: str, package: str, form: Form, clock: Clock) -> None:
    """Both at once with clocks that differ, each one alone for a while, and none for a while, which is filled."""
    seed = random.randrange(2**32)
    print(f"the items' seed is {seed}")
    ticks, crontab = Ticks(dsn), node_items(seed, fill="fill=4h")
    await ticks.open()
    sides = Sides(Node(node_modules, dsn), package, crontab, clock)
    async with sides.ours():
        async with sides.theirs(ahead=form.apart):
            await sides.schedule_minutes(form.minutes)
            start = await value(dsn, KNOWN)
        await sides.schedule_minutes(form.minutes)
        async with sides.theirs(ahead=-form.apart):
            left = await sides.schedule_minutes(form.minutes)
    await sides.pass_minutes(form.minutes // 2 or 1)
    async with sides.theirs(), sides.ours():
        back = max(clock.now(), clock.at(await value(dsn, STARTED)))
        end = await sides.schedule_minutes(form.minutes)
    found = [tick for tick in await ticks.all() if start <= tick.run < end]
    _check(found, parse_crontab(crontab), (start, left, back, end))


def _check(
    found: list[Tick], schedules: Iterable[Schedule], times: tuple[datetime, datetime, datetime, datetime]
) -> None:
    """Each run is there once; only those of items without `fill` may be missing, from the second time to the third."""
    start, left, back, end = times
    filled = [schedule for schedule in schedules if schedule.fill]
    others = [schedule for schedule in schedules if not schedule.fill]
    wanted = expected(filled, start, end) + expected(others, start, left) + expected(others, back, end)
    assert missing(found, wanted) == []
    assert more_than(found, wanted + expected(others, left, back)) == []
    kept = {item.task for item in schedules if item.job_key_mode is JobKeyMode.PRESERVE_RUN_AT}
    assert [tick for tick in found if not tick.at_its_run and tick.task not in kept] == []
    kinds = {(tick.task, tick.job) for tick in found}
    assert len(kinds) == len({task for task, _ in kinds}), "an item's jobs are alike, whoever adds them"
    assert {tick.mark for tick in found} == {f"{tick.run:%Y-%m-%dT%H:%M}:00.000Z" for tick in found}
    assert any(tick.backfilled for tick in found)
    by = Counter(tick.added_by for tick in found)
    assert by.pop("node") > 0
    assert sum(by.values()) > 0
