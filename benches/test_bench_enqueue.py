"""Enqueue: jobs a second that a producer adds, in bulk against a bare COPY and singly against a bare INSERT."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from backfill import BackfillClient

from sides.producers import bulk_rate, by_name, by_task, copy_rate, insert_rate, single_rate
from sides.ratio import Figure, compare

Record = Callable[[Figure], Figure]


@pytest.mark.parametrize("format", ["text", "binary"])
@pytest.mark.parametrize("call", [by_name, by_task])
def test_bulk_against_a_bare_copy(
    dsn: str, record: Record, benchmark: Any, call: Callable[[BackfillClient], Awaitable[None]], format: str
) -> None:
    """At least 0.85 of COPY's own rate, in whichever of its formats: what is made of each job costs next to nothing."""
    figure = record(
        benchmark.pedantic(
            compare,
            (
                f"bulk enqueue {call.__name__.replace('_', ' ')}, against a bare COPY in {format}",
                lambda: bulk_rate(dsn, call),
                lambda: copy_rate(dsn, format),
            ),
            {"unit": "jobs/s", "wanted": 0.85, "rounds": 7},
        )
    )
    assert figure.holds, figure


def test_single_against_a_bare_insert(dsn: str, record: Record, benchmark: Any) -> None:
    """At least 0.8 of a prepared INSERT with its notification, on the same driver."""
    figure = record(
        benchmark.pedantic(
            compare,
            ("single enqueue, against a bare INSERT", lambda: single_rate(dsn), lambda: insert_rate(dsn)),
            {"unit": "jobs/s", "wanted": 0.8, "rounds": 21},
        )
    )
    assert figure.holds, figure
