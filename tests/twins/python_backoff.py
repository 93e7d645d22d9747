"""The Python twin of native/src/backoff.rs."""

from __future__ import annotations


def backoff_delay(attempt: int, initial: float, maximum: float, multiplier: float, jitter: float, unit: float) -> float:
    """`min(maximum, initial * multiplier ** (attempt - 1))`, moved by up to `jitter` of it each way."""
    if not (0 <= initial < float("inf") and 0 <= maximum < float("inf") and 1 <= multiplier < float("inf")):
        raise ValueError("initial, maximum or multiplier")
    if not (0 <= jitter <= 1 and 0 <= unit <= 1):
        raise ValueError("jitter or unit")
    try:
        grown = initial * multiplier ** float(max(attempt, 1) - 1)
    except OverflowError:
        grown = float("inf") if initial else 0.0
    base = min(grown, maximum)
    drawn = base + base * jitter * (2 * unit - 1)
    return min(max(drawn, 0.0), maximum)
