"""Idle limits: what many limited tasks without jobs, or with open breakers, cost the jobs of other tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sides.backlog import OWN, migrated
from sides.idle_limits import LIMITED, bulk_round, open_breakers, trickle_round
from sides.queue import Queue
from sides.ratio import Figure, compare

TASKS = 200
Record = Callable[[Figure], Figure]
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("jobs", ["one by one", "a backlog"])
@pytest.mark.parametrize("held", ["idle limits", "open breakers"])
def test_jobs_beside_many_limited_tasks(
    dsn: str, empty_dsn: str, record: Record, benchmark: Any, held: str, jobs: str
) -> None:
    """Jobs without a limit run at 0.8 at least of the rate that they have where no other task is known."""
    clear = migrated(empty_dsn)
    Queue(dsn).empty(OWN, *[f"{LIMITED}{number}" for number in range(TASKS)])
    Queue(clear).empty(OWN)
    if held == "open breakers":
        open_breakers(dsn, TASKS)
    make, number = (trickle_round, 300) if jobs == "one by one" else (bulk_round, 40_000)
    figure = record(
        benchmark.pedantic(
            compare,
            (
                f"{number:,} jobs without a limit ({jobs}) beside {TASKS} {held}, against none",
                make(dsn, TASKS, number, limit=held == "idle limits"),
                make(clear, 0, number),
            ),
            {"unit": "jobs/s", "wanted": 0.8, "rounds": 5},
        )
    )
    assert figure.holds, figure
