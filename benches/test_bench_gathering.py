"""Single enqueues that arrive together, against the same without gathering, and against the driver's own call of add_jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sides.gathering import bare_wait, crowd_rate, crowd_wait, lone_rate
from sides.ratio import Figure, compare

Record = Callable[[Figure], Figure]


def test_a_crowd_against_no_gathering(dsn: str, record: Record, benchmark: Any) -> None:
    """64 coroutines over one connection add at least 5 times as many jobs a second as without gathering."""
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "64 single enqueues at once, against gather=False",
                lambda: crowd_rate(dsn, gather=True),
                lambda: crowd_rate(dsn, gather=False),
            ),
            {"unit": "jobs/s", "wanted": 5},
        )
    )
    assert figure.holds, figure


def test_a_crowds_wait_against_a_bare_call(dsn: str, record: Record, benchmark: Any) -> None:
    """Each of them waits at most twice as long as the driver's own call of add_jobs takes for 64 rows."""
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "wait of one of 64 single enqueues, against a bare add_jobs of 64",
                lambda: crowd_wait(dsn),
                lambda: bare_wait(dsn),
            ),
            {"unit": "ms", "wanted": 2, "less": True, "rounds": 9},
        )
    )
    assert figure.holds, figure


def test_a_lone_coroutine_against_no_gathering(dsn: str, record: Record, benchmark: Any) -> None:
    """One coroutine alone adds at least 0.95 as many as without gathering."""
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "single enqueues of one coroutine, against gather=False",
                lambda: lone_rate(dsn, gather=True),
                lambda: lone_rate(dsn, gather=False),
            ),
            {"unit": "jobs/s", "wanted": 0.95, "rounds": 21},
        )
    )
    assert figure.holds, figure
