"""Reading a crontab: what each part means, what is refused and where, and what `Schedule` refuses by itself."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import zoneinfo
from dataclasses import FrozenInstanceError, dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

import backfill.cron
from backfill import InvalidJobError, InvalidPayloadError, JobKeyMode
from backfill.cron import (
    CrontabParseError,
    Dst,
    Missed,
    Overlap,
    Schedule,
    parse_crontab,
    print_crontab,
)
from backfill.cron.zones import zone_of

ALL = """\
# The shop's recurring jobs
30 4 * * 1-5 report ?id=weekly-report&fill=1w2d3h4m5s&max=3&queue=reports&jobKey=r%26d&jobKeyMode=preserve_run_at&\
priority=-5 {to: 'boss', "copies": [1, 2,],}

  */10\t*  1,15 jan-MAR sun  sync/all:now-2 \t {} // nothing to say\r
@hourly "shop.clean" ?tz=Europe/Berlin&dst=twice&jitter=90s&overlap=skip&missed=last&job_key=c
* * * * * beat ?every=30s
"""


def test_everything_that_a_crontab_says() -> None:
    """All options, comments, empty lines, line ends of Windows, names, short forms, and names in quotes."""
    assert parse_crontab(ALL) == (
        Schedule(
            "report",
            "30 4 * * 1-5",
            identifier="weekly-report",
            fill=timedelta(days=9, hours=3, minutes=4, seconds=5),
            max_attempts=3,
            queue="reports",
            job_key="r&d",
            job_key_mode=JobKeyMode.PRESERVE_RUN_AT,
            priority=-5,
            payload={"to": "boss", "copies": [1, 2]},
        ),
        Schedule("sync/all:now-2", "*/10 * 1,15 1-3 0", payload={}),
        Schedule(
            "shop.clean",
            "0 * * * *",
            timezone="Europe/Berlin",
            dst=Dst.TWICE,
            jitter=timedelta(seconds=90),
            overlap=Overlap.SKIP,
            missed=Missed.LAST,
            job_key="c",
            job_key_mode=JobKeyMode.REPLACE,
        ),
        Schedule("beat", every=timedelta(seconds=30)),
    )


def test_it_is_printed_in_one_form() -> None:
    """Printing writes what differs from the defaults, and reading that gives the same items."""
    assert print_crontab(parse_crontab(ALL)) == (
        "30 4 * * 1-5 report ?id=weekly-report&fill=1w2d3h4m5s&max=3&queue=reports&priority=-5&jobKey=r%26d"
        '&jobKeyMode=preserve_run_at {"to":"boss","copies":[1,2]}\n'
        "*/10 * 1,15 1-3 0 sync/all:now-2 {}\n"
        '0 * * * * "shop.clean" ?tz=Europe/Berlin&dst=twice&jobKey=c&jitter=1m30s&overlap=skip&missed=last\n'
        "* * * * * beat ?every=30s\n"
    )


@pytest.mark.parametrize("text", ["", "\n", "\r\n \t\n", "# 0 4 * * * x", "  # x\n#", "\ufeff"])
def test_a_crontab_may_be_empty(text: str) -> None:
    """Then it has no items."""
    assert parse_crontab(text) == ()


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("*", (0, 1, 2, 3, 4, 5, 6)), ("0-6", (0, 1, 2, 3, 4, 5, 6)), ("7", (0,)), ("0", (0,)), ("5-7", (0, 5, 6)),
        ("fri-sun", (0, 5, 6)), ("sun-tue", (0, 1, 2)), ("Mon", (1,)), ("*/2", (0, 2, 4, 6)), ("*/7", (0,)),
        ("6,1,6", (1, 6)), ("0-7", (0, 1, 2, 3, 4, 5, 6)), ("007", (0,)),
    ],
)  # fmt: skip
def test_days_of_the_week(field: str, values: tuple[int, ...]) -> None:
    """0 and 7 are Sunday, and so is 7 at the end of a range; names count as their numbers."""
    (item,) = parse_crontab(f"0 0 * * {field} x")
    assert item.fields is not None
    assert item.fields.weekdays == values


@pytest.mark.parametrize(
    ("when", "fixed"),
    [
        ("30 2 * * *", True), ("0,30 2 * * *", True), ("0 1-4 * * *", True), ("@daily", True), ("* 2 * * *", False),
        ("0 * * * *", False), ("*/15 2 * * *", False), ("0 */2 * * *", False), ("0 0-23 * * *", False),
        ("0,*/15 2 * * *", False), ("@hourly", False),
    ],
)  # fmt: skip
def test_which_items_are_fixed(when: str, fixed: bool) -> None:
    """Those whose minute and hour have no star and leave something out, whatever their days are."""
    item = Schedule("x", when)
    assert item.fields is not None
    assert item.fields.fixed == fixed


REFUSED = [
    # the text, the column, what stands there, and words of what is expected
    ("0 4 * *", 8, "", "for the day of the week"),
    ("0 4 * * *", 10, "", "the name of a task"),
    ("60 4 * * * x", 1, "60", "0 to 59 for the minute"),
    ("0 24 * * * x", 3, "24", "0 to 23 for the hour"),
    ("0 4 0 * * x", 5, "0", "1 to 31 for the day of the month"),
    ("0 4 * 13 * x", 7, "13", "1 to 12 or a name from jan to dec for the month"),
    ("0 4 * * 8 x", 9, "8", "0 to 7 or a name from sun to sat"),
    ("0 4 * mon * x", 7, "mon", "a name from jan to dec"),
    ("0 1,,2 * * * x", 5, "", "a number from 0 to 23"),
    ("0 1-2-3 * * * x", 3, "1-2-3", "a range such as 2-5"),
    ("0 4-4 * * * x", 3, "4-4", "a range whose end is after its beginning"),
    ("0 1,9-4 * * * x", 5, "9-4", "a range whose end is after its beginning"),
    ("0 4 * * sun-sun x", 9, "sun-sun", "a range whose end is after its beginning"),
    ("0 1-99999999999999999999 * * * x", 5, "99999999999999999999", "0 to 23"),
    ("*/0 4 * * * x", 3, "0", "a step from 1 to 60"),
    ("*/61 4 * * * x", 3, "61", "a step from 1 to 60"),
    ("0-30/5 4 * * * x", 1, "0-30/5", "* or */2"),
    ("\u0661 4 * * * x", 1, "\u0661", "0 to 59"),
    ("0 4 30,31 feb * x", 5, "30,31", "it would never run"),
    ("0 4 31 4,6 1 x", 5, "31", "it would never run"),
    ("@reboot x", 1, "@reboot", "no item can run when a machine starts"),
    ("@fortnightly x", 1, "@fortnightly", "@weekly"),
    ("@daily", 7, "", "the name of a task"),
    ("0 4 * * * 1x", 11, "1x", "not beginning with a digit"),
    ("0 4 * * * a.b", 12, ".b", "in quotes"),
    ("0 4 * * * x?id=a", 12, "?id=a", "letters, digits"),
    ("0 4 * * * 'a", 13, "", "at its end"),
    ("0 4 * * * 'a'b", 14, "b", "a space after the task's name"),
    (f"0 4 * * * {'a' * 129}", 11, "a" * 80, "1 to 128 characters"),
    ("0 4 * * * x y", 13, "y", "?options, or the payload, an object in braces"),
    ("0 4 * * * x ?id=a y", 19, "y", "the payload, an object in braces"),
    ("0 4 * * * x ?", 14, "", "an option, such as id=nightly"),
    ("0 4 * * * x ?color=red", 14, "color", "one of the options id, fill, max"),
    ("0 4 * * * x ?id=a&max=1&id=b", 25, "id", "each option once"),
    ("0 4 * * * x ?jobKey=a&job_key=b", 23, "job_key", "each option once"),
    ("0 4 * * * x ?id=", 17, "", "a value, as in id=..."),
    ("0 4 * * * x ?id", 16, "", "a value, as in id=..."),
    ("0 4 * * * x ?id=50%", 19, "%", "%25"),
    ("0 4 * * * x ?queue=%00", 20, "%00", "without NUL"),
    ("0 4 * * * x ?fill=1y", 19, "1y", "a time such as 30s"),
    ("0 4 * * * x ?fill=99999999w", 19, "99999999w", "36525 days"),
    ("0 4 * * * x ?fill=99999999999999999w", 19, "99999999999999999w", "36525 days"),
    ("0 4 * * * x ?max=0", 18, "0", "1 to 32767"),
    ("0 4 * * * x ?max=many", 18, "many", "a whole number"),
    ("0 4 * * * x ?priority=-99999999999999", 23, "-99999999999999", "-32768 to 32767"),
    ("0 4 * * * x ?jobKeyMode=replace", 25, "replace", "a job_key beside it"),
    ("0 4 * * * x ?jobKey=a&jobKeyMode=unsafe_dedupe", 34, "unsafe_dedupe", "replace or preserve_run_at"),
    ("0 4 * * * x ?tz=Europe/Berlyn", 17, "Europe/Berlyn", "a time zone that this machine knows"),
    ("0 4 * * * x ?tz=localtime", 17, "localtime", "a time zone that this machine knows"),
    ("0 4 * * * x ?tz=..", 17, "..", "a time zone that this machine knows"),
    ("0 4 * * * x ?dst=never", 18, "never", "skip or once or twice"),
    ("0 4 * * * x ?overlap=yes", 22, "yes", "allow or skip"),
    ("0 4 * * * x ?missed=some", 21, "some", "all or last"),
    ("0 4 * * * x ?every=5m", 1, "0 4 * * *", "* * * * * beside every="),
    ("* * * * * x ?every=0s", 20, "0s", "whole seconds, 1 at least"),
    ("* * * * * x ?every=1d&tz=Asia/Tokyo", 26, "Asia/Tokyo", "UTC beside every="),
    ("* * * * * x ?every=1d&dst=skip", 27, "skip", "nothing beside every="),
    ("0 4 * * * x {a: 1", 18, "", "a comma or }"),
    ("0 4 * * * x {a 1}", 16, "1", "a colon"),
    ("0 4 * * * x {1: 1}", 14, "1", "a key"),
    ("0 4 * * * x {,}", 14, ",", "a key"),
    ("0 4 * * * x {a: [1 2]}", 20, "2", "a comma or ]"),
    ("0 4 * * * x {a: [,]}", 18, ",", "a value of JSON5"),
    ("0 4 * * * x {a: secret}", 17, "s", "a value of JSON5"),
    ("0 4 * * * x {a: Infinity}", 17, "I", "a finite number"),
    ("0 4 * * * x {a: 010}", 17, "0", "a finite number"),
    ("0 4 * * * x {a: 1e400}", 17, "1", "a number that a float can hold"),
    ("0 4 * * * x {a: 18446744073709551616}", 17, "1", "2**64 - 1"),
    ("0 4 * * * x {a: '\\0'}", 18, "\\", "without NUL"),
    ("0 4 * * * x {a: '\\ud800'}", 18, "\\", "lone surrogates"),
    ("0 4 * * * x {a: '\\x4'}", 18, "\\", "an escape"),
    ("0 4 * * * x {a: 1, a: 2}", 20, "a", "a key that this object does not have yet"),
    ("0 4 * * * x {a: 1} {}", 20, "{", "the end of the line"),
    ("0 4 * * * x {a: 1 /* }", 19, "/", "a comment that ends"),
    ("0 4 * * * x {_cron: 1}", 13, "{", "without the key _cron"),
    (f"0 4 * * * x {{a: {'[' * 254}", 270, "[", "at most 254 objects and arrays"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "column", "input", "expected"), REFUSED)
def test_what_is_refused_and_where(text: str, column: int, input: str, expected: str) -> None:
    """The error names line, column, what stands there and what was expected; of a payload one character only."""
    with pytest.raises(CrontabParseError) as caught:
        parse_crontab(f"# one\n{text}\n0 4 * * * other")
    error = caught.value
    assert (error.line, error.column, error.input) == (2, column, input)
    assert expected in error.expected
    assert str(error).startswith(f"line 2, column {column}: ")
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "0 4 * * * {password:'secret'}", "0 4 * * * report{password:'secret'}", "@daily{password:'secret'} report",
        "0 4 * * * report ?fill=1d{password:'secret'}", "0 4 * * * report ?max=3{password:'secret'}",
        "0 4 * * * report ?tz=Europe/Berlin{password:'secret'}", "0 4 * * mon{password:'secret'} report",
        "0 4 * * * 'report'{password:'secret'}", "0 4 * * * report ?id=a&{password:'secret'}=1",
    ],
)  # fmt: skip
def test_a_payload_in_the_wrong_place_is_not_shown(text: str) -> None:
    """Where the space before it was left out, or the task, the error ends at its brace."""
    with pytest.raises(CrontabParseError) as caught:
        parse_crontab(text)
    assert "secret" not in str(caught.value)
    assert caught.value.input.endswith("{") or "{" not in caught.value.input


def test_an_identifier_belongs_to_one_item() -> None:
    """The second item is refused at its identifier, and the error names the first one's line."""
    with pytest.raises(CrontabParseError, match=r"line 4, column 14: 'y'.* line 2 ") as caught:
        parse_crontab("\n0 4 * * * x ?id=y\n\n0 4 * * mon  y")
    assert caught.value.input == "y"
    assert len(parse_crontab("0 4 * * * x\n0 5 * * * x ?id=y")) == 2


@dataclass
class Report:
    """A payload with a class of its own."""

    to: str


def test_a_schedule_in_python() -> None:
    """Its arguments are brought to one form; its payload is nobody else's, and a record is written as JSON."""
    payload = {"to": ["boss"]}
    schedule = Schedule("shop.report", " 0  4 * * SUN ", payload=payload, max_attempts=3)
    payload["to"].append("all")
    assert (schedule.when, schedule.identifier, schedule.payload) == ("0 4 * * 0", "shop.report", {"to": ["boss"]})
    assert Schedule("x", "@daily", payload=Report("boss")).payload == {"to": "boss"}
    assert schedule == replace(schedule)
    assert replace(schedule, max_attempts=None) != schedule
    assert len({schedule, replace(schedule)}) == 1
    assert "boss" not in repr(schedule)
    with pytest.raises(FrozenInstanceError):
        schedule.task = "other"  # type: ignore[misc]


def test_a_deep_payload_comes_back() -> None:
    """What a schedule takes at its deepest is written and read, too."""
    payload: dict[str, Any] = {}
    for _ in range(253):
        payload = {"a": payload}
    schedule = Schedule("x", "@daily", payload=payload)
    assert parse_crontab(str(schedule)) == (schedule,)
    with pytest.raises(InvalidPayloadError, match="deeper than 254 levels"):
        Schedule("x", "@daily", payload={"a": payload})


BAD: list[tuple[str, dict[str, Any]]] = [
    ("task", {"task": ""}), ("task", {"task": 3}), ("task", {"task": "a\0"}), ("when", {"when": None}),
    ("when", {"every": timedelta(hours=1)}), ("every", {"when": None, "every": timedelta(milliseconds=1500)}),
    ("every", {"when": None, "every": timedelta(0)}), ("every", {"when": None, "every": 30}),
    ("identifier", {"identifier": "i" * 129}), ("identifier", {"identifier": None}),
    ("timezone", {"timezone": "Nowhere"}), ("timezone", {"timezone": None}), ("dst", {"dst": "sometimes"}),
    ("dst", {"dst": None}), ("fill", {"fill": timedelta(-1)}), ("fill", {"fill": None}),
    ("fill", {"fill": timedelta(days=36_526)}), ("jitter", {"jitter": 3}),
    ("jitter", {"jitter": timedelta(milliseconds=1)}), ("max_attempts", {"max_attempts": 0}),
    ("priority", {"priority": 40_000}), ("queue", {"queue": ""}), ("job_key", {"job_key": "k" * 513}),
    ("job_key_mode", {"job_key_mode": JobKeyMode.REPLACE}),
    ("job_key_mode", {"job_key": "k", "job_key_mode": JobKeyMode.UNSAFE_DEDUPE}),
    ("overlap", {"overlap": "queue"}), ("missed", {"missed": 1}), ("payload", {"payload": [1]}),
    ("payload", {"payload": "secret"}), ("payload", {"payload": {"_cron": 1}}),
    ("payload.a", {"payload": {"a": float("nan")}}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "arguments"), BAD)
def test_what_a_schedule_refuses(field: str, arguments: dict[str, Any]) -> None:
    """The error names the argument; a payload is not shown."""
    with pytest.raises(InvalidJobError) as caught:
        Schedule(**{"task": "t", "when": "0 4 * * *", **arguments})
    assert caught.value.field == field
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, InvalidPayloadError) == field.startswith("payload")


@pytest.mark.parametrize("when", ["", "0 4 * *", "0 4 * * * *", "0 4 31 2 *", "@reboot"])
def test_fields_in_python_that_cannot_be_read(when: str) -> None:
    """They give the error of a crontab of one line."""
    with pytest.raises(CrontabParseError, match=r"^line 1, column "):
        Schedule("t", when)


def test_a_crontab_is_text() -> None:
    """Bytes are refused; reading a file gives its text."""
    with pytest.raises(InvalidJobError, match="text = <bytes>: a string"):
        parse_crontab(b"0 4 * * * x")  # type: ignore[arg-type]


def test_utc_needs_no_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine knows no zones, items without one are read still, and others say how zones are installed."""
    monkeypatch.setattr(zoneinfo, "ZoneInfo", _knows_none)
    zone_of.cache_clear()
    try:
        assert parse_crontab("0 4 * * * x")
        with pytest.raises(CrontabParseError, match="pip install tzdata"):
            parse_crontab("0 4 * * * x ?tz=Europe/Berlin")
    finally:
        zone_of.cache_clear()


def _knows_none(key: str) -> None:
    raise zoneinfo.ZoneInfoNotFoundError(key)


def test_the_examples_of_the_docstrings_run() -> None:
    """Each gives what it says."""
    examples = 0
    for module in pkgutil.iter_modules(backfill.cron.__path__, "backfill.cron."):
        result = doctest.testmod(importlib.import_module(module.name))
        assert result.failed == 0, module.name
        examples += result.attempted
    assert examples > 10
