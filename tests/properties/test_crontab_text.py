"""Crontab text: what is written is read alike, junk gives one error only, and reading takes time by length alone."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backfill import BackfillError, InvalidJobError, TaskRegistry
from backfill.cron import CrontabParseError, Schedule, parse_crontab, print_crontab

import cron_strategies as make
from strategies import names

Junk = Callable[[int], str]
JUNK: dict[str, Junk] = {
    "letters": lambda n: "a" * n,
    "digits": lambda n: "1" * n,
    "list": lambda n: "1," * (n // 2),
    "zeros": lambda n: "0" * n + "7",
    "spaces": lambda n: "*" + " " * n,
    "words": lambda n: "* " * (n // 2),
    "lines": lambda n: "# \n" * (n // 3) + "x",
    "items": lambda n: "".join(f"0 4 * * * x ?id=i{i}\n" for i in range(n // 25)) + "x",
    "options": lambda n: "0 4 * * * x ?" + "&" * n,
    "one option": lambda n: "0 4 * * * x ?id=" + "%41" * (n // 3),
    "fill": lambda n: "0 4 * * * x ?fill=" + "1h" * (n // 2),
    "priority": lambda n: "0 4 * * * x ?priority=" + "9" * n,
    "zone": lambda n: "0 4 * * * x ?tz=" + "a/" * (n // 2),
    "braces": lambda n: "0 4 * * * x " + "{a:" * (n // 3),
    "brackets": lambda n: "0 4 * * * x {a:" + "[" * n,
    "text": lambda n: "0 4 * * * x {a:'" + "b" * n,
    "escapes": lambda n: "0 4 * * * x {a:'" + "\\x41" * (n // 4),
    "array": lambda n: "0 4 * * * x {a:[" + "1," * (n // 2),
    "keys": lambda n: "0 4 * * * x {" + "".join(f"k{i}:1," for i in range(n // 8)),
    "number": lambda n: "0 4 * * * x {a:" + "1" * n + "b",
    "fraction": lambda n: "0 4 * * * x {a:1." + "1" * n + "e",
    "word": lambda n: "0 4 * * * x {" + "\\u0061a" * (n // 7),
    "comments": lambda n: "0 4 * * * x {" + "/**/" * (n // 4),
    "comment": lambda n: "0 4 * * * x {/*" + "*" * n,
    "slashes": lambda n: "0 4 * * * x {//" + "/" * n,
    "nuls": lambda n: "\0" * n,
    "quotes": lambda n: "0 4 * * * '" + "'" * n,
}

OPTIONS = [
    *("id", "fill", "max", "queue", "priority", "jobKey", "job_key", "jobKeyMode", "job_key_mode"),
    *("tz", "dst", "every", "jitter", "overlap", "missed"),
]
ARGUMENTS = [
    *("identifier", "fill", "max_attempts", "queue", "priority", "job_key", "job_key_mode"),
    *("timezone", "dst", "every", "jitter", "overlap", "missed", "payload"),
]


def _parsed(text: str) -> tuple[Schedule, ...] | CrontabParseError:
    try:
        return parse_crontab(text)
    except CrontabParseError as error:
        return error


def _check(text: str) -> None:
    """A text is read, and written and read again alike; or it is refused at a place that it has."""
    read = _parsed(text)
    if isinstance(read, tuple):
        assert parse_crontab(print_crontab(read)) == read
        return
    lines = text.removeprefix("\ufeff").split("\n")
    assert 1 <= read.line <= len(lines)
    assert 1 <= read.column <= len(lines[read.line - 1]) + 1
    assert lines[read.line - 1][read.column - 1 :].startswith(read.input)
    assert read.expected
    assert str(read).startswith(f"line {read.line}, column {read.column}: ")
    str(read).encode()
    again = pickle.loads(pickle.dumps(read))
    assert (type(again), str(again)) == (CrontabParseError, str(read))


@given(names, make.times(), make.settings, make.zones, st.booleans())
def test_a_schedule_comes_back(
    task: str, times: tuple[str, list[frozenset[int]], bool], settings: dict[str, Any], zone: dict[str, Any], many: bool
) -> None:
    """Any item is written as a line from which an equal one is read; its fields have the values that were meant."""
    text, values, fixed = times
    schedule = Schedule(task, text, **settings, **zone)
    assert schedule.fields is not None
    found = (getattr(schedule.fields, name) for name in ("minutes", "hours", "days", "months", "weekdays"))
    assert [frozenset(field) for field in found] == values
    assert schedule.fields.fixed == fixed
    schedules = (
        [schedule, Schedule("another", "@daily", identifier=f"-{schedule.identifier}"[:128])] if many else [schedule]
    )
    (first, *_) = parse_crontab(print_crontab(schedules))
    assert first == schedule
    assert str(first) == str(schedule)


@given(names, st.integers(1, 36_525 * 86_400), make.settings)
def test_an_interval_comes_back(task: str, seconds: int, settings: dict[str, Any]) -> None:
    """So is any item with a distance instead of fields."""
    schedule = Schedule(task, every=timedelta(seconds=seconds), **settings)
    assert parse_crontab(str(schedule)) == (schedule,)


@given(names, make.times(), make.settings, st.data())
def test_a_broken_line(
    task: str, times: tuple[str, list[frozenset[int]], bool], settings: dict[str, Any], data: st.DataObject
) -> None:
    """A line of which a part is cut out, or in which junk stands, is read or refused as it should be."""
    text = str(Schedule(task, times[0], **settings))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    _check(text[:start] + data.draw(make.junk) + text[end:])


@given(make.junk)
@example("")
@example("\ufeff0 4 * * * x\r\n\r\n  # remark\r\n")
@example("0 4 * * * x {a: '\\")
@example("0 4 * * * x {a: '\\u")
@example("0 4 * * * '\\0'")
@example("0 4 * * * x ?id=%ff")
@example("0 4 * * * x ?id=\ud800")
@example("0 4 * * * x ?tz=Europe")
@example("0 4 * * * x ?tz=../../etc/passwd")
@example("0 4 * * * x ?tz=%00")
@example("0 4 * * * x {a: 1e999}")
@example("0 4 * * * x {a: -0, b: 0x10, c: .5, d: 5., e: +1e3}")
@example("0 4 * * * x {$a_\\u0062: '\\ud83d\\ude00'}")
def test_any_text(text: str) -> None:
    """Any text is a crontab, or gives the one error that names its place."""
    _check(text)


@given(st.sampled_from(OPTIONS), make.junk, st.booleans())
def test_any_value_of_an_option(option: str, junk: str, many: bool) -> None:
    """So it is with any value of each option, as it stands and as an address writes it."""
    times = "* * * * *" if option == "every" else "0 4 * * *"
    _check(f"{times} x ?{option}={junk if many else quote(junk, errors='replace')}")


@given(make.junk, st.booleans())
@example("0 4 * * * x\n0 5 * * * x", True)
def test_any_text_of_a_registry(text: str, later: bool) -> None:
    """A registry that is given a text says of it what `parse_crontab` says."""
    tasks: TaskRegistry[None] = TaskRegistry()
    try:
        if later:
            tasks.schedule(text)
        else:
            tasks = TaskRegistry(crontab=text)
        found: tuple[Schedule, ...] | BackfillError = tasks.schedules
    except BackfillError as error:
        found = error
    read = _parsed(text)
    if isinstance(read, tuple):
        assert found == read
    else:
        assert isinstance(found, CrontabParseError)
        assert str(found) == str(read)


@given(make.junk)
def test_any_text_of_a_decorator(text: str) -> None:
    """So does the decorator of a task, of its five fields."""
    tasks: TaskRegistry[None] = TaskRegistry()
    made = _made(when=text)
    if isinstance(made, Schedule):
        tasks.cron(text)
    else:
        with pytest.raises(CrontabParseError) as refused:
            tasks.cron(text)
        assert str(refused.value) == str(made)


def _made(**arguments: Any) -> Schedule | BackfillError:
    """A schedule, which can be written and read again; or what refuses it."""
    try:
        schedule = Schedule("x", **{"when": "0 4 * * *", **arguments})
    except BackfillError as error:
        return error
    assert parse_crontab(str(schedule)) == (schedule,)
    return schedule


@given(make.junk)
def test_any_text_as_fields(text: str) -> None:
    """`Schedule` refuses fields that cannot be read with the same error, of a crontab of one line."""
    made = _made(when=text)
    if isinstance(made, BackfillError):
        assert isinstance(made, CrontabParseError)
        assert made.line == 1
        assert 1 <= made.column <= len(text) + 1


@given(st.sampled_from(ARGUMENTS), make.junk)
def test_any_text_as_an_argument(argument: str, text: str) -> None:
    """`Schedule` refuses any other argument with the error that names it."""
    made = _made(**{argument: text})
    if isinstance(made, BackfillError):
        assert isinstance(made, InvalidJobError)
        assert made.field == argument


@pytest.mark.parametrize("kind", JUNK)
def test_long_junk(kind: str) -> None:
    """So it is with a text of many characters, and nested however deep."""
    assert isinstance(_parsed(JUNK[kind](200_000)), (CrontabParseError, tuple))


@pytest.mark.long
@pytest.mark.parametrize("kind", JUNK)
def test_very_long_junk(kind: str) -> None:
    """And with texts of ten megabytes."""
    assert isinstance(_parsed(JUNK[kind](10_000_000)), (CrontabParseError, tuple))


def _seconds(text: str) -> float:
    """How long this thread itself works on a text."""
    start = time.thread_time()
    for _ in range(3):
        _parsed(text)
    return time.thread_time() - start


@pytest.mark.parametrize("kind", JUNK)
def test_time_grows_with_the_length(kind: str) -> None:
    """Twice as much junk takes at most three times as long, by the shortest of several times."""
    short, long = JUNK[kind](10_000), JUNK[kind](20_000)
    shortest = longest = float("inf")
    for _ in range(20):
        shortest, longest = min(shortest, _seconds(short)), min(longest, _seconds(long))
        if longest <= 2.5 * shortest:
            break
    assert longest <= 3 * shortest
