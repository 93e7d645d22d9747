"""Retry policies: the presets' numbers, the ranges, and the words of flags."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from backfill import ConfigurationError, RetryPolicy
from backfill.retry import format_duration, parse_duration


@pytest.mark.parametrize(
    ("preset", "numbers"),
    [
        (RetryPolicy.default(), (8, 1.0, 300.0, 2.0, 0.1)),
        (RetryPolicy.fast(), (3, 0.1, 30.0, 2.0, 0.1)),
        (RetryPolicy.aggressive(), (12, 0.5, 600.0, 1.5, 0.15)),
        (RetryPolicy.conservative(), (5, 5.0, 1800.0, 2.5, 0.2)),
    ],
)
def test_presets(preset: RetryPolicy, numbers: tuple[float, ...]) -> None:
    """Each preset has the numbers that its documentation promises."""
    assert numbers == (
        preset.max_attempts,
        preset.initial_delay.total_seconds(),
        preset.max_delay.total_seconds(),
        preset.backoff_multiplier,
        preset.jitter_factor,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 32_768),
        ("max_attempts", True),
        ("max_attempts", 2.0),
        ("initial_delay", timedelta(microseconds=-1)),
        ("initial_delay", timedelta(minutes=5, microseconds=1)),
        ("initial_delay", 1),
        ("max_delay", timedelta(days=366, microseconds=1)),
        ("max_delay", "5m"),
        ("backoff_multiplier", 0.999),
        ("backoff_multiplier", 1000.1),
        ("backoff_multiplier", math.nan),
        ("backoff_multiplier", "2"),
        ("jitter_factor", -0.01),
        ("jitter_factor", 1.01),
        ("jitter_factor", math.inf),
        ("jitter_factor", True),
    ],
)
def test_bad_numbers_are_refused(field: str, value: object) -> None:
    """A number out of range is refused, and named."""
    with pytest.raises(ConfigurationError, match=f"^{field} = "):
        RetryPolicy(**{field: value})  # type: ignore[arg-type]


def test_should_retry_counts_the_first_run() -> None:
    """max_attempts counts all runs: of 3, the first and the second are followed by another."""
    assert [RetryPolicy.fast().should_retry(attempt) for attempt in (1, 2, 3, 4)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("policy", "flag"),
    [
        (RetryPolicy.default(), "backfill.retry:default"),
        (RetryPolicy.fast(), "backfill.retry:fast"),
        (RetryPolicy.aggressive(), "backfill.retry:aggressive"),
        (RetryPolicy.conservative(), "backfill.retry:conservative"),
        (RetryPolicy(99, timedelta(milliseconds=100), timedelta(seconds=30), 2.0, 0.1), "backfill.retry:fast"),
        (RetryPolicy(5, timedelta(seconds=90), timedelta(hours=2), 3, 0), "backfill.retry:90s,2h,3.0,0.0"),
    ],
)
def test_flags(policy: RetryPolicy, flag: str) -> None:
    """A policy's flag names a preset where the timing is one's, whatever the number of runs."""
    assert policy.to_flag() == flag


@pytest.mark.parametrize(
    "flag",
    [
        "",
        "slow",
        "1s,2s,3",
        "1s,2s,3,4,5",
        "1,2,3,4",
        "1s,2s,2.0,1.5",
        "1s,2s,-2.0,0.1",
        "1s,2s,nan,0.1",
        "2s,1s,2.0,0.1",
    ],
)
def test_bad_flags_are_refused(flag: str) -> None:
    """A flag of ours that cannot be read is one clear error."""
    with pytest.raises(ConfigurationError):
        RetryPolicy.from_flag(f"backfill.retry:{flag}")


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("100ms", timedelta(milliseconds=100)),
        ("30s", timedelta(seconds=30)),
        ("1.5m", timedelta(seconds=90)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
        ("0.001ms", timedelta(microseconds=1)),
    ],
)
def test_durations_are_read(text: str, duration: timedelta) -> None:
    """Every unit is read, with fractions too."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(milliseconds=1500), "1500ms"),
        (timedelta(seconds=90), "90s"),
        (timedelta(hours=48), "2d"),
        (timedelta(microseconds=1001), "1.001ms"),
    ],
)
def test_durations_are_written(duration: timedelta, text: str) -> None:
    """The largest unit that leaves no fraction is used."""
    assert format_duration(duration) == text


@pytest.mark.parametrize("text", ["", "5", "-5s", "5 s", "5w", "5S", "1e3s", "٣s", "99999999999999d"])
def test_bad_durations_are_refused(text: str) -> None:
    """Anything else is refused by name."""
    with pytest.raises(ConfigurationError, match="duration = "):
        parse_duration(text)
