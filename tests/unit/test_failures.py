"""What a failed attempt leaves behind: of groups of errors, a last place that names their members."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.worker.execution.failures import describe

_AT = re.compile(r"\n  at ([^\n]*):[0-9]+ in ([^\n]*)")


def _caught(kind: type[Exception]) -> Exception:
    try:
        raise kind("one")
    except Exception as error:
        return error


def fingerprint(error: BaseException) -> str:
    """The type and the last place, as the table of dead letters takes them from the text."""
    text = describe(error).text
    path, name = _AT.findall(text)[-1]
    return re.sub("[0-9]+", "#", f"{text.partition(':')[0]} in {name} of {path}")


KINDS = [ValueError, KeyError, ConnectionError, ZeroDivisionError]


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_order_and_counts_change_nothing(kinds: list[type[Exception]], random: Any) -> None:
    """The same kinds of members make one fingerprint, however many there are and however they are nested."""
    members = [_caught(kind) for kind in kinds]
    plain = fingerprint(ExceptionGroup("plain", members))
    more = [*members, *members]
    random.shuffle(more)
    half = len(more) // 2
    nested = ExceptionGroup("nested", [*more[:half], ExceptionGroup("inner", more[half:])])
    assert fingerprint(nested) == plain
    for kind in set(kinds):
        assert f"_caught ({kind.__name__})" in plain


@given(st.sets(st.sampled_from(KINDS), min_size=1), st.sets(st.sampled_from(KINDS), min_size=1))
def test_other_members_make_another(some: set[type[Exception]], others: set[type[Exception]]) -> None:
    """Two groups share a fingerprint only where their members are of the same kinds."""
    first = fingerprint(ExceptionGroup("x", [_caught(kind) for kind in some]))
    second = fingerprint(ExceptionGroup("x", [_caught(kind) for kind in others]))
    assert (first == second) == (some == others)


async def test_task_groups_are_told_apart() -> None:
    """By the error, and by the function it came from, not by the place within asyncio."""

    async def http() -> None:
        raise ConnectionError("no route to 10.0.0.1")

    async def math() -> None:
        raise ConnectionError("no route to 10.0.0.2")

    found = []
    for work in (http, math):
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(work())
        found.append(fingerprint(caught.value))
    assert found[0].startswith("ExceptionGroup in http (ConnectionError) of ")
    assert found[1].startswith("ExceptionGroup in math (ConnectionError) of ")


def test_members_that_were_never_raised_are_named() -> None:
    """They have no place."""
    assert "in (KeyError), (ValueError)" in describe(ExceptionGroup("x", [ValueError("a"), KeyError("b")])).text
