"""Durations of the command line: what is written is read back, and any other text is refused."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backfill import ConfigurationError
from backfill.cli.common import duration
from backfill.cli.durations import read_duration, show_duration
from backfill.retry import format_duration


@given(st.timedeltas(timedelta(0), timedelta.max))
@example(timedelta(0))
@example(timedelta(microseconds=1))
@example(timedelta(microseconds=999_999))
@example(timedelta(hours=1, minutes=30))
@example(timedelta(seconds=1, microseconds=1))
@example(timedelta.max)
def test_a_duration_comes_back(span: timedelta) -> None:
    """Any duration is read as it was written, to the microsecond; and so is what a flag writes."""
    assert read_duration(show_duration(span)) == span
    assert read_duration(format_duration(span)) == span


@given(st.decimals(0, 999_999, places=6), st.sampled_from(["", "s"]))
def test_a_number_without_a_unit_means_seconds(number: Decimal, unit: str) -> None:
    """With a fraction or without one; exact to the microsecond."""
    read = read_duration(f"{number}{unit}")
    assert read / timedelta(microseconds=1) == int(number * 1_000_000)


@given(st.text(max_size=20) | st.from_regex(r"(\d{0,17}\.?\d{0,9}(ms|s|m|h|d|w)? ?){1,4}", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text does anything but give a duration, or the one error with the option, the value and examples."""
    try:
        read = duration(text, "--delay")
    except ConfigurationError as error:
        refusal = str(error)
    else:
        assert read >= timedelta(0)
        return
    assert refusal.startswith(f"--delay = {text!r}: expected a time such as 1h30m, 90s, 1.5s, 250ms or 2d")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400), ("90s", 90), ("1.5s", 1.5), ("250ms", 0.25), ("2d", 172_800), ("90", 90), ("0.5", 0.5),
        ("0", 0), ("1d2h3m4s5ms", 93_784.005), ("1h 30m", 5400), ("1.5h", 5400), ("1m500ms", 60.5),
    ],
)  # fmt: skip
def test_what_people_write(text: str, seconds: float) -> None:
    """Units from the largest to the smallest, with a space between or none."""
    assert read_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "30m1h", "1h1h", "-5s", "5 s", "5w", "5M", "1e3", "\u0663s", "1h30", "0.0000001s", "9" * 12 + "d",
     " 5s", "5s ", ".5s", "5.s", "1_0s", "inf", "nan"],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    """Another order, a unit twice, another unit, a sign, other scripts' digits, what is too fine or too long."""
    with pytest.raises(ConfigurationError, match="--delay = "):
        duration(text, "--delay")


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(0), "0s"), (timedelta(minutes=90), "1h30m"), (timedelta(seconds=90), "1m30s"),
        (timedelta(seconds=1.5), "1.5s"), (timedelta(milliseconds=250), "250ms"), (timedelta(days=2), "2d"),
        (timedelta(microseconds=1001), "1.001ms"), (timedelta(days=365), "365d"),
    ],
)  # fmt: skip
def test_what_is_written(span: timedelta, text: str) -> None:
    """Units that are zero are left out."""
    assert show_duration(span) == text
