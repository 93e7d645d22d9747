"""Worker processes that keep books: killed, stopped and continued, started again, and watched for ends of their own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, LiteralString

import msgspec
import pytest

from fleet.books import Books
from fleet.processes import jobs_left

from plugins.waiting import wait_until
from reading import rows, value

_PROGRAM = Path(__file__).with_name("booked.py")
LEFT: LiteralString = """
select jobs.id, attempts, run_at::text, jobs.locked_by, jobs.locked_at, queue_name, queues.locked_by
from graphile_worker._private_jobs as jobs
left join graphile_worker._private_job_queues as queues on queues.id = jobs.job_queue_id
"""
LONGEST_STOP = 90.0
"""Seconds that a graceful stop may take: three times what its own deadlines add up to."""
UNDER_WAY: LiteralString = "select job_id, attempt, worker, process, began from attempts where ended is null"


@dataclass(frozen=True)
class Program:
    """What runs in a slot.

    Attributes:
        start: starts it with settings in JSON and the file of its log; its first line of output is its worker's id.
        sign: how that id begins.
        tells: whether it logs on SIGUSR1 what it is doing.
    """

    start: Callable[[str, IO[bytes]], Awaitable[Process]]
    sign: str
    tells: bool


async def _start_ours(settings: str, log: IO[bytes]) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(_PROGRAM), settings, stdin=PIPE, stdout=PIPE, stderr=log
    )


OURS = Program(_start_ours, sign="backfill_", tells=True)


class Member:
    """One process.

    Attributes:
        slot: its place in the crew; whoever is started after it there has the same.
        name: its own in the books.
        worker: as which its worker started.
        is_stopped: whether it does not run just now (SIGSTOP).
    """

    def __init__(self, slot: int, name: str, process: Process, worker: str) -> None:
        self.slot = slot
        self.name = name
        self.process = process
        self.worker = worker
        self.is_stopped = False


class Crew:
    """Some worker processes on one database, a slot each.

    Args:
        books: in which they and their ends are written.
        folder: where their logs go, a file a process.
        concurrency: how many jobs each runs at once.
        dead_after: seconds without a heartbeat; they beat four times in it, and every 5 seconds at least.
        dsn_of: by which the process in a slot reaches the database; the books' own way if not given.
        told: what else the process in a slot is told, of `booked.Settings`.
        program: what runs in a slot; a worker of ours if not given.
    """

    def __init__(
        self,
        books: Books,
        folder: Path,
        *,
        concurrency: int = 8,
        dead_after: float = 20.0,
        dsn_of: Callable[[int], str] | None = None,
        told: Callable[[int], Mapping[str, object]] = lambda _: {},
        program: Callable[[int], Program] = lambda _: OURS,
    ) -> None:
        self.books = books
        self.dead_after = dead_after
        self._folder = folder
        self._concurrency = concurrency
        self._dsn_of = dsn_of or (lambda _: books.dsn)
        self._told = told
        self._program = program
        self._members: dict[int, Member] = {}
        self._starting: set[Process] = set()
        self._count = 0

    @property
    def members(self) -> list[Member]:
        """Those that run, stopped or not, by slot."""
        return [member for _, member in sorted(self._members.items())]

    @property
    def lost(self) -> list[str]:
        """Those that ended though nobody told them to, each with the end of its log."""
        return [
            f"{member.name} ended with {member.process.returncode}:\n{self._log(member.name).read_text()[-2000:]}"
            for member in self.members
            if member.process.returncode is not None
        ]

    async def start(self, slot: int) -> Member:
        """Start a process in a free slot, and wait until its worker runs, however long the database is away."""
        assert slot not in self._members
        self._count += 1
        name = f"{slot}-{self._count}"
        settings = {
            "dsn": self._dsn_of(slot), "records": self.books.dsn, "process": name, "concurrency": self._concurrency,
            "dead_after": self.dead_after, "heartbeat": min(self.dead_after / 4, 5.0), **self._told(slot),
        }  # fmt: skip
        program = self._program(slot)
        with self._log(name).open("wb") as log:
            process = await program.start(msgspec.json.encode(settings).decode(), log)
        self._starting.add(process)
        assert process.stdout is not None
        worker = (await process.stdout.readline()).decode().strip()
        if not worker.startswith(program.sign):
            code = await process.wait()
            pytest.fail(f"a worker ended with {code} at its start:\n{self._log(name).read_text()[-2000:]}")
        self._starting.discard(process)
        member = self._members[slot] = Member(slot, name, process, worker)
        return member

    async def kill(self, member: Member) -> None:
        """End one without warning, and note when.

        The time is noted first: the process does nothing any more once the signal is sent, and others may begin its
        jobs before this process learns that it has ended.
        """
        del self._members[member.slot]
        self.books.killed(member.name)
        member.process.kill()
        await member.process.communicate()

    async def leave(self, member: Member) -> int:
        """End one gracefully by SIGTERM; its exit code."""
        del self._members[member.slot]
        member.process.terminate()
        try:
            async with asyncio.timeout(LONGEST_STOP):
                await member.process.communicate()
        except TimeoutError:
            member.process.kill()
            await member.process.communicate()
            pytest.fail(f"{member.name} did not end within {LONGEST_STOP} s:\n{self._log(member.name).read_text()}")
        return member.process.returncode or 0

    def fell(self, member: Member) -> str:
        """Note that one has ended by itself, and that its slot is free; the end of its log."""
        del self._members[member.slot]
        self.books.killed(member.name)
        return self._log(member.name).read_text()[-2000:]

    def stop(self, member: Member) -> None:
        """Let one run no more for now."""
        member.is_stopped = True
        member.process.send_signal(signal.SIGSTOP)

    def go_on(self, member: Member) -> None:
        """Let one run again."""
        member.process.send_signal(signal.SIGCONT)
        member.is_stopped = False

    async def tell(self) -> str:
        """What each process is doing, at the end of its log."""
        alive = [
            member for member in self.members if member.process.returncode is None and self._program(member.slot).tells
        ]
        for member in alive:
            member.process.send_signal(signal.SIGUSR1)
        with contextlib.suppress(pytest.fail.Exception):
            await wait_until(lambda: all("told" in self._log(member.name).read_text() for member in alive))
        return "\n".join(f"== {member.name}\n{self._log(member.name).read_text()[-30000:]}" for member in self.members)

    def logs(self) -> str:
        """All that the processes have said."""
        return "".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    async def end(self) -> list[int]:
        """End all gracefully; gives their exit codes. One that does not end says in the failure what it is doing."""
        members = self.members
        for member in members:
            member.process.terminate()
        try:
            async with asyncio.timeout(LONGEST_STOP):
                await asyncio.gather(*(member.process.communicate() for member in members))
        except TimeoutError:
            pytest.fail(f"not all processes ended within {LONGEST_STOP} s:\n{await self.tell()}")
        self._members.clear()
        return [member.process.returncode or 0 for member in members]

    async def close(self) -> None:
        """Kill what is left."""
        for process in [*self._starting, *(member.process for member in self.members)]:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
        self._members.clear()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


@asynccontextmanager
async def crew_of(number: int, crew: Crew) -> AsyncIterator[Crew]:
    """So many processes, which are gone at the end of the block."""
    try:
        await asyncio.gather(*(crew.start(slot) for slot in range(number)))
        yield crew
    finally:
        await crew.close()


async def drained(books: Books, *, timeout: float, crew: Crew | None = None) -> None:
    """Wait until no job is left and the dead have been taken up, so that nothing is locked any more.

    Args:
        books: of the fleet.
        timeout: in seconds.
        crew: who is asked what they are doing where that takes too long.
    """
    try:
        await _drained(books, timeout)
    except pytest.fail.Exception:
        if crew is not None:
            left = await rows(books.dsn, LEFT)
            print("left:", *left, "under way:", *await rows(books.dsn, UNDER_WAY), await crew.tell(), sep="\n")
        raise


async def _drained(books: Books, timeout: float) -> None:
    await wait_until(lambda: jobs_left(books.dsn), lambda left: left == 0, timeout=timeout)
    await wait_until(
        lambda: value(
            books.dsn, "select count(*) from graphile_worker._private_job_queues where locked_at is not null"
        ),
        lambda locked: locked == 0,
        timeout=timeout,
    )
