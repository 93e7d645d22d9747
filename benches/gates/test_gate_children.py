"""Gates on what calls in child processes cost, against bare processes in the same run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sides.children import bare_rate, pooled_rate, trip_microseconds
from sides.ratio import Side, compare


@pytest.fixture
def trips() -> Iterator[tuple[Side, Side]]:
    """Both sides of a round trip."""
    pooled, bare, close = trip_microseconds(500)
    yield pooled, bare
    close()


def test_a_call_that_does_nothing(trips: tuple[Side, Side]) -> None:
    """A call in a child costs at most 0.4 of one in a process of the standard library's pool."""
    pooled, standard = trips
    figure = compare(
        "a call in a child, against the standard library's pool", pooled, standard, unit="µs", wanted=0.4, less=True,
        rounds=21,
    )  # fmt: skip
    print(f"\n{figure}")
    assert figure.holds, figure


def test_calls_that_compute() -> None:
    """Calls of 20 ms on two children reach 0.85 of the rate of two bare processes."""
    figure = compare(
        "calls of 20 ms of computing on 2 children, against 2 bare processes",
        lambda: pooled_rate(50, 0.02),
        lambda: bare_rate(50, 0.02),
        unit="calls/s",
        wanted=0.85,
    )
    print(f"\n{figure}")
    assert figure.holds, figure
