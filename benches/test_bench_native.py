"""The native module: against the driver where it does the driver's work, else against its own twins in plain Python."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backfill._native import backoff_delay, backoff_delays, pack_array

from sides.calls import call_rate
from sides.decode import Claimed
from sides.ratio import Figure, compare
from twins import python_arrays, python_backoff

Record = Callable[[Figure], Figure]
POLICY = (0.5, 300.0, 2.0, 0.1)


@pytest.fixture
def claimed(server_dsn: str) -> Iterator[Claimed]:
    """A result of 500 rows, fetched once."""
    rows = Claimed(server_dsn)
    yield rows
    rows.close()


def test_decoding_against_the_driver(claimed: Claimed, record: Record, benchmark: Any) -> None:
    """500 claimed rows become jobs at least 15 times as fast as the driver loads them; payloads stay bytes until asked for."""
    figure = record(
        benchmark.pedantic(
            compare,
            ("decoding of 500 rows, against psycopg's own loading", claimed.native_rate, claimed.driver_rate),
            {"unit": "rows/s", "wanted": 15, "rounds": 7},
        )
    )
    assert figure.holds, figure


def test_packing_against_its_twin(record: Record, benchmark: Any) -> None:
    """An array of 500 ids is packed at least 5 times as fast as Python packs it."""
    ids = list(range(10**9, 10**9 + 500))
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "packing of 500 ids, against its twin",
                call_rate(lambda: pack_array(ids, "int8"), 5_000),
                call_rate(lambda: python_arrays.pack_array(ids, "int8"), 500),
            ),
            {"unit": "arrays/s", "wanted": 5, "rounds": 7},
        )
    )
    assert figure.holds, figure


def test_one_delay_against_its_twin(record: Record, benchmark: Any) -> None:
    """One delay costs no more than in Python, the way across the boundary included."""
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "one delay with jitter, against its twin",
                call_rate(lambda: backoff_delay(3, *POLICY, 0.7), 50_000),
                call_rate(lambda: python_backoff.backoff_delay(3, *POLICY, 0.7), 50_000),
            ),
            {"unit": "delays/s", "wanted": 1, "rounds": 7},
        )
    )
    assert figure.holds, figure


def test_many_delays_against_the_twin(record: Record, benchmark: Any) -> None:
    """500 delays at once, drawn and computed, take at most a fiftieth of what Python takes for them."""
    attempts = [1 + number % 20 for number in range(500)]
    draw = random.Random(7).random
    figure = record(
        benchmark.pedantic(
            compare,
            (
                "500 delays with jitter, against the twin",
                call_rate(lambda: backoff_delays(attempts, *POLICY), 2_000),
                call_rate(lambda: [python_backoff.backoff_delay(n, *POLICY, draw()) for n in attempts], 200),
            ),
            {"unit": "calls/s", "wanted": 50, "rounds": 7},
        )
    )
    assert figure.holds, figure
