"""An old snapshot: claims must not become dearer with the jobs that have passed since it was taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sides.queue import Queue
from sides.ratio import Figure
from sides.snapshot import TASK, Turns, under_a_snapshot

Record = Callable[[Figure], Figure]
ROUNDS = 3
pytestmark = pytest.mark.timeout(1800)


def _rounds(dsn: str, jobs: int) -> list[Turns]:
    """The same again from an empty table."""
    found = []
    for _ in range(ROUNDS):
        Queue(dsn).empty(TASK)
        found.append(under_a_snapshot(dsn, jobs))
    return found


@pytest.mark.parametrize("jobs", [100_000, pytest.param(500_000, marks=pytest.mark.long)])
def test_claims_under_an_old_snapshot(dsn: str, record: Record, benchmark: Any, jobs: int) -> None:
    """A claim of 500 costs at the end at most twice the first ones; looks from the start take a twentieth of the time."""
    rounds = benchmark.pedantic(_rounds, (dsn, jobs))
    cost = Figure(
        f"a claim of 500 after {jobs:,} jobs under an old snapshot, against the first ones", "ms", 2.0, less=True
    )
    share = Figure(
        f"looks from the start while {jobs:,} jobs pass under it, against all the time", "s", 0.05, less=True
    )
    for turns in rounds:
        cost.ours.append(turns.tenth(last=True))
        cost.theirs.append(turns.tenth(last=False))
        share.ours.append(turns.full)
        share.theirs.append(turns.whole)
    assert record(cost).holds, cost
    assert record(share).holds, share
