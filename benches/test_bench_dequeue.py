"""Dequeue: jobs a second that one worker process runs, against the bare loop and against Node's worker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backfill import RetryPolicy

from sides.bare import bare_rate
from sides.node import node_rate
from sides.ours import TenthFails, echo, short, worker_rate
from sides.queue import Queue
from sides.ratio import Figure, compare
from sides.slots import slots_rate

JOBS = 100_000
Record = Callable[[Figure], Figure]


@pytest.fixture
def queue(dsn: str) -> Queue:
    """The queue of a database of its own."""
    return Queue(dsn)


def _filled(queue: Queue, jobs: int) -> str:
    queue.empty("noop")
    queue.parallel("noop", jobs)
    queue.settle()
    return queue.dsn


def test_noop_jobs_against_the_bare_loop(queue: Queue, record: Record, benchmark: Any) -> None:
    """At least 0.8 of what two connections can claim and delete."""
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "no-op jobs, one process, against the bare loop",
                lambda: worker_rate(_filled(queue, JOBS), JOBS),
                lambda: bare_rate(_filled(queue, JOBS), "noop", JOBS),
            ),
            {"unit": "jobs/s", "wanted": 0.8},
        )
    )
    assert figure.holds, figure


def test_noop_jobs_against_node(queue: Queue, node_modules: Path, record: Record, benchmark: Any) -> None:
    """At least twice Node's graphile-worker in one process, with its local queue and batched completion."""
    jobs = JOBS // 2
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "no-op jobs, one process, against Node's graphile-worker 0.17.3",
                lambda: worker_rate(_filled(queue, jobs), jobs),
                lambda: node_rate(_filled(queue, jobs), jobs, node_modules),
            ),
            {"unit": "jobs/s", "wanted": 2.0},
        )
    )
    assert figure.holds, figure


@pytest.mark.parametrize(("slots", "wanted"), [(4, 0.85), (16, 0.85), (64, 0.7)])
def test_short_jobs_fill_their_slots(queue: Queue, record: Record, benchmark: Any, slots: int, wanted: float) -> None:
    """Jobs of a millisecond keep the slots busy: what the same handlers do without a queue is the other side."""
    jobs = slots * 2_000
    figure = record(
        benchmark.pedantic(
            compare,
            (
                f"1 ms jobs on {slots} slots, against the slots alone",
                lambda: worker_rate(_filled(queue, jobs), jobs, handler=short, slots=slots, settled=False),
                lambda: slots_rate(short, jobs, slots),
            ),
            {"unit": "jobs/s", "wanted": wanted},
        )
    )
    assert figure.holds, figure


def test_failing_jobs_against_none_that_fail(queue: Queue, record: Record, benchmark: Any) -> None:
    """At least 0.7 of the rate without failures, where every tenth job fails once and is due again at once."""
    at_once = RetryPolicy(initial_delay=timedelta(0), max_delay=timedelta(0))
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "every tenth job fails once, against none",
                lambda: worker_rate(
                    _filled(queue, JOBS), JOBS, handler=TenthFails(), runs=JOBS + JOBS // 10, retry=at_once
                ),
                lambda: worker_rate(_filled(queue, JOBS), JOBS),
            ),
            {"unit": "jobs/s", "wanted": 0.7},
        )
    )
    assert figure.holds, figure


def test_kept_ends_against_none(queue: Queue, record: Record, benchmark: Any) -> None:
    """At least 0.6 of the rate of jobs that leave nothing, where each job's end and its result are kept."""
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "jobs whose ends and results are kept, against none",
                lambda: worker_rate(_filled(queue, JOBS), JOBS, handler=echo, keep=timedelta(days=1)),
                lambda: worker_rate(_filled(queue, JOBS), JOBS, handler=echo),
            ),
            {"unit": "jobs/s", "wanted": 0.6},
        )
    )
    assert figure.holds, figure
