"""Backlogs: how fast a worker runs its own jobs behind those that it cannot run, against a queue without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backfill import QueueConfig

from sides.backlog import OTHER, OWN, Round, block, migrated, name_queues, parallel_round, pause, serial_round
from sides.queue import Queue
from sides.ratio import Figure, compare

JOBS = 20_000
MANY = 100_000
MILLION = 1_000_000
Record = Callable[[Figure], Figure]
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def filled(dsn: str) -> str:
    """The database whose queue has something in the worker's way, filled by each test once."""
    Queue(dsn).empty(OWN, OTHER)
    return dsn


@pytest.fixture
def clear(empty_dsn: str) -> str:
    """The other side's database."""
    Queue(migrated(empty_dsn)).empty(OWN, OTHER)
    return empty_dsn


@pytest.mark.parametrize("queues", [10, 5_000])
def test_parallel_jobs_behind_blocked_ones(
    filled: str, clear: str, record: Record, benchmark: Any, queues: int
) -> None:
    """Serial jobs whose queues others hold cost the parallel ones behind them next to nothing."""
    block(filled, queues, 100_000 // queues)
    figure = record(
        benchmark.pedantic(
            compare,
            (
                f"20,000 parallel jobs behind 100,000 blocked ones in {queues:,} queues, against without",
                parallel_round(filled, JOBS),
                parallel_round(clear, JOBS),
            ),
            {"unit": "jobs/s", "wanted": 0.85, "rounds": 7},
        )
    )
    assert figure.holds, figure


@pytest.mark.parametrize("kind", ["parallel", "serial"])
@pytest.mark.parametrize("queues", [1, 1_000, 20_000])
def test_jobs_behind_paused_queues(
    filled: str, clear: str, record: Record, benchmark: Any, queues: int, kind: str
) -> None:
    """Jobs whose queues are paused cost the jobs behind them next to nothing, whichever these are."""
    pause(filled, queues, 100_000 // queues)

    def side(dsn: str) -> Round:
        return parallel_round(dsn, JOBS) if kind == "parallel" else serial_round(dsn, JOBS // 10, 10)

    figure = record(
        benchmark.pedantic(
            compare,
            (
                f"20,000 {kind} jobs behind 100,000 in {queues:,} paused queues, against without",
                side(filled),
                side(clear),
            ),
            {"unit": "jobs/s", "wanted": 0.8, "rounds": 7},
        )
    )
    assert figure.holds, figure


@pytest.mark.parametrize(("queues", "wanted"), [(0, 0.25), (10, 0.08), (5_000, 0.08)])
def test_free_queues(filled: str, clear: str, record: Record, benchmark: Any, queues: int, wanted: float) -> None:
    """Jobs of many free queues, alone and with blocked ones ahead, against as many parallel jobs."""
    if queues:
        block(filled, queues, 100_000 // queues)
    behind = f" behind 100,000 blocked jobs in {queues:,} queues" if queues else ""
    figure = record(
        benchmark.pedantic(
            compare,
            (
                f"20,000 free queues of 2 jobs{behind}, against 40,000 parallel jobs",
                serial_round(filled, JOBS, 2),
                parallel_round(clear, 2 * JOBS),
            ),
            {"unit": "jobs/s", "wanted": wanted},
        )
    )
    assert figure.holds, figure


def test_a_million_jobs_of_another_task(filled: str, clear: str, record: Record, benchmark: Any) -> None:
    """Jobs that only other workers know lie ahead: they are read at the start, and a twentieth of the time at most then."""
    Queue(filled).parallel(OTHER, MILLION)
    figure = record(
        benchmark.pedantic(
            compare,
            (
                f"{MANY:,} jobs behind 1 million of a task not ours, against without",
                parallel_round(filled, MANY),
                parallel_round(clear, MANY),
            ),
            {"unit": "jobs/s", "wanted": 0.7},
        )
    )
    assert figure.holds, figure


def test_a_million_jobs_of_a_full_lane(filled: str, clear: str, record: Record, benchmark: Any) -> None:
    """The same with jobs that are for another lane of this worker, which has no slot free."""
    Queue(filled).parallel(OTHER, MILLION)
    Queue(clear).parallel(OTHER, 1)
    lanes = [QueueConfig("stuck", 1, tasks=OTHER), QueueConfig.default_queue(100)]
    figure = record(
        benchmark.pedantic(
            compare,
            (
                f"{MANY:,} jobs behind 1 million of a full lane, against without",
                parallel_round(filled, MANY, lanes=lanes, stuck=True),
                parallel_round(clear, MANY, lanes=lanes, stuck=True),
            ),
            {"unit": "jobs/s", "wanted": 0.7},
        )
    )
    assert figure.holds, figure


def test_a_million_names(filled: str, clear: str, record: Record, benchmark: Any) -> None:
    """Queues' names stay in their table for ever: a worker does not read them."""
    name_queues(filled, MILLION)
    figure = record(
        benchmark.pedantic(
            compare,
            (
                f"{MANY:,} parallel jobs beside 1 million queues' names, against without",
                parallel_round(filled, MANY),
                parallel_round(clear, MANY),
            ),
            {"unit": "jobs/s", "wanted": 0.9},
        )
    )
    assert figure.holds, figure
