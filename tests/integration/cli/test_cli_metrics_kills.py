"""Metrics of a fleet whose busy processes are ended: what the counters keep, and how much a kill may cost."""

from __future__ import annotations

import os
import signal
import urllib.error
from pathlib import Path
from typing import LiteralString

from backfill import BackfillClient

from plugins.supervised import START, Supervise
from plugins.waiting import Eventually
from programs import free_port
from scraping import Samples, samples_of, scrape, total

TASKS = """
import asyncio
import os
from pathlib import Path
from backfill import TaskRegistry, WorkerContext

tasks = TaskRegistry()
RAN = Path(__file__).with_name("ran")

@tasks.task("note")
async def note(ctx: WorkerContext[None]) -> None:
    await asyncio.sleep(0.01)
    with RAN.open("ab", 0) as file:
        file.write(b"%d %d\\n" % (os.getpid(), ctx.job.id))
"""
WAVE = 1_000
GROWING = ("_total", "_count", "_bucket", "_sum")
ATTEMPTS = "backfill_job_attempts_total"
RUNS = "backfill_job_run_duration_seconds_count"
WAITS = "backfill_job_wait_duration_seconds_count"
JOBS: LiteralString = "select count(*) from graphile_worker._private_jobs"


class Scrapes:
    """Scrapes of one address, each of which is compared with the one before: no counter may have gone down."""

    def __init__(self) -> None:
        self.port = free_port()
        self.last: Samples = {}

    def look(self) -> Samples:
        """What is shown now; nothing while nobody answers."""
        try:
            seen = samples_of(scrape(self.port))
        except (urllib.error.URLError, OSError):
            assert not self.last  # from its start on, the supervisor always answers
            return {}
        lower = {
            series: (value, seen.get(series))
            for series, value in self.last.items()
            if series[0].endswith(GROWING) and seen.get(series, -1.0) < value
        }
        assert lower == {}
        self.last = seen
        return seen

    def completed(self) -> float:
        """How many attempts are shown as completed."""
        return total(self.look(), ATTEMPTS, task="note", outcome="completed")


class Handlers:
    """What the handlers have noted: a line for each attempt that came to its end.

    Args:
        folder: where the module of the tasks is.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ran"

    def lines(self) -> list[tuple[int, int]]:
        """The process and the job of each attempt."""
        text = self._path.read_text() if self._path.exists() else ""
        return [(int(pid), int(job)) for pid, job in map(str.split, text.splitlines())]

    def others(self, pid: int, since: int) -> int:
        """How many jobs had their last attempt, among the lines from one on, in other processes."""
        return sum(1 for one in {job: one for one, job in self.lines()[since:]}.values() if one != pid)


async def test_busy_processes_are_ended(dsn: str, supervise: Supervise, eventually: Eventually, tmp_path: Path) -> None:
    """A process that is told to end loses no count; one that is killed loses what it has counted since it told last.

    It tells whenever somebody scrapes: what was shown before stays, and so do all counts of the other process. Each
    that was killed is recovered once.
    """
    scrapes, handlers = Scrapes(), Handlers(tmp_path)
    fleet = supervise(TASKS, "--processes", "2", "--health-address", f"127.0.0.1:{scrapes.port}")
    await eventually(lambda: fleet.is_whole(2), timeout=START)
    victims = set[int]()

    def recovered() -> float:
        return total(scrapes.look(), "backfill_recoveries_total")

    async with BackfillClient(dsn) as client:

        async def left() -> int:
            async with client.pool.connection() as connection:
                [[number]] = await (await connection.execute(JOBS)).fetchall()
            return int(number)

        for turn, (sent, looks) in enumerate([(signal.SIGTERM, True), (signal.SIGKILL, False), (signal.SIGKILL, True)]):
            least = scrapes.completed()
            most, begun = least + WAVE, len(handlers.lines())
            victim = fleet.pids()[1 + turn % 2]
            mark = begun
            await client.enqueue_bulk("note", ({} for _ in range(WAVE)))
            while [pid for pid, _ in handlers.lines()[begun:]].count(victim) < WAVE // 10:
                if looks:
                    least = scrapes.completed()
                    mark = len(handlers.lines())
                else:
                    await eventually(lambda known=len(handlers.lines()): len(handlers.lines()) > known)
            os.kill(victim, sent)
            assert await left() > 0
            await eventually(left, lambda number: number == 0, moving=True)
            await eventually(lambda gone=victim: fleet.is_whole(2) and gone not in fleet.pids().values(), timeout=START)
            wanted = most if sent == signal.SIGTERM else least + handlers.others(victim, mark)
            shown = await eventually(scrapes.completed, lambda value, wanted=wanted: value >= wanted)
            assert shown <= most
            assert total(scrapes.last, RUNS) == total(scrapes.last, WAITS) == shown
            victims.add(victim)
            await eventually(recovered, lambda number, kills=turn: number == kills)
    assert len(victims) == 3
    assert {job for _, job in handlers.lines()} == set(range(1, 3 * WAVE + 1))
