"""Counters as they are written and folded: a worker's counts of a minute, and how long counts of each span are kept.

A worker writes the totals of its own minutes, and never a difference. So a flush whose answer was lost may be repeated,
in any order, and nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypedDict

import orjson

FOLDS: Final = (("minute", "hour", True, 2), ("hour", "day", False, 60))
"""Each fold: from which span to which, whether workers are kept apart in the latter, and after how many days."""
KEPT_DAYS: Final = 730
FOLD_BATCH: Final = 5_000


class MinuteCounts(TypedDict):
    """What a worker has counted of a task in a minute, up to now.

    Attributes:
        minute: minutes since 1970-01-01 UTC.
        task: the task's identifier.
        wait: a histogram, without empty buckets at its end.
        run: a histogram, too, written like `wait`.
    """

    minute: int
    task: str
    done: int
    failed: int
    retried: int
    dead: int
    snoozed: int
    discarded: int
    given_back: int
    wait_seconds: float
    run_seconds: float
    wait: list[int]
    run: list[int]


def counts_json(counts: Sequence[MinuteCounts]) -> str:
    """Counts as the JSON text that `write_counters` takes."""
    return orjson.dumps(counts).decode()
