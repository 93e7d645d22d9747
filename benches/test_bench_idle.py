"""An idle worker asks little of the server and of the machine, and a busy one's memory stays where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sides.idle import TASK, Idle, idle_worker, memory
from sides.queue import Queue
from sides.ratio import Figure

Record = Callable[[Figure], Figure]
ROUNDS = 3
SECONDS = 30.0
pytestmark = pytest.mark.timeout(2400)


def test_an_idle_worker(dsn: str, record: Record, benchmark: Any) -> None:
    """A worker that listens and has nothing to do sends at most 2 statements a second and takes under 0.5 % of a core."""

    def rounds() -> list[Idle]:
        return [idle_worker(dsn, SECONDS) for _ in range(ROUNDS)]

    found = benchmark.pedantic(rounds)
    statements = Figure("statements of an idle worker, against seconds", "statements, s", 2.0, less=True)
    cpu = Figure("processor time of an idle worker, against all the time", "s", 0.005, less=True)
    for idle in found:
        statements.ours.append(idle.statements)
        cpu.ours.append(idle.cpu)
        for figure in (statements, cpu):
            figure.theirs.append(idle.seconds)
    assert all([record(statements).holds, record(cpu).holds]), found


@pytest.mark.parametrize("jobs", [300_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_memory_stays_flat(dsn: str, record: Record, benchmark: Any, jobs: int) -> None:
    """A process holds at the end of many jobs at most a twentieth more than after a third of them."""

    def rounds() -> list[tuple[float, float]]:
        found = []
        for _ in range(ROUNDS):
            queue = Queue(dsn)
            queue.empty(TASK)
            queue.parallel(TASK, jobs)
            queue.settle()
            found.append(memory(dsn, jobs))
        return found

    figure = Figure(f"memory of a worker after {jobs:,} jobs, against after a third of them", "MB", 1.05, less=True)
    for third, end in benchmark.pedantic(rounds):
        figure.ours.append(end)
        figure.theirs.append(third)
    assert record(figure).holds, figure
