"""A histogram of durations whose buckets grow by a twentieth: small to send, easy to add, exact to 5 per cent."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

_GROWTH: Final = math.log(1.05)
_UNIT: Final = 1e-5
"""The first bucket ends at 10 microseconds."""


class Histogram:
    """Counts of durations by bucket."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()

    def __len__(self) -> int:
        """How many durations were added."""
        return self.counts.total()

    def add(self, seconds: float) -> None:
        """Count a duration; a negative one, as clocks differ a little, counts as 0."""
        self.counts[0 if seconds <= _UNIT else math.ceil(math.log(seconds / _UNIT) / _GROWTH)] += 1

    def merge(self, counts: dict[str, int]) -> None:
        """Add the counts of another process, whose keys are texts since they came as JSON."""
        for bucket, count in counts.items():
            self.counts[int(bucket)] += count

    def quantile(self, share: float) -> float | None:
        """The duration in seconds that this share of all does not exceed, rounded up to its bucket; None if empty."""
        rank = math.ceil(share * len(self))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return _UNIT * math.exp(bucket * _GROWTH)
        return None
