"""How attempts in child processes end: by death, timeout, cancellation, a stop or a lost lease, and only they."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import pytest

import process_tasks
from backfill import BackfillClient, RetryPolicy, WorkerConfig, WorkerRunner
from backfill.worker.processes.child import Child
from backfill.worker.processes.launch import unread_bytes

from plugins.periods import let_pass
from plugins.waiting import Eventually
from reading import rows, value

KEEP = timedelta(hours=1)
SECOND = timedelta(seconds=1)
JOBS: LiteralString = "select count(*) from graphile_worker.jobs"
LOCKED: LiteralString = "select count(*) from graphile_worker.jobs where locked_by is not null"
AT_ONCE = RetryPolicy(
    max_attempts=5, initial_delay=SECOND / 100, max_delay=SECOND / 100, backoff_multiplier=1.0, jitter_factor=0.0
)


def alive(pid: int) -> bool:
    """Whether there is such a process, be it as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def said_in(path: Path) -> str | None:
    """What a handler has written; None before it has."""
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8") or None
    return None


def children_of(runner: WorkerRunner) -> list[Child]:
    """A worker's children."""
    parts = runner._parts
    assert parts is not None
    pool = parts.pool._pool
    return [] if pool is None else sorted(pool._children, key=lambda child: child.pid)


def running_in(runner: WorkerRunner) -> list[Child]:
    """Those that run a handler at this moment."""
    return [child for child in children_of(runner) if child.in_call]


@asynccontextmanager
async def working(
    dsn: str, concurrency: int = 2, **settings: Any
) -> AsyncIterator[tuple[BackfillClient, WorkerRunner]]:
    """A client, and a worker that runs the handlers of `process_tasks` in processes."""
    tasks = process_tasks.registry(keep=KEEP, **settings.pop("tasks", {}))
    config = WorkerConfig(dsn, concurrency=concurrency, poll_interval=SECOND / 10, retry=AT_ONCE, **settings)
    async with BackfillClient(dsn) as client, WorkerRunner(config, tasks) as runner:
        yield client, runner


@pytest.mark.parametrize(
    ("how", "said"),
    [("segv", "signal 11 (SIGSEGV)"), ("kill", "signal 9 (SIGKILL"), ("exit", "exit code 7")],
)
async def test_a_death_fails_its_attempt_alone(dsn: str, eventually: Eventually, how: str, said: str) -> None:
    """The error names the signal or the code, the job is tried again up to its number of runs, and others run on."""
    async with working(dsn) as (client, _):
        job = await client.enqueue("dies", how, max_attempts=2)
        others = [await client.enqueue("dies", "lives") for _ in range(10)]
        for other in others:
            assert await client.result(other, timeout=30 * SECOND) == "lives"
        dead = await eventually(client.list_dlq_jobs, lambda found: len(found.jobs) == 1)
        (letter,) = dead.jobs
        assert letter.original_job_id == job.job.id
        assert letter.attempts == 2
        assert letter.error_type == "ProcessDiedError"
        assert said in (letter.last_error or "")


async def test_a_timeout_ends_the_child_and_counts_from_its_beginning(
    dsn: str, eventually: Eventually, tmp_path: Path
) -> None:
    """The process is gone when the attempt is settled, and its slot is free for others."""
    where = tmp_path / "pid"
    async with working(dsn, concurrency=1, tasks={"timeout": SECOND / 2}) as (client, runner):
        job = await client.enqueue("hangs", str(where), max_attempts=1)
        end = await eventually(lambda: client.end(job.job.id), lambda found: found is not None)
        assert end is not None
        assert "ran longer than its timeout of 0:00:00.5" in (end.error or "")
        assert not alive(int(where.read_text()))
        again = await client.enqueue("dies", "lives")
        assert await client.result(again, timeout=30 * SECOND) == "lives"
        assert runner.health().hung == ()


async def test_what_a_handler_says_while_it_is_ended_arrives(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its `finally` may note how far it came, and the next attempt goes on from there."""
    async with working(dsn, concurrency=1, tasks={"timeout": SECOND / 2}) as (client, _):
        job = await client.enqueue("says_at_its_end", "so far")
        assert await client.result(job, timeout=30 * SECOND) == "so far"
    assert [one.levelname for one in caplog.records if one.getMessage() == "the handler was ended"] == ["WARNING"]


async def test_a_deadline_counts_from_the_claim(dsn: str, eventually: Eventually, tmp_path: Path) -> None:
    """Also for an attempt that waits for a child."""
    first, second = tmp_path / "first", tmp_path / "second"
    async with working(dsn, process_slots=1) as (client, _):
        holder = await client.enqueue("hangs", str(first))
        await eventually(lambda: said_in(first))
        late = await client.enqueue("hangs", str(second), deadline=datetime.now(UTC) + SECOND)
        end = await eventually(lambda: client.end(late.job.id), lambda found: found is not None)
        assert end is not None
        assert "deadline" in (end.error or "")
        assert not second.exists()
        await client.cancel(holder.job.id)
        await eventually(lambda: alive(int(first.read_text())), lambda lives: not lives)


async def test_a_cancellation_ends_the_child(dsn: str, eventually: Eventually, tmp_path: Path) -> None:
    """The job ends as cancelled, at once, and another attempt beside it runs on."""
    hung, other = tmp_path / "hung", tmp_path / "other"
    async with working(dsn) as (client, _):
        job, beside = await client.enqueue("hangs", str(hung)), await client.enqueue("waits", str(other))
        await eventually(lambda: said_in(hung) and said_in(other))
        pid = int(hung.read_text())
        await client.cancel(job.job.id, reason="not wanted")
        end = await eventually(lambda: client.end(job.job.id), lambda found: found is not None)
        assert end is not None
        assert end.how == "cancelled"
        assert not alive(pid)
        assert alive(int(other.read_text()))
        await client.cancel(beside.job.id)


async def test_a_stop_asks_first_and_leaves_no_child(dsn: str, eventually: Eventually, tmp_path: Path) -> None:
    """A handler that looks at the context ends by itself; one that hangs is ended, and its job goes back uncounted."""
    polite, hung, unbegun = tmp_path / "polite", tmp_path / "hung", tmp_path / "unbegun"
    async with working(dsn, concurrency=3, process_slots=2, shutdown_timeout=SECOND) as (client, runner):
        await client.enqueue("waits", str(polite))
        await client.enqueue("hangs", str(hung))
        await eventually(lambda: said_in(polite) and said_in(hung))
        await client.enqueue("hangs", str(unbegun))
        await eventually(lambda: value(dsn, LOCKED), lambda count: count == 3)
        pids = [child.pid for child in children_of(runner)]
        assert len(pids) == 2
    assert polite.read_text() == "stopping=True by=None"
    assert not any(alive(pid) for pid in pids)
    assert not unbegun.exists()
    left = await rows(dsn, "select attempts, locked_by from graphile_worker.jobs")
    assert left == [(0, None)] * 3


async def test_a_lost_lease_ends_the_children_of_its_jobs(dsn: str, eventually: Eventually, tmp_path: Path) -> None:
    """The worker goes on under a new id, and runs the job again only when the first child is gone."""
    where = tmp_path / "pid"
    async with working(dsn, dead_after=4 * SECOND, heartbeat_interval=SECOND / 5) as (client, runner):
        await client.enqueue("hangs", str(where))
        pid = int(await eventually(lambda: said_in(where)))
        old = runner.worker_id
        await rows(dsn, "update graphile_worker.backfill_workers set given_up_at = now()")
        await eventually(lambda: runner.worker_id != old and runner.health().ready)
        assert not alive(pid)
        assert runner.health().hung == ()


LONG = (pytest.mark.long, pytest.mark.timeout(1800))


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=LONG)])
async def test_children_that_are_killed_at_random_cost_their_attempts(
    dsn: str, eventually: Eventually, kills: int
) -> None:
    """As many attempts fail as children were killed while they ran a handler, and all jobs complete."""
    draw, jobs = random.Random(18), 5 * kills
    async with working(dsn, concurrency=2) as (client, runner):
        await client.enqueue_bulk("burns", [100] * jobs, max_attempts=100)
        killed = set[int]()
        while len(killed) < kills and await value(dsn, JOBS):
            if running := [child for child in running_in(runner) if child.pid not in killed]:
                child = draw.choice(running)
                if await killed_in_its_call(child, draw.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])):
                    killed.add(child.pid)
            await let_pass(draw.uniform(0, 0.3))
        await eventually(lambda: value(dsn, JOBS), lambda count: count == 0, timeout=60 + 3 * kills)
        failed = await value(dsn, "select coalesce(sum(attempts - 1), 0) from graphile_worker.backfill_ends")
        assert failed == len(killed) == kills
        assert await value(dsn, "select count(*) from graphile_worker.backfill_ends where how = 'completed'") == jobs


async def killed_in_its_call(child: Child, number: int) -> bool:
    """Kill a child while it runs a handler; whether it did.

    It is stopped first, so that its call cannot end between the look and the signal. A call that it has not read would
    be given to another child.
    """
    call = child._number
    os.kill(child.pid, signal.SIGSTOP)
    await let_pass(0.05)  # the outcome of a call that has just ended is read meanwhile
    begun = child.in_call and child._number == call and unread_bytes(child._calls) == 0
    if begun:
        os.kill(child.pid, number)
    os.kill(child.pid, signal.SIGCONT)
    return begun
