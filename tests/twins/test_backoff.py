"""Delays with jitter: the native form against its Python twin, and the rules that both keep."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import ConfigurationError
from backfill._native import backoff_delay, backoff_delays

from twins.python_backoff import backoff_delay as python_delay

_seconds = st.floats(0, 1e9)
_attempts = st.integers(0, 2**32 - 1) | st.integers(0, 40)
_policies = st.tuples(_seconds, _seconds, st.floats(1, 100), st.floats(0, 1))
_any_number = st.floats() | st.integers(-3, 3).map(float)


@given(_attempts, st.tuples(_any_number, _any_number, _any_number, _any_number, _any_number))
def test_any_numbers_give_the_same_delay_or_are_refused(attempt: int, numbers: tuple[float, ...]) -> None:
    """Whatever floats there are, infinite and not-a-number too: the twins agree, or both refuse."""
    try:
        expected = python_delay(attempt, *numbers)
    except ValueError:
        with pytest.raises(ConfigurationError):
            backoff_delay(attempt, *numbers)
    else:
        assert math.isclose(backoff_delay(attempt, *numbers), expected, rel_tol=1e-12)


@given(_attempts, _policies, st.floats(0, 1))
def test_a_delay_keeps_its_bounds(attempt: int, policy: tuple[float, float, float, float], unit: float) -> None:
    """It is never negative, never over the maximum, and within the jitter of what it would be without."""
    _, maximum, _, jitter = policy
    plain = backoff_delay(attempt, *policy[:3], 0.0, unit)
    drawn = backoff_delay(attempt, *policy, unit)
    assert 0 <= drawn <= maximum
    assert drawn >= plain * (1 - jitter) * (1 - 1e-12)
    assert drawn <= plain * (1 + jitter) * (1 + 1e-12)


@given(st.integers(1, 60), _policies)
def test_delays_grow(attempt: int, policy: tuple[float, float, float, float]) -> None:
    """Without jitter the next delay is never shorter."""
    assert backoff_delay(attempt, *policy[:3], 0.0, 0.5) <= backoff_delay(attempt + 1, *policy[:3], 0.0, 0.5)


@given(st.lists(_attempts, max_size=20), _policies, st.integers(0, 2**64 - 1))
def test_many_delays_are_like_one(attempts: list[int], policy: tuple[float, float, float, float], seed: int) -> None:
    """Each of many delays could have been drawn alone; a seed repeats them all."""
    delays = backoff_delays(attempts, *policy, seed=seed)
    assert delays == backoff_delays(attempts, *policy, seed=seed)
    for attempt, delay in zip(attempts, delays, strict=True):
        low, high = (backoff_delay(attempt, *policy, unit) for unit in (0.0, 1.0))
        assert low * (1 - 1e-12) <= delay <= high * (1 + 1e-12)


class _Odd:
    """A number with a mind of its own: it empties the list that it is in when it is read."""

    def __index__(self) -> int:
        _LISTED.clear()
        return 3


_LISTED: list[Any] = []


@given(st.lists(_attempts, max_size=80), _policies, st.integers(0, 2**64 - 1))
def test_what_holds_the_attempts_does_not_matter(
    attempts: list[int], policy: tuple[float, float, float, float], seed: int
) -> None:
    """A list, whose numbers are remembered by their objects, a tuple, and integers of a class of their own.

    All give the same delays.
    """
    listed = backoff_delays(attempts, *policy, seed=seed)
    assert listed == backoff_delays(tuple(attempts), *policy, seed=seed)
    assert listed == backoff_delays([_Other(attempt) for attempt in attempts], *policy, seed=seed)


class _Other(int):
    """An integer that is no plain one."""


def test_a_list_that_changes_while_it_is_read() -> None:
    """The delays of what was there; nothing is read that is gone."""
    _LISTED[:] = [1, 2, _Odd(), 7, 9]
    delays = backoff_delays(_LISTED, 1.0, 100.0, 2.0, 0.0)
    assert delays.tolist()[:2] == [1.0, 2.0]
    assert len(delays) <= 5


@pytest.mark.parametrize("attempts", [[1, -1], [2**32], ["1"], [1.5], [None], None, 7, (1, "x")])
def test_many_attempts_are_whole_numbers(attempts: Any) -> None:
    """Anything else is Python's own error, and no panic."""
    with pytest.raises((TypeError, OverflowError)):
        backoff_delays(attempts, 1.0, 1.0, 2.0, 0.1)


def test_jitter_spreads() -> None:
    """A thousand delays of one policy fill its range evenly enough, and differ without a seed."""
    delays = backoff_delays([1] * 1000, 100.0, 1000.0, 2.0, 0.5)
    assert min(delays) < 60
    assert max(delays) > 140
    assert 95 < sum(delays) / 1000 < 105
    assert delays != backoff_delays([1] * 1000, 100.0, 1000.0, 2.0, 0.5)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((1, -1.0, 1.0, 2.0, 0.1, 0.5), "initial = -1.0"),
        ((1, 1.0, math.inf, 2.0, 0.1, 0.5), "maximum = inf"),
        ((1, 1.0, 1.0, 0.5, 0.1, 0.5), "multiplier = 0.5"),
        ((1, 1.0, 1.0, 2.0, math.nan, 0.5), "jitter = NaN"),
        ((1, 1.0, 1.0, 2.0, 0.1, 1.5), "unit = 1.5"),
    ],
)
def test_a_refusal_names_field_and_value(values: Any, named: str) -> None:
    """What cannot be computed is refused by name."""
    with pytest.raises(ConfigurationError, match=named):
        backoff_delay(*values)


@pytest.mark.parametrize("attempt", [-1, 2**32, "1", 1.5, None])
def test_an_attempt_is_a_whole_number(attempt: Any) -> None:
    """Anything else is Python's own error, and no panic."""
    with pytest.raises((TypeError, OverflowError)):
        backoff_delay(attempt, 1.0, 1.0, 2.0, 0.1, 0.5)
