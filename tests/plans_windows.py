"""Samples for the statements of windows, for the tests that look at plans."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from backfill.storage.ties import PAGES

_NOW = datetime.now(UTC)
_IDS = list(range(1, 101))
SAMPLES: dict[str, Sequence[Any]] = {
    "complete_window": [_IDS],
    "claim_window": ["worker5", _IDS, [_NOW] * len(_IDS)],
    "complete_lost": [_IDS, ["(0,1)"] * len(_IDS), ["1"] * len(_IDS)],
}
HOT = tuple(SAMPLES)
"""What the express lines of a worker run, apart from looks."""
LOOKS = ("claim_parallel", "claim_parallel_tied", "hold_window", "hold_window_tied")
"""The looks for parallel jobs alone, which take their lanes' parameters: those of claims, and those of windows."""


def fronts(lows: list[int], highs: list[int], floors: list[str], page: int = 5) -> dict[str, list[Any]]:
    """What comes before their lane's own parameters.

    Args:
        lows: the lowest priorities of a look's spans.
        highs: the highest ones.
        floors: where the spans begin.
        page: where those begin that begin at a place of the table.
    """
    look: list[Any] = ["nobody", 100, [], lows, highs, floors, 10, 2**24]
    tie = [0, [_NOW, _NOW], f"({page},0)", f"({page + PAGES},0)"]
    return {name: [*look, *tie] if name.endswith("tied") else look for name in LOOKS}


def dead_samples(ids: list[int], times: list[datetime]) -> dict[str, Sequence[Any]]:
    """Parameters for jobs that are there, none of which has the version that is asked for."""
    return {
        "complete_window": [ids],
        "claim_window": ["worker5", ids, times],
        "complete_lost": [ids, ["(0,1)"] * len(ids), ["1"] * len(ids)],
    }
