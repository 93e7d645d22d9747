"""Express: what it gains where jobs are short, and what it may cost where they are not, and those beside it.

The other side is nearly always the same with the same jobs and without `express=True`. On both sides some thousands of
jobs run before the clock starts: only then do our workers trust the task and hold its jobs in windows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugins.away import MakeServer
from sides.backlog import migrated
from sides.latency import TASK, quantile, worker_delays
from sides.members import filled, fleet_rate, node_rate_beside, serial_rate_beside
from sides.node import node_rate
from sides.ours import mixed, worker_rate
from sides.queue import Queue
from sides.ratio import ROUNDS, Figure, compare
from sides.rust import built, rust_rate
from sides.server_costs import APART, worker_costs
from sides.standby import replicated

JOBS = 200_000
WARMING = 10_000
Record = Callable[[Figure], Figure]
pytestmark = pytest.mark.timeout(1200)


def _rate(dsn: str, jobs: int = JOBS, **worker: Any) -> float:
    return worker_rate(filled(dsn, WARMING + jobs), jobs, warming=WARMING, **worker)


def test_noop_jobs_in_one_process(dsn: str, record: Record, benchmark: Any) -> None:
    """At least 1.7 times as many jobs a second as without."""
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "express: no-op jobs, one process, against without",
                lambda: _rate(dsn, express=True),
                lambda: _rate(dsn),
            ),
            {"unit": "jobs/s", "wanted": 1.7},
        )
    )
    assert figure.holds, figure


@pytest.mark.parametrize(("processes", "wanted"), [(2, 2.0), (4, 0.97), (8, 0.97), (16, 0.97)])
def test_noop_jobs_in_several_processes(
    dsn: str, record: Record, benchmark: Any, processes: int, wanted: float
) -> None:
    """Twice as many in two processes; in large fleets, which walk over what the others hold, no fewer than without."""
    jobs = JOBS + processes * WARMING

    def side(*, express: bool) -> float:
        return asyncio.run(fleet_rate(filled(dsn, jobs), jobs, processes, express=express))

    figure = record(
        benchmark.pedantic(
            compare,
            (
                f"express: no-op jobs, {processes} processes, against without",
                lambda: side(express=True),
                lambda: side(express=False),
            ),
            {"unit": "jobs/s", "wanted": wanted},
        )
    )
    assert figure.holds, figure


def test_noop_jobs_against_rust(dsn: str, empty_dsn: str, record: Record, benchmark: Any) -> None:
    """At least twice the crate graphile_worker in one process, which may use every processor of the machine.

    It has a database of its own, since it adds tables to the schema.
    """
    program, theirs = built(), migrated(empty_dsn)
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "express: no-op jobs, one process, against the crate graphile_worker 0.13.9",
                lambda: _rate(dsn, express=True),
                lambda: rust_rate(filled(theirs, WARMING + JOBS), JOBS, program, warming=WARMING),
            ),
            {"unit": "jobs/s", "wanted": 2.0},
        )
    )
    assert figure.holds, figure


def test_noop_jobs_against_node(dsn: str, node_modules: Path, record: Record, benchmark: Any) -> None:
    """At least 3.5 times Node's graphile-worker in one process."""
    jobs = JOBS // 2
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "express: no-op jobs, one process, against Node's graphile-worker 0.17.3",
                lambda: _rate(dsn, jobs, express=True),
                lambda: node_rate(filled(dsn, WARMING + jobs), jobs, node_modules, warming=WARMING),
            ),
            {"unit": "jobs/s", "wanted": 3.5},
        )
    )
    assert figure.holds, figure


def test_costs_of_the_server(make_server: MakeServer, record: Record, benchmark: Any) -> None:
    """At most 0.45 of the backends' processor time a job, and half of the bytes of WAL."""
    dsn = migrated(make_server(settings=APART).dsn)
    seconds = Figure("express: processor time of the backends a job, against without", "µs", 0.45, less=True)
    wal = Figure("express: WAL a job without images of whole pages, against without", "bytes", 0.5, less=True)

    def measure() -> None:
        for number in range(ROUNDS):
            for express in (True, False) if number % 2 else (False, True):
                costs = worker_costs(filled(dsn, WARMING + JOBS), JOBS, warming=WARMING, express=express)
                for figure, cost in zip((seconds, wal), costs, strict=True):
                    (figure.ours if express else figure.theirs).append(cost)

    benchmark.pedantic(measure)
    figures = [record(seconds), record(wal)]
    assert all(figure.holds for figure in figures), figures


def test_nodes_worker_beside_it(dsn: str, node_modules: Path, record: Record, benchmark: Any) -> None:
    """Node's worker, which shares the jobs with one of our processes, gets at least 0.8 of what it gets without."""
    jobs = 2 * JOBS

    def side(*, express: bool) -> float:
        return asyncio.run(node_rate_beside(filled(dsn, jobs), jobs, node_modules, express=express))

    figure = record(
        benchmark.pedantic(
            compare,
            (
                "express: Node's worker beside one of our processes, against beside one without",
                lambda: side(express=True),
                lambda: side(express=False),
            ),
            {"unit": "jobs/s", "wanted": 0.8},
        )
    )
    assert figure.holds, figure


def test_serial_jobs_beside_it(dsn: str, record: Record, benchmark: Any) -> None:
    """Serial jobs of a worker beside run at least 0.8 as fast as beside the same without."""
    queues, each = 1_000, 20

    def side(*, express: bool) -> float:
        filled(dsn, 3 * JOBS, serial=(queues, each))
        return asyncio.run(serial_rate_beside(dsn, 3 * JOBS, queues * each, express=express))

    figure = record(
        benchmark.pedantic(
            compare,
            (
                "express: serial jobs of a process beside, against beside one without",
                lambda: side(express=True),
                lambda: side(express=False),
            ),
            {"unit": "jobs/s", "wanted": 0.8},
        )
    )
    assert figure.holds, figure


@pytest.mark.parametrize("slots", [100, 1_000])
def test_some_long_jobs_among_short_ones(dsn: str, record: Record, benchmark: Any, slots: int) -> None:
    """With 5 % of jobs of 100 ms it runs at least 0.95 as many: such a task is not trusted for long."""
    jobs = 200 * slots if slots < 1_000 else JOBS // 2
    figure = record(
        benchmark.pedantic(
            compare,
            (
                f"express: 5 % of jobs of 100 ms on {slots:,} slots, against without",
                lambda: _rate(dsn, jobs, handler=mixed, slots=slots, express=True),
                lambda: _rate(dsn, jobs, handler=mixed, slots=slots),
            ),
            {"unit": "jobs/s", "wanted": 0.95},
        )
    )
    assert figure.holds, figure


def test_with_a_synchronous_standby(make_server: MakeServer, record: Record, benchmark: Any) -> None:
    """At least 1.5 times as many jobs a second, where each commit waits for another server."""
    dsn = replicated(make_server)
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "express: no-op jobs, synchronous standby, against without",
                lambda: _rate(dsn, express=True),
                lambda: _rate(dsn),
            ),
            {"unit": "jobs/s", "wanted": 1.5},
        )
    )
    assert figure.holds, figure


def test_enqueue_to_start(dsn: str, record: Record, benchmark: Any) -> None:
    """Half of the jobs start in 0.9 of the time, since no commit stands before a start, and all but a hundredth no later."""
    half = Figure("express: enqueue to start on an idle worker, p50, against without", "ms", 0.9, less=True)
    most = Figure("express: enqueue to start on an idle worker, p99, against without", "ms", 1.0, less=True)

    def measure() -> None:
        for number in range(ROUNDS):
            for express in (True, False) if number % 2 else (False, True):
                Queue(dsn).empty(TASK)
                delays = worker_delays(dsn, warming=1_000, express=express)
                for figure, share in ((half, 0.5), (most, 0.99)):
                    (figure.ours if express else figure.theirs).append(quantile(delays, share))

    benchmark.pedantic(measure)
    figures = [record(half), record(most)]
    assert all(figure.holds for figure in figures), figures
