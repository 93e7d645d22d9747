"""A crew in which workers of ours and of Graphile Worker 0.18 share the jobs, and what befalls them.

They are killed, told to stop, and their connections are ended. Whoever ends is started again in the same slot.
"""

from __future__ import annotations

import asyncio
import random
from asyncio.subprocess import Process
from collections import Counter
from pathlib import Path
from typing import IO, LiteralString

import pytest

from fleet.books import Books
from fleet.crew import LEFT, OURS, Crew, Member, Program

from plugins.node import Node
from plugins.waiting import wait_until
from reading import rows, value

TASKS = [f"work{number}" for number in range(100)]
OUR_SLOTS = (0, 1)
NODE_SLOTS = (2, 3)
"""The second of Node's workers claims and settles in batches."""
KINDS = ("kill ours", "kill Node", "stop ours", "stop Node", "cut ours", "cut Node")
"""What befalls them: SIGKILL, SIGTERM, and backends of theirs that are ended."""
CUT_AT_ONCE = 3
STOPPED, FAILED = -15, 1
"""As which Node's worker ends: told to stop, it ends itself by the signal; else by an error that nobody handles."""
NAMES = {"ours": "backfill", "Node": "node worker"}
"""How the names begin as which the server knows their connections. Handlers write their books on others."""

CUT: LiteralString = """
select count(pg_terminate_backend(pid))
from (
  select pid
  from pg_stat_activity
  where datname = current_database() and starts_with(application_name, %s) and pid <> pg_backend_pid()
  order by md5(pid::text || %s)
  limit %s
) as chosen
"""
UNDER_WAY: LiteralString = "select count(*) from attempts where process = %s and ended is null"
HELD: LiteralString = "select count(*) from graphile_worker._private_jobs where locked_by = %s"
UNLOCK: LiteralString = "select graphile_worker.force_unlock_workers(array[%s::text])"


class Shared:
    """The crew, and what is done to it.

    Args:
        books: of the fleet.
        node: how Node's workers are started.
        folder: where logs go.
        stale: seconds after which our workers take a lock of Node's for abandoned.
        chance: from which all is drawn.

    Attributes:
        crew: its processes; the caller starts and ends them.
        done: how often each thing was done, and what came of it.
    """

    def __init__(self, books: Books, node: Node, folder: Path, *, stale: float, chance: random.Random) -> None:
        self._books = books
        self._chance = chance
        self._watches = dict[str, asyncio.Task[None]]()
        self.done = Counter[str]()

        async def start(settings: str, log: IO[bytes]) -> Process:
            return await node.start("booked.js", settings, log=log)

        theirs = Program(start, sign="pool-", tells=False)
        self.crew = Crew(
            books, folder, dead_after=5.0,
            told=lambda slot: {"tasks": len(TASKS), "stale": stale, "poll": 0.5, "batches": slot == NODE_SLOTS[1]},
            program=lambda slot: theirs if slot in NODE_SLOTS else OURS,
        )  # fmt: skip

    def watch(self) -> None:
        """From now on, start again each of Node's workers that ends by itself."""
        for member in self.crew.members:
            if member.slot in NODE_SLOTS:
                self._watch(member)

    async def unwatch(self) -> None:
        """Do so no longer; raises what a restart failed with."""
        watches = list(self._watches.values())
        for watch in watches:
            watch.cancel()
        for outcome in await asyncio.gather(*watches, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def befall(self, kind: str) -> None:
        """Do one of `KINDS` to a worker that is drawn, or to connections that are."""
        what, whose = kind.split()
        self.done[kind] += 1
        if what == "cut":
            self.done[f"backends of {whose}"] += await value(
                self._books.dsn, CUT, NAMES[whose], str(self._chance.random()), CUT_AT_ONCE
            )
            return
        slot = self._chance.choice(NODE_SLOTS if whose == "Node" else OUR_SLOTS)
        try:
            member = await wait_until(lambda: self._at_work(slot))
        except pytest.fail.Exception:
            idle = [one for one in self.crew.members if one.slot == slot]
            if whose == "Node" and idle:
                # A cut at its start can leave it repeating one fetch error without ever running a job.
                self.done["Node did nothing"] += 1
                await self.crew.kill(idle[0])
                await self._replace(idle[0])
                return
            print(f"slot {slot} does nothing:", *await rows(self._books.dsn, LEFT), await self.crew.tell(), sep="\n")
            raise
        if what == "kill":
            await self.crew.kill(member)
            await self._replace(member)
        else:
            code = await self.crew.leave(member)
            assert code == 0 or (whose == "Node" and code in {STOPPED, FAILED}), f"{member.name} ended with {code}"
            await self._replace(member, stopped=code != FAILED)

    async def _at_work(self, slot: int) -> Member | None:
        """Who is in a slot, once it runs two jobs and more; one that ends by itself is replaced meanwhile."""
        for member in self.crew.members:
            if member.slot == slot and await value(self._books.dsn, UNDER_WAY, member.name) > 1:
                return member if member.process.returncode is None else None
        return None

    async def _replace(self, member: Member, *, stopped: bool = False) -> None:
        """Start another one in the slot of one that has ended; one of Node's may have left something locked."""
        if member.slot in NODE_SLOTS:
            await self._take_up(member, stopped=stopped)
        successor = await self.crew.start(member.slot)
        if member.slot in NODE_SLOTS:
            self._watch(successor)

    async def _take_up(self, member: Member, *, stopped: bool) -> None:
        """See what a worker of Node's left locked. By chance it is unlocked now; else its locks go by their age."""
        left = await value(self._books.dsn, HELD, member.worker)
        if not stopped:
            self._books.killed(member.name)
            self.done["jobs that a dead Node held"] += left
        elif left:
            # It did not wait until its last jobs' ends were written, so these run again.
            self._books.killed(member.name)
            self.done["jobs that a stopped Node held"] += left
        if self._chance.random() < 0.5:
            await rows(self._books.dsn, UNLOCK, member.worker)
            self.done["of them unlocked by its id"] += left

    def _watch(self, member: Member) -> None:
        self._watches[member.name] = asyncio.create_task(self._see_off(member))

    async def _see_off(self, member: Member) -> None:
        await member.process.wait()
        if member not in self.crew.members:
            return  # somebody ended it
        self.done["Node ended by itself"] += 1
        print(f"{member.name} ended by itself:", self.crew.fell(member), sep="\n")
        await self._replace(member)
