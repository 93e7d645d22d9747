"""What jobs cost the server: processor time of the backends that a worker has, and bytes of WAL."""

from __future__ import annotations

import gc
import logging
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psutil
import psycopg
import uvloop

from backfill import QueueConfig, TaskRegistry, WorkerConfig, WorkerRunner

from sides.left import Left
from sides.ours import Counted, noop

APART: Final = {"autovacuum": "off", "full_page_writes": "off", "wal_level": "replica", "max_wal_senders": "4"}
"""Settings of the server: neither autovacuum nor images of whole pages, which depend on checkpoints, are in the figures."""
_BACKENDS: LiteralString = """
select pid
from pg_stat_activity
where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
"""
_WAL: LiteralString = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"


@dataclass(frozen=True, slots=True)
class Reading:
    """What was used until a moment.

    Attributes:
        jobs: that have started.
        seconds: of processor time, of each backend.
        wal: bytes.
    """

    jobs: int
    seconds: dict[int, float]
    wal: float

    def a_job(self, later: Reading) -> tuple[float, float]:
        """Microseconds of the backends' processor time and bytes of WAL for each job from here to a later reading."""
        jobs = later.jobs - self.jobs
        assert set(self.seconds) <= set(later.seconds), "a backend ended meanwhile, and what it used is not known"
        seconds = sum(used - self.seconds.get(pid, 0.0) for pid, used in later.seconds.items())
        return seconds / jobs * 1e6, (later.wal - self.wal) / jobs


def worker_costs(dsn: str, jobs: int, *, warming: int, express: bool) -> tuple[float, float]:
    """Microseconds of processor time and bytes of WAL a job, on a server that does nothing else and is on this machine.

    Args:
        dsn: of a queue with `warming + jobs` jobs.
        jobs: how many are measured.
        warming: how many run before them.
        express: how their task is registered.
    """
    logging.disable(logging.WARNING)
    gc.freeze()  # as the shell's worker does

    async def run() -> tuple[float, float]:
        counted = Counted(noop, jobs, warming)
        registry: TaskRegistry[None] = TaskRegistry()
        registry.task("noop", express=express)(counted)
        config = WorkerConfig(dsn, queues=[QueueConfig.default_queue(100)])
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            left = await Left.of(connection)
            async with WorkerRunner(config, registry):
                await counted.warm.wait()
                before = await _read(connection, counted)
                await counted.done.wait()
                await left.ended()
                return before.a_job(await _read(connection, counted))

    try:
        return uvloop.run(run())
    finally:
        gc.unfreeze()


async def _read(connection: psycopg.AsyncConnection[Any], counted: Counted) -> Reading:
    backends = await (await connection.execute(_BACKENDS)).fetchall()
    [[wal]] = await (await connection.execute(_WAL)).fetchall()
    used = [(pid, psutil.Process(pid).cpu_times()) for (pid,) in backends]
    return Reading(counted.count, {pid: times.user + times.system for pid, times in used}, float(wal))
