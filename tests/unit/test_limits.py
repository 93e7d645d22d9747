"""Limits and rates: which values are refused, and their form as JSON."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from backfill import ConfigurationError, Limit, Rate
from backfill.limits import checked, from_json, to_json

BAD: list[tuple[str, Any]] = [
    ("limit = 0: expected an int from 1 to 1000000; to run none, pause the task", lambda: Limit(0)),
    ("limit = True: expected an int", lambda: Limit(True)),
    ("limit = '4': expected an int", lambda: Limit("4")),  # type: ignore[arg-type]
    ("limit.by = '': 1 to 128 characters, not 0", lambda: Limit(1, "")),
    ("limit.by = 'a..b': names joined by single dots", lambda: Limit(1, "a..b")),
    ("limit.by = 'a\\x00': text without NUL", lambda: Limit(1, "a\0")),
    ("limit.by = '\\ud800': text without lone surrogates", lambda: Limit(1, "\ud800")),
    ("limit.by = <list>: a string", lambda: Limit(1, ["a"])),  # type: ignore[arg-type]
    ("rate = 0: expected an int from 1 to 1000000; to start none, pause the task", lambda: Rate(0)),
    ("per = 1: expected a datetime.timedelta", lambda: Rate(1, 1)),  # type: ignore[arg-type]
    ("per = datetime.timedelta(0): expected a datetime.timedelta over zero", lambda: Rate(1, timedelta(0))),
    ("per = datetime.timedelta(days=367): expected", lambda: Rate(1, timedelta(days=367))),
    ("expected at least a microsecond for each of the 2 starts", lambda: Rate(2, timedelta(microseconds=1))),
    ("burst = 0: expected an int from 1 to 1000000; 1 allows no burst", lambda: Rate(1, burst=0)),
    ("burst = 367: expected so few that their starts take", lambda: Rate(1, timedelta(days=1), burst=367)),
    ("rate.by = 'x.': names joined by single dots", lambda: Rate(1, by="x.")),
    ("rate.by = None: expected the same as limit.by, which is 'x'", lambda: checked(Limit(1, "x"), Rate(1))),
    ("limit = <dict>: expected a Limit", lambda: checked({"most": 1}, None)),
    ("rate = 100: expected a Rate", lambda: checked(None, 100)),
    ("limit = False: expected an int", lambda: checked(False, None)),
    ("limits = <list>: expected a JSON object", lambda: from_json([])),
    ("rate = 5: expected a JSON object", lambda: from_json({"rate": 5})),
    ("per = '1': expected a number of seconds", lambda: from_json({"rate": {"count": 1, "per": "1"}})),
    ("per = inf: expected a number of seconds", lambda: from_json({"rate": {"count": 1, "per": float("inf")}})),
    ("rate = 0: expected an int", lambda: from_json({"rate": {}})),
]


@pytest.mark.parametrize(("message", "call"), BAD, ids=[message for message, _ in BAD])
def test_bad_values_are_refused_by_name(message: str, call: Any) -> None:
    """The error names the field, the value and what would have been accepted."""
    with pytest.raises(ConfigurationError) as refused:
        call()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("limit", "rate"),
    [
        (None, None),
        (Limit(4), None),
        (Limit(4, "tenant_id"), None),
        (None, Rate(100, burst=10)),
        (None, Rate(1, timedelta(days=1), by="a.b")),
        (Limit(4, "a"), Rate(3, timedelta(microseconds=31_622_399_999_999), by="a")),
    ],
)
def test_json_gives_the_same_again(limit: Limit | None, rate: Rate | None) -> None:
    """What is written as JSON is read as the same limit and rate."""
    assert from_json(to_json(limit, rate)) == (limit, rate)


def test_the_form_as_json() -> None:
    """The fields are those that other programs and the functions of the schema read."""
    assert to_json(Limit(4, "tenant_id"), Rate(100, burst=10, by="tenant_id")) == {
        "most": 4,
        "by": "tenant_id",
        "rate": {"count": 100, "per": 1.0, "burst": 10},
    }
    assert to_json(None, None) == {"most": None, "by": None, "rate": None}
    assert from_json({"most": 2, "later": 1}) == (Limit(2), None)


def test_a_number_is_a_limit() -> None:
    """`limit=4` means `Limit(4)`."""
    assert checked(4, Rate(1)) == (Limit(4), Rate(1))
