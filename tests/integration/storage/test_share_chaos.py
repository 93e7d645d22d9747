"""Shares while sessions die in every step: never more than the limit run, and no slot is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import psycopg
import pytest

from backfill.storage.wire import Command
from share_takers import Field, Taker, session

from plugins.periods import let_pass

_OTHERS = "select pid from pg_stat_activity where application_name = 'taker' and datname = current_database()"
_GONE = "select count(*) from pg_stat_activity where pid = $1"


@dataclass(slots=True)
class Watch:
    """Counts what runs with a share, in all takers together."""

    most: int
    running: set[int] = field(default_factory=set)
    peak: int = 0

    def starts(self, *jobs: int, granted: bool = True) -> None:
        """Note that jobs start to run; where that was granted, no more run now than may."""
        assert self.running.isdisjoint(jobs), f"{jobs} run twice"
        self.running.update(jobs)
        self.peak = max(self.peak, len(self.running))
        if granted and jobs:
            assert len(self.running) <= self.most, f"{len(self.running)} run, {self.most} may"

    def ends(self, *jobs: int) -> None:
        """Note that jobs have stopped, before the database is told."""
        self.running.difference_update(jobs)


class Gate:
    """Lets many go through at once, or one alone."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Be inside with others."""
        async with self._changed:
            self._inside += 1
        try:
            yield
        finally:
            async with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Be inside alone; meanwhile the others wait."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._inside == 0)
            yield


class Doomed:
    """A taker whose session may be ended at any time; then it comes back, or others recover its jobs."""

    def __init__(self, dsn: str, number: int, field: Field, watch: Watch, turns: random.Random) -> None:
        self.dsn, self.number, self.field, self.watch, self.turns = dsn, number, field, watch, turns
        self.lives = 0
        self.pid = 0
        self.taker: Taker | None = None
        self.lost: Taker | None = None
        self.ends: list[Command] = []
        """What was sent and not answered."""

    async def step(self) -> None:
        """Carry out one transaction of a worker, or come back after a lost session."""
        try:
            await self._act(self.taker or await self._come())
        except psycopg.OperationalError:  # the session was ended; what it had sent took effect, or it did not
            if self.taker is not None:
                await self.close()
                self.lost, self.taker = self.taker, None

    async def close(self) -> None:
        """End the session."""
        if self.taker is not None:
            await self.taker.connection.close()

    async def _come(self) -> Taker:
        connection = await session(f"{self.dsn} application_name=taker")
        try:
            while self.lost is not None and (await self.field.rows(_GONE, self.pid))[0][0]:
                pass  # its transaction is still being ended
            self.pid = connection.info.backend_pid
            self.lives += 1
            taker = Taker(connection, f"taker{self.number}.{self.lives}", self.field)
            if self.lost is not None:
                await self._inherit(taker, self.lost)
                self.lost = None
        except BaseException:
            await connection.close()
            raise
        self.taker = taker
        return taker

    async def _inherit(self, taker: Taker, lost: Taker) -> None:
        if self.turns.random() < 0.5:  # the worker died, and others recover its jobs
            self.watch.ends(*lost.running)
            await self.field.recover(lost.worker)
        else:  # it lives, sends again what was not answered, and looks what it holds
            taker.worker = lost.worker
            await taker.send(*self.ends)
            await taker.adopt()
            assert set(lost.running) <= set(taker.running), "a running job has lost its share"
            self.watch.starts(*set(taker.running) - set(lost.running))
        self.ends = []

    async def _act(self, taker: Taker) -> None:
        turn = self.turns.random()
        if turn < 0.3 or not taker.running:
            before = len(taker.running)
            await taker.take(self.turns.randint(1, 4), self.turns.randint(0, 3) if taker.running else 0)
            self.watch.starts(*taker.running[before:])
        elif turn < 0.4:
            await taker.send(taker.renew())
        elif turn < 0.5:
            back = [*taker.ahead, taker.running.pop()]
            self.watch.ends(*back)
            taker.ahead = []
            await taker.send(taker.give_back(*back))
        else:
            ended = taker.running.pop(self.turns.randrange(len(taker.running)))
            self.watch.ends(ended)
            self.ends = [taker.complete(ended)]
            slot = taker.slots.pop(ended)
            if taker.ahead and slot <= self.watch.most:
                begun = taker.ahead.pop(0)
                taker.running.append(begun)
                taker.slots[begun] = slot
                self.watch.starts(begun, granted=False)
                self.ends.insert(0, taker.passed([(ended, begun)]))
            await taker.send(*self.ends)
            self.ends = []


async def _kill(dsn: str, turns: random.Random, over: asyncio.Event) -> None:
    """End random sessions of takers until it is over."""
    async with await session(dsn) as connection:
        while not over.is_set():
            pids = [row[0] for row in await (await connection.execute(_OTHERS)).fetchall()]
            if pids:
                await connection.execute("select pg_terminate_backend($1)", [turns.choice(pids)])
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), turns.uniform(0.005, 0.05))


@pytest.mark.parametrize(
    ("takers", "jobs", "seed"),
    [(10, 300, 1), pytest.param(16, 6000, 2, marks=pytest.mark.long), pytest.param(8, 6000, 3, marks=pytest.mark.long)],
)
@pytest.mark.parametrize("changing", [False, True], ids=["fixed", "changed"])
async def test_never_more_than_the_limit_run(dsn: str, takers: int, jobs: int, seed: int, changing: bool) -> None:
    """Sessions that take, pass, end, renew and give back are ended in every step; the limit is kept all the while.

    Where the limit is changed meanwhile, what is granted keeps to the new one at once. In the end all jobs are done.
    """
    turns = random.Random(seed)
    watch = Watch(4)
    over, calm, gate = asyncio.Event(), asyncio.Event(), Gate()
    async with await session(dsn) as connection:
        outside = Field(connection)
        await outside.add(jobs)
        await outside.limit(watch.most)
        crowd = [Doomed(dsn, number, outside, watch, random.Random(turns.random())) for number in range(takers)]

        async def work(one: Doomed) -> None:
            while not over.is_set():
                async with gate.open():
                    await one.step()

        async def change() -> None:
            while changing and not over.is_set():
                async with gate.alone():
                    watch.most = turns.choice((1, 3, 8, 12))
                    await outside.limit(watch.most)
                await let_pass(0.1)

        async def finish() -> None:
            while await outside.waiting() > jobs // 3:
                await let_pass(0.05)
            calm.set()
            while await outside.waiting() > 0:
                await let_pass(0.05)
            over.set()

        async with asyncio.TaskGroup() as group:
            for task in (finish(), _kill(dsn, turns, calm), change(), *map(work, crowd)):
                group.create_task(task)
        for one in crowd:
            await one.close()
        assert watch.peak >= 4
        assert await outside.live() == 0
        assert sum(one.lives for one in crowd) > takers
