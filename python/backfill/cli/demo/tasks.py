"""The demo's tasks, and how its worker processes report what they do.

Ordinary `backfill worker` processes run this ordinary registry. If the demo asks for it, the registry's lifespan writes
a line of JSON five times a second to the pipe that the demo reads.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from backfill.cli.demo.histogram import Histogram
from backfill.client import BackfillClient
from backfill.tasks import TaskRegistry
from backfill.worker import WorkerContext

REPORT_VARIABLE: Final = "BACKFILL_DEMO_REPORT"
REPORT_SECONDS: Final = 0.2
_LONGEST_NAME: Final = 40


class FailedOnPurposeError(Exception):
    """Raised by a demo job in its first attempt, so that the demo can show a retry."""


@dataclass
class Work:
    """The payload of a demo job.

    Attributes:
        phase: `backlog` or `stream`.
        fails: whether its first attempt fails.
    """

    phase: str = "backlog"
    fails: bool = False


@dataclass
class Hello:
    """The payload of a job from another terminal."""

    name: str = "you"


class Report:
    """What this process did since its last report to the demo."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.waits: dict[tuple[str, int], Histogram] = defaultdict(Histogram)
        self.done: dict[str, int] = defaultdict(int)
        self.failed = 0
        self.retried = 0
        self.hellos: list[str] = []
        self.times: dict[str, tuple[float, float]] = {}
        """For each phase, when its first and its last job began their first attempt."""

    def started(self, phase: str, ctx: WorkerContext[Any]) -> None:
        """Count the start of an attempt, and how long after the job's run_at it came, by this machine's clock."""
        now = time.time()
        self.waits[phase, ctx.job.priority].add(now - ctx.job.run_at.timestamp())
        if ctx.attempt > 1:
            self.retried += 1
            return
        first, _ = self.times.get(phase, (now, now))
        self.times[phase] = (first, now)

    def take(self) -> bytes | None:
        """Return the report as a line of JSON and begin a new one; None if nothing happened."""
        if not self.waits and not self.hellos:
            return None
        report = {
            "waits": [[phase, priority, waits.counts] for (phase, priority), waits in self.waits.items()],
            "done": self.done,
            "failed": self.failed,
            "retried": self.retried,
            "hellos": self.hellos,
            "times": self.times,
        }
        line = json.dumps(report).encode() + b"\n"
        self._clear()
        return line


report: Final = Report()


@asynccontextmanager
async def reporting(client: BackfillClient) -> AsyncIterator[None]:
    """Tell the demo what this process does, if the demo started it."""
    del client
    descriptor = os.environ.get(REPORT_VARIABLE)
    if descriptor is None:
        yield
        return
    telling = asyncio.ensure_future(_tell(int(descriptor)))
    try:
        yield
    finally:
        telling.cancel()
        _write(int(descriptor), report.take())


async def _tell(descriptor: int) -> None:
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        _write(descriptor, report.take() or b"\n")


def _write(descriptor: int, line: bytes | None) -> None:
    try:
        if line is not None:
            os.write(descriptor, line)
    except BrokenPipeError:
        os._exit(1)  # the demo was killed, and its database ended with it: jobs cannot be given back


tasks: Final = TaskRegistry(lifespan=reporting)


@tasks.task("demo.work")
async def work(payload: Work, ctx: WorkerContext[None]) -> None:
    """Count this run and do nothing else; fail in the first attempt if the payload says so."""
    report.started(payload.phase, ctx)
    if payload.fails and ctx.attempt == 1:
        report.failed += 1
        raise FailedOnPurposeError("this attempt fails on purpose; the next will not")
    report.done[payload.phase] += 1


@tasks.task("demo.hello")
async def hello(payload: Hello, ctx: WorkerContext[None]) -> None:
    """Greet whoever enqueued this job from another terminal."""
    name = "".join(character for character in payload.name if character.isprintable())[:_LONGEST_NAME]
    report.hellos.append(f"hello, {name} (job {ctx.job.id})")
