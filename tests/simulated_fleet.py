"""Schedulers on a real database, whose time is simulated: what the one statement that reads time answers is replaced.

True time goes on in steps, from one look of a scheduler to the next. The database's clock follows it, but may jump.
Each scheduler looks when its last look said, as the service does, and schedulers whose looks fall together look at
once.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from backfill import TaskRegistry
from backfill.client.lent import ServicesClient
from backfill.cron import Schedule
from backfill.errors import CommitUnknownError, DatabaseConnectionError
from backfill.hooks import ObservedEvent, composed
from backfill.storage.connection import connect
from backfill.storage.schedules import KnownSchedule, Look, NewRun, RunDone, SaidSchedule, crontab_of
from backfill.storage.workers import WorkerRow, add_worker, remove_worker
from backfill.worker.scheduling.jobs import JobMaker
from backfill.worker.scheduling.scheduler import Scheduler

TOGETHER = 0.06
"""Looks that fall within so many seconds are made at once."""
_SCHEMA = "graphile_worker"


class World:
    """The time of a simulation, and whether the database answers.

    Attributes:
        start: when it begins.
        seconds: how many seconds of true time have passed.
        jumped: by how many seconds the database's clock is ahead of that.
        is_away: whether the database is away.
        latest: the latest time that any scheduler has read.
    """

    def __init__(self, start: datetime) -> None:
        self.start = start
        self.seconds = 0.0
        self.jumped = 0.0
        self.is_away = False
        self.latest = start
        self.started: dict[str, datetime] = {}

    def clock(self, ahead: float) -> datetime:
        """What a scheduler reads whose database is ahead by so many seconds."""
        return self.start + timedelta(seconds=self.seconds + self.jumped + ahead)


class SimulatedClient(ServicesClient):
    """A client of a scheduler in that world.

    Attributes:
        world: the world.
        ahead: by how many seconds the clock that this scheduler reads is ahead of the others'.
        stall: called once, in the middle of a look: the scheduler falls asleep there.
        lose_answer: whether the answer to the next statement that adds runs is lost.
    """

    world: World
    ahead = 0.0
    stall: Callable[[], Awaitable[None]] | None = None
    lose_answer = False

    def _ask(self) -> None:
        if self.world.is_away:
            raise DatabaseConnectionError("the database is away")

    async def read_schedules(self) -> Look:
        """Read what stands, with the world's time in place of the server's."""
        self._ask()
        look = await super().read_schedules()
        clock = self.world.clock(self.ahead)
        self.world.latest = max(self.world.latest, clock)
        workers = [replace(one, started_at=self.world.started[one.id]) for one in look.workers]
        return replace(look, clock=clock, workers=tuple(workers))

    async def find_crontabs(self, digests: Iterable[str]) -> dict[str, dict[str, str]]:
        """Read what code declares."""
        self._ask()
        return await super().find_crontabs(digests)

    async def find_said_schedules(self) -> list[SaidSchedule]:
        """List what operators said."""
        self._ask()
        return await super().find_said_schedules()

    async def find_known_schedules(self, identifiers: Iterable[str]) -> dict[str, KnownSchedule]:
        """Read the rows that all schedulers share; the scheduler may fall asleep before it does anything with them."""
        self._ask()
        known = await super().find_known_schedules(identifiers)
        if self.stall is not None:
            stall, self.stall = self.stall, None
            await stall()
        return known

    async def register_schedules(self, identifiers: Iterable[str], known_since: datetime) -> dict[str, KnownSchedule]:
        """Register items."""
        self._ask()
        return await super().register_schedules(identifiers, known_since)

    async def add_runs(self, runs: Sequence[NewRun]) -> list[RunDone]:
        """Add the jobs of runs; the answer may be lost."""
        self._ask()
        done = await super().add_runs(runs)
        if self.lose_answer:
            self.lose_answer = False
            raise CommitUnknownError("the connection was lost")
        return done


class Member:
    """A worker that schedules.

    Attributes:
        name: its id.
        client: its client.
        scheduler: its scheduler.
        events: what it has told observers.
        asleep_until: the second of true time until which it does not look.
        looking: its last look.
        stalled: set while it sleeps in the middle of a look.
    """

    looking: asyncio.Future[None]

    def __init__(self, name: str, dsn: str, world: World, schedules: Sequence[Schedule]) -> None:
        self.name = name
        self.client = SimulatedClient(dsn, min_size=1, max_size=1)
        self.client.world = world
        self.events = list[ObservedEvent]()
        self.asleep_until = 0.0
        self.stalled = asyncio.Event()
        self.scheduler = Scheduler(
            self.client,
            JobMaker(TaskRegistry(), composed([])),
            worker=lambda: name,
            schedules=schedules,
            tell=self.events.append,
            clock=lambda: world.seconds,
        )
        self._row = WorkerRow(
            name, "here", 1, 3, [], ["x"], "0", timedelta(days=2), crontab=crontab_of(schedules), schedules=True
        )

    async def join(self, dsn: str) -> None:
        """Write the worker's row."""
        async with await connect(dsn, application_name="test") as connection:
            await add_worker(connection, self._row, schema=_SCHEMA)

    async def leave(self, dsn: str) -> None:
        """Delete the row."""
        async with await connect(dsn, application_name="test") as connection:
            await remove_worker(connection, self.name, schema=_SCHEMA)
        await self.client.close()


class Fleet:
    """Schedulers, and what happens to them.

    Args:
        dsn: the database.
        start: when the simulation begins.
        schedules: the items that each of them declares.
        seed: what chance follows from.
    """

    def __init__(self, dsn: str, start: datetime, schedules: Sequence[Schedule], seed: int) -> None:
        self.dsn = dsn
        self.world = World(start)
        self.chance = random.Random(seed)
        self.members = dict[str, Member]()
        self.failed = 0
        self.looks = 0
        self._schedules = schedules
        self._numbers = count()
        self._waiting: list[tuple[float, int, Callable[[], Awaitable[Any]]]] = []

    async def join(self, *, ahead: float = 0.0) -> Member:
        """Start another scheduler."""
        member = Member(f"w{len(self.world.started)}", self.dsn, self.world, self._schedules)
        member.client.ahead = ahead
        self.world.started[member.name] = self.world.clock(ahead)
        await member.join(self.dsn)
        self.members[member.name] = member
        self.at(self.world.seconds + self.chance.random() / 100, lambda: self._look(member))
        return member

    async def leave(self, member: Member) -> None:
        """Stop a scheduler."""
        del self.members[member.name]
        await member.leave(self.dsn)

    def at(self, second: float, do: Callable[[], Awaitable[Any]]) -> None:
        """Do something at a second of true time."""
        heapq.heappush(self._waiting, (second, next(self._numbers), do))

    def set_at(self, second: float, thing: object, **values: Any) -> None:
        """Set attributes of something at a second of true time."""

        async def do() -> None:
            for name, value in values.items():
                setattr(thing, name, value)

        self.at(second, do)

    async def run(self, until: float) -> None:
        """Let time go on up to a second."""
        while self._waiting and self._waiting[0][0] <= until:
            together = []
            first = self._waiting[0][0]
            while self._waiting and self._waiting[0][0] <= min(first + TOGETHER, until):
                self.world.seconds, _, do = heapq.heappop(self._waiting)
                together.append(do)
            await asyncio.gather(*(do() for do in together))
        self.world.seconds = until

    async def look_once_more(self) -> None:
        """Have every scheduler look, as it is."""
        for member in self.members.values():
            await member.scheduler.look()

    async def close(self) -> None:
        """Stop all schedulers."""
        for member in list(self.members.values()):
            await self.leave(member)

    def stall(self, member: Member, seconds: float) -> None:
        """Let a scheduler fall asleep in the middle of a look at which something is due, and then go on with it."""

        async def sleep() -> None:
            woken = asyncio.Event()

            async def wake() -> None:
                woken.set()
                await member.looking

            self.at(self.world.seconds + seconds, wake)
            member.stalled.set()
            await woken.wait()

        member.client.stall = sleep

    async def _look(self, member: Member) -> None:
        """Let a scheduler look, and wait until it has, or falls asleep."""
        if self.members.get(member.name) is not member:
            return
        member.looking = asyncio.ensure_future(self._whole_look(member))
        member.stalled.clear()
        stalled = asyncio.ensure_future(member.stalled.wait())
        await asyncio.wait([member.looking, stalled], return_when=asyncio.FIRST_COMPLETED)
        stalled.cancel()
        await asyncio.wait([stalled])
        if member.looking.done():
            member.looking.result()

    async def _whole_look(self, member: Member) -> None:
        """Let a scheduler look, and say when it looks again."""
        self.looks += 1
        try:
            wait = await member.scheduler.look()
        except (DatabaseConnectionError, CommitUnknownError, TimeoutError):
            self.failed += 1
            wait = self.chance.uniform(0.2, 5.0)
        again = max(self.world.seconds + wait, member.asleep_until)
        self.at(again, lambda: self._look(member))
