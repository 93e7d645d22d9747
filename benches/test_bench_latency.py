"""Latency: how long after its enqueueing a job starts on an idle worker, against a bare notification and a claim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sides.latency import TASK, bare_delays, quantile, worker_delays
from sides.queue import Queue
from sides.ratio import ROUNDS, Figure

Record = Callable[[Figure], Figure]


def _measured(dsn: str) -> tuple[list[list[float]], list[list[float]]]:
    """Rounds of both sides, in turn."""
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for number in range(ROUNDS):
        for side in (0, 1) if number % 2 else (1, 0):
            Queue(dsn).empty(TASK)
            if side:
                theirs.append(bare_delays(dsn))
            else:
                ours.append(worker_delays(dsn))
    return ours, theirs


def test_enqueue_to_start(dsn: str, record: Record, benchmark: Any) -> None:
    """Half of the jobs, and all but a hundredth, start within twice what the bare way takes."""
    ours, theirs = benchmark.pedantic(_measured, (dsn,))
    figures = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        figure = Figure(f"enqueue to start on an idle worker, {name}", "ms", 2.0, less=True)
        figure.ours += [quantile(delays, share) for delays in ours]
        figure.theirs += [quantile(delays, share) for delays in theirs]
        figures.append(record(figure))
    assert all(figure.holds for figure in figures), figures
