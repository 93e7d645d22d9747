"""When items run: the two nights a year, days that a zone never had, rare days, and what the calls refuse."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from backfill import InvalidJobError
from backfill.cron import Dst, Schedule, due_at, next_runs, runs_between

START = datetime(2026, 1, 1, tzinfo=UTC)


def _shown(when: str, zone: str, dst: str, day: datetime) -> list[str]:
    """The runs of a day as the zone's clock shows them, each with the offset from UTC in hours."""
    place = ZoneInfo(zone)
    start = day.replace(tzinfo=place)
    runs = runs_between(Schedule("t", when, timezone=zone, dst=Dst(dst)), start, start + timedelta(days=1))
    local = [run.astimezone(place) for run in runs]
    return [f"{moment:%H:%M} {moment.utcoffset()}".removesuffix(":00:00") for moment in local]


SPRING, AUTUMN = datetime(2026, 3, 29), datetime(2026, 10, 25)  # noqa: DTZ001 (the zone is added by `_shown`)


@pytest.mark.parametrize(
    ("when", "dst", "spring", "autumn"),
    [
        ("30 2 * * *", "skip", [], ["02:30 2"]),
        ("30 2 * * *", "once", ["03:00 2"], ["02:30 2"]),
        ("30 2 * * *", "twice", ["03:00 2"], ["02:30 2", "02:30 1"]),
        ("0,30 2,3 * * *", "skip", ["03:00 2", "03:30 2"], ["02:00 2", "02:30 2", "03:00 1", "03:30 1"]),
        ("0,30 2,3 * * *", "once", ["03:00 2", "03:30 2"], ["02:00 2", "02:30 2", "03:00 1", "03:30 1"]),
        ("15,45 2 * * *", "once", ["03:00 2"], ["02:15 2", "02:45 2"]),
        ("15,45 2 * * *", "twice", ["03:00 2"], ["02:15 2", "02:45 2", "02:15 1", "02:45 1"]),
        ("30 2 * * 1", "twice", [], []),
        ("*/30 2 * * *", "once", [], ["02:00 2", "02:30 2", "02:00 1", "02:30 1"]),
        ("*/30 2 * * *", "skip", [], ["02:00 2", "02:30 2", "02:00 1", "02:30 1"]),
        ("0 4 * * *", "skip", ["04:00 2"], ["04:00 1"]),
    ],
)
def test_the_two_nights_of_berlin(when: str, dst: str, spring: list[str], autumn: list[str]) -> None:
    """What the table of docs/crontab.md says, and more; an item with a star follows the clock."""
    assert _shown(when, "Europe/Berlin", dst, SPRING) == spring
    assert _shown(when, "Europe/Berlin", dst, AUTUMN) == autumn


def test_looking_begins_at_the_end_of_the_gap() -> None:
    """A run at the gap's end is found where looking begins at this very time, and not again after it."""
    schedule = Schedule("t", "30 2 * * *", timezone="Europe/Berlin")
    end = datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert next(runs_between(schedule, end, end + timedelta(days=1))) == end
    assert next_runs(schedule, end - timedelta(microseconds=1)) == [end]
    assert next_runs(schedule, end) == [datetime(2026, 3, 30, 0, 30, tzinfo=UTC)]


@pytest.mark.parametrize("dst", ["skip", "once", "twice"])
def test_an_hour_with_a_star_follows_the_clock(dst: str) -> None:
    """An item of each second hour has no run in the gap, and two in the repeated hour, by each policy."""
    assert _shown("30 */2 * * *", "Europe/Berlin", dst, SPRING)[:3] == ["00:30 1", "04:30 2", "06:30 2"]
    assert _shown("30 */2 * * *", "Europe/Berlin", dst, AUTUMN)[:4] == ["00:30 2", "02:30 2", "02:30 1", "04:30 1"]


@pytest.mark.parametrize(
    ("dst", "expected"),
    [("skip", []), ("once", ["2011-12-30 10:00"]), ("twice", ["2011-12-30 10:00"])],
)
def test_a_day_that_never_was(dst: str, expected: list[str]) -> None:
    """Samoa had no 30 December 2011: its runs happen at the end of the gap, at midnight of the 31st, or not at all."""
    schedule = Schedule("t", "0 12 30 12 *", timezone="Pacific/Apia", dst=Dst(dst))
    runs = runs_between(schedule, datetime(2011, 12, 28, tzinfo=UTC), datetime(2012, 1, 3, tzinfo=UTC))
    assert [f"{run:%Y-%m-%d %H:%M}" for run in runs] == expected


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        ("0 0 29 2 1", ["2044-02-29", "2072-02-29", "2112-02-29"]),
        ("0 0 31 * *", ["2026-01-31", "2026-03-31", "2026-05-31"]),
        ("0 0 13 * fri", ["2026-02-13", "2026-03-13", "2026-11-13"]),
        ("0 0 * * 7", ["2026-01-04", "2026-01-11", "2026-01-18"]),
        ("@yearly", ["2027-01-01", "2028-01-01", "2029-01-01"]),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Africa/Abidjan"])
def test_days(when: str, expected: list[str], zone: str) -> None:
    """Day, month and day of the week all have to match; rare days are found, however far they are."""
    runs = next_runs(Schedule("t", when, timezone=zone), START, 3)
    assert [str(run.date()) for run in runs] == expected


def test_a_rare_day_is_found_without_walking_there() -> None:
    """Finding a day in forty years takes at most a hundred times as long as finding the next minute."""
    rare = Schedule("t", "0 0 29 2 1", timezone="Europe/Berlin")
    often = Schedule("t", "* * * * *", timezone="Europe/Berlin")
    after = datetime(2072, 3, 1, tzinfo=UTC)
    shortest = {"rare": float("inf"), "often": float("inf")}
    for _ in range(20):
        for name, schedule in {"rare": rare, "often": often}.items():
            start = time.thread_time()
            for _ in range(10):
                assert next_runs(schedule, after)
            shortest[name] = min(shortest[name], time.thread_time() - start)
    assert shortest["rare"] <= 100 * shortest["often"]


def test_after_start_until_and_end() -> None:
    """`after` is left out and `until` is not; `start` is not left out and `end` is."""
    schedule = Schedule("t", "0 * * * *")
    hours = [START + timedelta(hours=n) for n in range(4)]
    assert next_runs(schedule, START) == [hours[1]]
    assert next_runs(schedule, START, until=hours[3]) == hours[1:]
    assert next_runs(schedule, START, 2, until=hours[3]) == hours[1:3]
    assert next_runs(schedule, START, 5, until=START) == []
    assert next_runs(schedule, START, 0) == []
    assert list(runs_between(schedule, START, hours[3])) == hours[:3]
    assert list(runs_between(schedule, hours[3], START)) == []
    assert next_runs(schedule, START.astimezone(ZoneInfo("Asia/Tokyo"))) == [hours[1]]


def test_runs_are_computed_as_they_are_asked_for() -> None:
    """The first of a million of years' runs costs no more than one."""
    runs = runs_between(Schedule("t", "* * * * *", timezone="Europe/Berlin"), START, datetime(9000, 1, 1, tzinfo=UTC))
    assert next(runs) == START


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Apia"])
def test_the_ends_of_time(zone: str) -> None:
    """Before the year 10000 runs come to an end, and looking from the first year on gives the first ones."""
    schedule = Schedule("t", "@daily", timezone=zone)
    assert len(next_runs(schedule, datetime(9999, 12, 20, tzinfo=UTC), 100)) in range(9, 13)
    assert next_runs(schedule, datetime.max.replace(tzinfo=UTC), 100) == []
    assert next_runs(schedule, datetime(1, 1, 1, tzinfo=UTC))[0].year == 1
    assert next_runs(Schedule("t", every=timedelta(days=9)), datetime.max.replace(tzinfo=UTC)) == []


def test_jitter_spreads_items() -> None:
    """Items of one minute begin all over the jitter, and an item at another point for each run; none without jitter."""
    jitter = timedelta(minutes=10)
    items = [Schedule("t", "@hourly", identifier=f"i{n}", jitter=jitter) for n in range(200)]
    delays = sorted(due_at(item, START) - START for item in items)
    assert delays[20] < jitter * 0.3
    assert delays[-20] > jitter * 0.7
    assert len({due_at(items[0], run) - run for run in next_runs(items[0], START, 50)}) == 50
    assert due_at(Schedule("t", "@hourly"), START) == START


def test_what_the_calls_refuse() -> None:
    """Times without a zone, and numbers that count nothing."""
    schedule = Schedule("t", "@daily")
    naive = START.replace(tzinfo=None)
    for call in (
        lambda: next_runs(schedule, naive),
        lambda: next_runs(schedule, START, until=naive),
        lambda: runs_between(schedule, naive, START),
        lambda: runs_between(schedule, START, naive),
        lambda: due_at(schedule, naive),
        lambda: next_runs(schedule, START, -1),
        lambda: next_runs(schedule, None),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidJobError, match=r"after|until|start|end|run|count"):
            call()
