"""Worker processes by the handful: started, killed and started again, and stopped with the test."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

from reading import rows

_PROGRAM = Path(__file__).with_name("program.py")
TOLD = Path(__file__).with_name("told.py")
"""The program of the workers whose fleet is told something while it runs."""
SHORT = Path(__file__).with_name("short.py")
"""The program of the workers whose task is express."""
RECURRING = Path(__file__).with_name("recurring.py")
"""The program of the workers that have recurring items; a further argument is their crontab."""

TABLES: LiteralString = """
create table runs (
  job_id bigint not null, number integer not null, worker text not null, attempt integer not null,
  ended timestamptz not null default clock_timestamp()
);
create table spans (
  job_id bigint primary key, number integer not null, queue text, began timestamptz not null, ended timestamptz
);
create table released (at integer);
create table told (
  job_id bigint not null, worker text not null, attempt integer not null,
  began timestamptz not null default clock_timestamp(), ended timestamptz, primary key (job_id, worker, attempt)
);
create table sick (how text not null);
create table attempts (
  job_id bigint not null, attempt integer not null, worker text not null, value text,
  began timestamptz not null, ended timestamptz
);
create table steps (
  step integer not null, attempt integer not null, worker text not null,
  at timestamptz not null default clock_timestamp()
)
"""
JOBS: LiteralString = "select count(*) from graphile_worker._private_jobs"


class Fleet:
    """Some worker processes on one database."""

    def __init__(
        self, dsn: str, concurrency: int, dead_after: float, program: Path = _PROGRAM, words: tuple[str, ...] = ()
    ) -> None:
        self._dsn = dsn
        self._concurrency = concurrency
        self._dead_after = dead_after
        self._program = program
        self._words = words
        self._running: dict[str, Process] = {}
        self.killed: list[str] = []

    @property
    def workers(self) -> list[str]:
        """The ids of the workers that run."""
        return list(self._running)

    async def start(self) -> str:
        """Start one more; gives its worker's id."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(self._program),
            self._dsn,
            str(self._concurrency),
            str(self._dead_after),
            *self._words,
            stdin=PIPE,
            stdout=PIPE,
        )
        assert process.stdout is not None
        worker = (await process.stdout.readline()).decode().strip()
        assert worker.startswith("backfill_"), "the worker process ended at its start"
        assert worker not in self._running
        self._running[worker] = process
        return worker

    async def kill(self, worker: str) -> None:
        """End one without warning, and wait until the server has noticed."""
        process = self._running.pop(worker)
        process.kill()
        await process.communicate()
        self.killed.append(worker)

    async def died(self, worker: str) -> int:
        """Wait until one has ended by itself; its exit code."""
        process = self._running.pop(worker)
        await process.communicate()
        self.killed.append(worker)
        return process.returncode or 0

    def died_already(self) -> list[str]:
        """Those that have ended by themselves and were not waited for."""
        return [worker for worker, process in self._running.items() if process.returncode is not None]

    def signal(self, worker: str, number: int) -> None:
        """Send a signal to one."""
        self._running[worker].send_signal(number)

    async def stop(self) -> list[int]:
        """Stop all gracefully; gives their exit codes."""
        codes = []
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            await process.communicate()
            codes.append(process.returncode or 0)
        self._running.clear()
        return codes

    async def close(self) -> None:
        """Kill what is left."""
        for worker in self.workers:
            await self.kill(worker)


@asynccontextmanager
async def fleet_of(
    number: int,
    dsn: str,
    *,
    concurrency: int = 8,
    dead_after: float = 20.0,
    program: Path = _PROGRAM,
    words: tuple[str, ...] = (),
) -> AsyncIterator[Fleet]:
    """So many worker processes, and the tables that they write to; `words` are further arguments of the program."""
    await rows(dsn, TABLES)
    fleet = Fleet(dsn, concurrency, dead_after, program, words)
    try:
        await asyncio.gather(*(fleet.start() for _ in range(number)))
        yield fleet
    finally:
        await fleet.close()


async def jobs_left(dsn: str) -> int:
    """How many jobs there are."""
    [[count]] = await rows(dsn, JOBS)
    return int(count)


async def nothing_locked(dsn: str) -> list[tuple[Any, ...]]:
    """The queues and jobs that are locked: none when all is done."""
    return await rows(
        dsn,
        """select 'queue', queue_name, locked_by from graphile_worker._private_job_queues where locked_at is not null
           union all
           select 'job', id::text, locked_by from graphile_worker._private_jobs where locked_at is not null""",
    )
