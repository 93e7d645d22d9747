"""A supervised fleet under deaths: it keeps its number, backs off where processes crash at once, and recycles."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from backfill import BackfillClient
from backfill.cli.supervise.deaths import FIRST_PAUSE

from plugins.supervised import START, Fleet, Supervise
from plugins.waiting import Eventually
from programs import PATIENCE

TASKS = """
import asyncio, os, subprocess
from pathlib import Path
from backfill import TaskRegistry, WorkerContext

if Path("broken").exists():
    os._exit(9)

tasks = TaskRegistry()
hoard = []

@tasks.task("work")
async def work() -> None:
    await asyncio.sleep(0.01)

@tasks.task("hold")
async def hold() -> None:
    print(f"holding {os.getpid()}", flush=True)
    await asyncio.sleep(600)

@tasks.task("once")
async def once(ctx: WorkerContext[None]) -> None:
    print("first run" if ctx.job.attempts == 1 else "second run", flush=True)
    await asyncio.sleep(600 if ctx.job.attempts == 1 else 0)

@tasks.task("leaves")
async def leaves(ctx: WorkerContext[None]) -> None:
    if ctx.job.attempts == 1:
        print(f"left {subprocess.Popen(['sleep', '600']).pid} behind", flush=True)
        await asyncio.sleep(600)
    print("second run", flush=True)

@tasks.task("hoards")
async def hoards() -> None:
    hoard.append(os.urandom(200 * 2**20))
"""

LONG = pytest.param(25, marks=[pytest.mark.long, pytest.mark.timeout(1200)])
"""So many kills; the pauses before restarts grow to 30 s meanwhile."""


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def summed_up(fleet: Fleet) -> str:
    """The supervisor's last line."""
    (last,) = (line for line in fleet.output.splitlines() if "the supervisor stopped" in line)
    return last


@pytest.mark.parametrize("kills", [5, LONG], ids=["short", "full"])
async def test_a_fleet_under_random_kills_keeps_its_number(
    dsn: str, supervise: Supervise, eventually: Eventually, kills: int
) -> None:
    """Workers die of several signals while jobs run: the fleet is four again each time, and every job is done."""
    seed = int(os.environ.get("BACKFILL_SEED", random.randrange(2**32)))
    chance = random.Random(seed)
    async with BackfillClient(dsn) as client:
        fleet = supervise(TASKS, "--processes", "4", "-c", "5", "--log-level", "error")
        await eventually(fleet.pids, lambda found: len(found) == 4, timeout=START)
        supervisor = psutil.Process(fleet.process.pid)
        descriptors = supervisor.num_fds()
        for _ in range(kills):
            await client.enqueue_bulk("work", [None] * 50)
            victim = chance.choice(await eventually(fleet.children))
            victim.send_signal(chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM]))
            await eventually(victim.is_running, lambda runs: not runs)
        await eventually(lambda: fleet.is_whole(4), timeout=3 * 31)
        await eventually(
            lambda: rows(dsn, "select count(*) from graphile_worker.jobs"), lambda found: found == [(0,)],
            timeout=PATIENCE, moving=True,
        )  # fmt: skip
        assert rows(dsn, "select 1 from graphile_worker.backfill_dlq") == [], f"seed {seed}"
        await eventually(supervisor.num_fds, lambda number: number <= descriptors)
        assert {child.status() for child in fleet.children()}.isdisjoint({psutil.STATUS_ZOMBIE})
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 0, f"seed {seed}: {fleet.output}"


@pytest.mark.parametrize("kills", [2, LONG], ids=["short", "full"])
async def test_a_dead_workers_jobs_run_again_at_once(
    dsn: str, supervise: Supervise, eventually: Eventually, kills: int
) -> None:
    """The supervisor knows that the process is gone; nobody waits for its heartbeat to stand still."""
    async with BackfillClient(dsn) as client:
        fleet = supervise(TASKS, "--processes", "2")
        for _ in range(kills):
            await eventually(lambda: fleet.is_whole(2), timeout=3 * 31)
            await client.enqueue("once")
            fleet.wait_for("first run")
            ((busy,),) = rows(dsn, _WHO_HOLDS)
            os.kill(busy, signal.SIGKILL)
            killed = time.monotonic()
            fleet.wait_for("second run")
            assert time.monotonic() - killed < 3 * 3
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 0
    assert "was killed by signal 9 (SIGKILL)" in fleet.output
    assert fleet.output.count("first run") == fleet.output.count("second run") == kills
    (done,) = re.findall(r"attempts: (\d+) done", summed_up(fleet))
    assert 1 <= int(done) <= kills  # a process that was killed has not told what it did in its last moment


async def test_a_fleet_of_one_is_there_again_at_once(dsn: str, supervise: Supervise, eventually: Eventually) -> None:
    """Nobody else is there for its jobs, so the first restart does not wait, and a later one does.

    A program that its handler has started holds its output and does not delay it. The rest of the time until the jobs
    run again is that of Python's start.
    """
    async with BackfillClient(dsn) as client:
        fleet = supervise(TASKS, "--processes", "1")
        fleet.wait_for("worker process 1 starts")
        for pauses in (False, True):
            await eventually(lambda: fleet.is_whole(1), timeout=START)
            await client.enqueue("leaves")
            left = psutil.Process(int(re.findall(r"left (\d+)", fleet.wait_for("behind"))[-1]))
            (busy,) = fleet.pids().values()
            os.kill(busy, signal.SIGKILL)
            killed = time.monotonic()
            fleet.wait_for("worker process 1 starts")
            assert (time.monotonic() - killed >= FIRST_PAUSE) == pauses
            fleet.wait_for("second run")
            left.kill()
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 0


_WHO_HOLDS = """
select w.pid
from graphile_worker.jobs as j
join graphile_worker.backfill_workers as w on w.id = j.locked_by
"""


async def test_a_crash_loop_backs_off_and_is_said_once(
    dsn: str, supervise: Supervise, eventually: Eventually, tmp_path: Path
) -> None:
    """Processes that die at their start are started again ever later; the log has one line of it in a minute."""
    fleet = supervise(TASKS, "--processes", "2")
    await eventually(fleet.pids, timeout=START)
    (tmp_path / "broken").touch()
    began = time.monotonic()
    killed = set(fleet.pids().values())
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    starts = set[int]()

    def seen() -> int:
        starts.update(child.pid for child in fleet.children() if child.pid not in killed)
        return len(starts)

    await eventually(seen, lambda count: count >= 6, timeout=PATIENCE)  # each starts at once, after 1 s and after 2 s
    assert time.monotonic() - began >= 1 + 2
    (tmp_path / "broken").unlink()
    await eventually(fleet.pids, lambda found: len(found) == 2, timeout=PATIENCE)
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 0, fleet.output
    assert len(re.findall("it is started again", fleet.output)) == 1, fleet.output
    (restarts,) = re.findall(r"(\d+) restarts,", summed_up(fleet))
    assert int(restarts) >= 4


async def test_processes_are_replaced_after_so_many_jobs(
    dsn: str, supervise: Supervise, eventually: Eventually
) -> None:
    """Without a job that is lost or run twice; the limit alone makes a supervisor of one process."""
    async with BackfillClient(dsn) as client:
        fleet = supervise(TASKS, "--max-jobs", "50", "-c", "1")
        await eventually(fleet.pids, timeout=START)
        await client.enqueue_bulk("work", [None] * 150)
        await eventually(
            lambda: rows(dsn, "select count(*) from graphile_worker.jobs"), lambda found: found == [(0,)],
            timeout=PATIENCE, moving=True,
        )  # fmt: skip
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 0, fleet.output
    last = summed_up(fleet)
    assert "150 done, 0 failed" in last
    assert "1 worker processes, 0 restarts" in last
    (replaced,) = re.findall(r"(\d+) replaced;", last)
    assert 1 <= int(replaced) <= 3


async def test_a_process_with_too_much_memory_is_replaced(
    dsn: str, supervise: Supervise, eventually: Eventually
) -> None:
    """It drains while its successor starts: a job that it runs may end, and another process takes what comes."""
    async with BackfillClient(dsn) as client:
        fleet = supervise(TASKS, "--processes", "2", "--max-rss", "200MB")
        before = await eventually(fleet.pids, timeout=START)
        await client.enqueue("hoards")
        after = await eventually(fleet.pids, lambda found: len(found) == 2 and found != before, timeout=PATIENCE)
        assert len(set(before.values()) & set(after.values())) == 1
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 0, fleet.output
    assert re.search(r"worker process \d \(pid \d+\) is replaced, since it has \d+ MB of memory", fleet.output)
    assert "0 restarts, 1 replaced; attempts: 1 done" in summed_up(fleet)


async def test_a_worker_that_was_told_to_stop_by_somebody_else_is_replaced(
    dsn: str, supervise: Supervise, eventually: Eventually
) -> None:
    """Whoever ends one worker in good order does not make the fleet smaller."""
    fleet = supervise(TASKS, "--processes", "1")
    (before,) = (await eventually(fleet.pids, timeout=START)).values()
    os.kill(before, signal.SIGTERM)
    (after,) = (await eventually(fleet.pids, lambda found: bool(found) and set(found.values()) != {before})).values()
    assert psutil.pid_exists(after)
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 0, fleet.output
    assert "worker process 1 (pid" in fleet.output


def test_programs_of_handlers_get_nothing_of_the_supervisor(dsn: str, supervise: Supervise, tmp_path: Path) -> None:
    """The variable and the socket of the supervisor are not inherited, nor any pipe of another worker."""
    fleet = supervise(
        "import os, subprocess\nfrom backfill import TaskRegistry\ntasks = TaskRegistry()\n"
        "@tasks.task('x')\nasync def x(): ...\n"
        "print('mine', sorted(os.listdir('/proc/self/fd'), key=int), 'BACKFILL_SUPERVISED_BY' in os.environ)\n"
        "print(subprocess.run('ls /proc/self/fd | tr \"\\\\n\" \" \"; env', shell=True, capture_output=True,"
        " text=True, close_fds=False).stdout, flush=True)\n",
        "--processes", "1",
    )  # fmt: skip
    fleet.wait_for("supervise")
    text = fleet.wait_for("worker backfill_")
    assert "0 1 2 3 " in text.replace("[1] ", ""), text
    assert "BACKFILL_SUPERVISED_BY" not in text
    fleet.process.send_signal(signal.SIGTERM)
    assert fleet.end() == 0
