"""Workers in processes of their own on one queue, which tell how many jobs they have started, and when.

A member is a program that prints "ready", waits for a line, and then prints `[when, started]` as lines of JSON until its
standard input ends. The times are those of a clock that the processes of one machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import psycopg

from sides.left import Left
from sides.node import as_url, node_command
from sides.queue import Queue

PROVEN: Final = 1_000
"""How many jobs each member has started before the clock starts: until then ours runs express tasks the ordinary way."""
_HERE: Final = Path(__file__).parent
_START: Final = 120.0
_WORK: Final = 240.0
Command = Sequence[str]


def our_member(dsn: str, task: str = "noop", *, express: bool = False, python: str = sys.executable) -> Command:
    """One of our workers, with 100 slots for a task whose handler does nothing; of another environment, if asked for."""
    return (python, "-m", "sides.member_worker", dsn, task, "express" if express else "ordinary")


def node_member(dsn: str, node_modules: Path) -> Command:
    """Node's worker, for the same jobs."""
    return (*node_command(_HERE / "node_member.mjs", node_modules), as_url(dsn))


class History:
    """How many jobs each member had started, and when.

    Args:
        members: how many they are.
    """

    def __init__(self, members: int) -> None:
        self._seen: list[list[tuple[float, int]]] = [[(0.0, 0)] for _ in range(members)]
        self._changed = asyncio.Event()

    @property
    def counts(self) -> list[int]:
        """What each has told last."""
        return [seen[-1][1] for seen in self._seen]

    def add(self, member: int, when: float, count: int) -> None:
        """What one of them tells."""
        self._seen[member].append((when, count))
        self._changed.set()

    async def reach(self, jobs: int, *members: int) -> None:
        """Wait until members (all if none is named) have started so many together."""
        numbers = members or range(len(self._seen))
        while sum(self.counts[number] for number in numbers) < jobs:
            self._changed.clear()
            await self._changed.wait()

    def rate(self, until: float, *members: int) -> float:
        """Jobs a second of members (all if none is named), since the last one of all was warm."""
        since = max(next((when for when, count in seen if count >= PROVEN), until) for seen in self._seen)
        assert since < until, f"the jobs were gone before each member had started {PROVEN} of them: {self.counts}"
        numbers = members or range(len(self._seen))
        return sum(self._at(number, until) - self._at(number, since) for number in numbers) / (until - since)

    def _at(self, member: int, when: float) -> int:
        seen = self._seen[member]
        return seen[bisect_right(seen, when, key=lambda told: told[0]) - 1][1]


async def fleet_rate(
    dsn: str, jobs: int, processes: int, *, express: bool = False, python: str = sys.executable
) -> float:
    """Jobs a second that so many of our processes run together, until the table is empty.

    Args:
        dsn: of the queue.
        jobs: how many there are in all, those before the clock starts included.
        processes: how many workers.
        express: how their task is registered.
        python: the interpreter of the environment that has their backfill.
    """
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        left = await Left.of(connection)
        async with _working([our_member(dsn, express=express, python=python)] * processes) as history:
            await history.reach(jobs)
            return history.rate(await left.ended())


async def node_rate_beside(dsn: str, jobs: int, node_modules: Path, *, express: bool) -> float:
    """Jobs a second that Node's worker gets of a backlog that it shares with one of our processes.

    Args:
        dsn: of the queue.
        jobs: how many there are in all, those before the clock starts included.
        node_modules: where Node's worker is installed.
        express: how our task is registered.
    """
    commands = [our_member(dsn, express=express), node_member(dsn, node_modules)]
    async with _working(commands) as history:
        await history.reach(jobs)
        return history.rate(time.perf_counter(), 1)


async def serial_rate_beside(dsn: str, jobs: int, serial: int, *, express: bool) -> float:
    """Serial jobs a second that one of our processes runs, beside another one that has parallel jobs all the time.

    Args:
        dsn: of the queue.
        jobs: how many parallel ones there are: enough for longer than the serial ones take.
        serial: how many serial ones there are, of the task `serial`.
        express: how the task of the parallel ones is registered.
    """
    commands = [our_member(dsn, express=express), our_member(dsn, "serial")]
    async with _working(commands) as history:
        await history.reach(serial, 1)
        assert history.counts[0] < jobs, f"the parallel jobs were gone before the {serial} serial ones"
        return history.rate(time.perf_counter(), 1)


def filled(dsn: str, jobs: int, *, serial: tuple[int, int] = (0, 0)) -> str:
    """A queue with so many parallel jobs, and with so many serial queues of so many jobs each."""
    queue = Queue(dsn)
    queue.empty("noop", "serial")
    queue.parallel("noop", jobs)
    if serial[0]:
        queue.serial("serial", *serial)
    queue.settle()
    return dsn


@asynccontextmanager
async def _working(commands: Sequence[Command]) -> AsyncIterator[History]:
    """Members that begin at the same moment; they are stopped at the end."""
    pipe = asyncio.subprocess.PIPE
    history = History(len(commands))
    async with AsyncExitStack() as stack:
        processes = []
        for command in commands:
            process = await asyncio.create_subprocess_exec(*command, cwd=_HERE.parent, stdin=pipe, stdout=pipe)
            stack.push_async_callback(_ended, process)
            processes.append(process)
        async with asyncio.timeout(_START):
            for process in processes:
                assert process.stdout is not None
                assert json.loads(await process.stdout.readline()) == "ready"
        async with asyncio.timeout(_WORK), asyncio.TaskGroup() as group:
            readers = [group.create_task(_read(history, number, one)) for number, one in enumerate(processes)]
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
            yield history
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            await asyncio.gather(*readers)


async def _read(history: History, number: int, process: asyncio.subprocess.Process) -> None:
    """Take in what a member tells."""
    assert process.stdout is not None
    while line := await process.stdout.readline():
        history.add(number, *json.loads(line))
    if code := await process.wait():
        raise ChildProcessError(f"member {number} ended with {code}")


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Let none of them outlive a failure."""
    if process.returncode is None:
        process.kill()
    await process.wait()
