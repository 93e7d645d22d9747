"""What a change of clocks does to an item, as `backfill cron preview` shows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backfill.cron import parse_crontab
from backfill.cron.preview import ClockChange, Fate, clock_changes

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def changes(line: str, **keywords: int) -> list[ClockChange]:
    """The changes of the year 2026 that a line is concerned by."""
    return clock_changes(parse_crontab(line)[0], NEW_YEAR, **keywords)


def told(change: ClockChange) -> list[str]:
    """Each time of a change with what becomes of it."""
    return [f"{one.local:%d %H:%M} {one.fate}" for one in change.times]


@pytest.mark.parametrize(
    ("line", "spring", "autumn"),
    [
        ("30 2 * * * a ?tz=Europe/Berlin", ["29 02:30 moved"], ["25 02:30 first", "25 02:30 not_again"]),
        ("30 2 * * * a ?tz=Europe/Berlin&dst=skip", ["29 02:30 in_gap"], ["25 02:30 first", "25 02:30 not_again"]),
        ("30 2 * * * a ?tz=Europe/Berlin&dst=twice", ["29 02:30 moved"], ["25 02:30 first", "25 02:30 second"]),
        ("*/30 2 * * * a ?tz=Europe/Berlin", ["29 02:00 in_gap", "29 02:30 in_gap"],
         ["25 02:00 first", "25 02:30 first", "25 02:00 second", "25 02:30 second"]),
        ("0 4 * * * a ?tz=Europe/Berlin", [], []),
    ],
)  # fmt: skip
def test_each_policy(line: str, spring: list[str], autumn: list[str]) -> None:
    """Of the times that clocks pass over and repeat, each has its fate; the days around are as ever."""
    found = changes(line)
    assert [change.at for change in found] == [
        datetime(2026, 3, 29, 1, tzinfo=UTC),
        datetime(2026, 10, 25, 1, tzinfo=UTC),
    ]
    for change, expected in zip(found, (spring, autumn), strict=True):
        assert [one for one in told(change) if not one.endswith(Fate.RUNS)] == expected
        assert any(one.fate is Fate.RUNS for one in change.times)


def test_the_time_at_which_a_moved_run_happens() -> None:
    """It is the end of the gap; a time that does not run has none."""
    spring, autumn = changes("30 2 * * * a ?tz=Europe/Berlin")
    assert [one.run for one in spring.times if one.fate is Fate.MOVED] == [spring.at]
    assert [one.offset for one in spring.times] == [timedelta(hours=1), None, timedelta(hours=2)]
    assert [one.run for one in autumn.times if one.fate is Fate.NOT_AGAIN] == [None]


def test_few_times_around_are_given() -> None:
    """As many as are asked for, before and after, beside all that the change touches."""
    spring, _ = changes("* * * * * a ?tz=Europe/Berlin", around=2)
    assert len(spring.times) == 2 + 60 + 2
    untouched, _ = changes("0 * * * * a ?tz=Europe/Berlin", around=0)
    assert told(untouched) == ["29 02:00 in_gap"]
    nearest, _ = changes("0 4 * * * a ?tz=Europe/Berlin", around=1)
    assert told(nearest) == ["28 04:00 runs", "29 04:00 runs"]


def test_a_gap_at_midnight() -> None:
    """The days are those before and after, though one of them has no midnight."""
    [beirut] = changes("0 0 * * * a ?tz=Asia/Beirut", count=1)
    assert told(beirut) == ["28 00:00 runs", "29 00:00 moved", "30 00:00 runs"]


@pytest.mark.parametrize("line", ["0 4 * * * a", "* * * * * a ?every=90s", "0 4 * * * a ?tz=Asia/Kolkata"])
def test_items_that_no_change_concerns(line: str) -> None:
    """Those in UTC, those that count, and those of zones whose clocks stay as they are."""
    assert changes(line) == []


def test_changes_after_a_time() -> None:
    """Only later ones are given, as many as asked."""
    [item] = parse_crontab("0 4 * * * a ?tz=Europe/Berlin")
    assert [change.at.year for change in clock_changes(item, NEW_YEAR, 4)] == [2026, 2026, 2027, 2027]
    at = datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert clock_changes(item, at, 1)[0].at == datetime(2026, 10, 25, 1, tzinfo=UTC)
    assert clock_changes(item, at - timedelta(seconds=1), 1)[0].at == at


@pytest.mark.parametrize("year", [1, 9999])
def test_the_ends_of_time(year: int) -> None:
    """There is nothing to show, and no error."""
    [item] = parse_crontab("0 4 * * * a ?tz=Europe/Berlin")
    assert clock_changes(item, datetime(year, 12, 31, tzinfo=UTC)) == []
    assert len(clock_changes(item, datetime(9989, 12, 31, tzinfo=UTC))) == 2
