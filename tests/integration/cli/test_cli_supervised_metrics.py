"""`/metrics` of a fleet: one address for all processes, whose counters stay where a process is killed or replaced."""

from __future__ import annotations

import os
import signal
import urllib.error
from pathlib import Path

from backfill import BackfillClient

from plugins.supervised import START, Fleet, Supervise
from plugins.waiting import Eventually
from programs import free_port
from scraping import Samples, samples_of, scrape, total

TASKS = """
import os
from pathlib import Path
from backfill import TaskRegistry

tasks = TaskRegistry()
RAN = Path(__file__).with_name("ran")

@tasks.task("note")
async def note() -> None:
    with RAN.open("ab", 0) as file:
        file.write(b"%d\\n" % os.getpid())
"""
ATTEMPTS = "backfill_job_attempts_total"


def scraped(port: int) -> Samples:
    """What the fleet shows; nothing while nobody answers."""
    try:
        return samples_of(scrape(port))
    except (urllib.error.URLError, OSError):
        return {}


def kill_first(fleet: Fleet) -> int | None:
    """Kill the first of its processes and give its pid; None while it is being replaced, and so not there."""
    victim = fleet.pids().get(1)
    if victim is None:
        return None
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return victim


async def test_counters_stay_when_processes_end(
    dsn: str, supervise: Supervise, eventually: Eventually, tmp_path: Path
) -> None:
    """Two processes count what their handlers did; after a SIGKILL and replacements the counters go on from there."""
    port = free_port()
    fleet = supervise(TASKS, "--processes", "2", "--max-jobs", "150", "--health-address", f"127.0.0.1:{port}")
    ran = tmp_path / "ran"

    def handled() -> list[str]:
        return ran.read_text().split() if ran.exists() else []

    def completed() -> float:
        return total(scraped(port), ATTEMPTS, task="note", outcome="completed")

    await eventually(lambda: fleet.is_whole(2), timeout=START)
    await eventually(lambda: total(scraped(port), "backfill_worker_active") == 2)
    highest = 0.0
    async with BackfillClient(dsn) as client:
        for number in range(1, 3):
            for _ in range(200):
                await client.enqueue("note", {})
            await eventually(completed, lambda value, wanted=200 * number: value >= wanted, timeout=START)
            assert completed() == len(handled()) == 200 * number
            assert completed() >= highest
            highest = completed()
            if number == 1:
                # It has told of all that it ran; but it may be at its end just now, after its most jobs.
                victim = await eventually(lambda: kill_first(fleet))
                await eventually(
                    lambda gone=victim: fleet.is_whole(2) and gone not in fleet.pids().values(), timeout=START
                )
                assert completed() == 200
    assert len(set(handled())) >= 2
    samples = scraped(port)
    assert total(samples, "backfill_job_run_duration_seconds_count") == 400
    assert total(samples, "backfill_claim_size_sum") >= 400  # what was claimed ahead of a stop went back
