"""Statements of claims for workers that were told accepted flags, and for all others."""

from __future__ import annotations

import re

import pytest

from backfill._native import claim_statement
from backfill.storage.accepting import lane_statement
from backfill.storage.claims import LaneClaim, LaneFilter
from backfill.storage.shares import LimitedClaim
from backfill.storage.statements import load
from backfill.storage.value_claims import ValueClaim
from plans import FRONTS
from plans_windows import LOOKS

LANES = (LaneFilter(tasks=("a",), priority=(0, 5)), LaneFilter(tasks=("a", "b")))
IDS = {"a": 1, "b": 2}
CONDITION = "coalesce(jobs.flags ?| "


def _numbers(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"\$(\d+)", text)}


@pytest.mark.parametrize("name", FRONTS)
def test_without_flags_nothing_is_added(name: str) -> None:
    """The statements and their parameters are those of the templates: nobody pays for what they do not use."""
    claim = LaneClaim("s", LANES)
    first = len(load(name).params) + 1
    assert claim._texts[name] == claim_statement(load(name).text, '"s"', [lane.shape for lane in LANES], first)
    assert CONDITION not in claim._texts[name]


@pytest.mark.parametrize("name", FRONTS)
def test_with_flags_each_filter_has_the_condition(name: str) -> None:
    """In every place of the lanes' filters; the parameters are as many as the text names."""
    claim = LaneClaim("s", LANES, accepted_flags=("gpu", 'odd "one"'))
    text = claim._texts[name]
    own = len(load(name).params) + 1
    places = len(re.findall(r"^ *-- lane: ", load(name).text, re.MULTILINE))
    assert text.count(f"{CONDITION}${own}::text[], false)") == places
    bound = claim.bind(IDS)[name in LOOKS]
    assert bound[0] == '{"gpu","odd \\"one\\""}'
    assert _numbers(text) == set(range(1, own + len(bound)))


def test_within_limits_too() -> None:
    """A limited task is claimed by statements of its own, which have the condition as well."""
    limited = LimitedClaim("s", LANES, accepted_flags=("gpu",))
    for name, text in limited._claim._texts.items():
        assert CONDITION in text, name
    values = ValueClaim("s", "a", "tenant", LANES, accepted_flags=("gpu",))
    assert values._text.count(f"{CONDITION}$11::text[], false)") == 2
    assert _numbers(values._text) == set(range(1, 11 + len(values.bind(IDS)[0])))


def test_flags_are_never_part_of_the_text() -> None:
    """Whatever they are: they are a parameter."""
    texts = [
        lane_statement(load("claim").text, '"s"', [(True, False, False)], 9, flags) for flags in (("x",), ("$1 -- '",))
    ]
    assert texts[0] == texts[1]
