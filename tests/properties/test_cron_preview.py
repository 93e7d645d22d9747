"""What is shown of the days around a change of clocks is what the item does on these days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from backfill.cron import Schedule, runs_between
from backfill.cron.preview import Fate, clock_changes

import cron_strategies as make

ZONES = ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "America/Santiago", "Africa/Casablanca"]
DAY = timedelta(days=1)
OF_ALL = 10_000


@given(
    make.times(often=True),
    st.sampled_from(ZONES),
    st.sampled_from(["skip", "once", "twice"]),
    st.datetimes(datetime(2020, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - given a zone
)
def test_the_runs_are_those_of_the_item(
    drawn: tuple[str, list[frozenset[int]], bool], zone: str, policy: str, after: datetime
) -> None:
    """No run of the day of the change and of the days beside it is left out or made up; local times are the zone's."""
    place = ZoneInfo(zone)
    item = Schedule("task", drawn[0], timezone=zone, dst=policy)  # type: ignore[arg-type]
    for change in clock_changes(item, after, 2, around=OF_ALL):
        shown = {one.run for one in change.times if one.run is not None}
        assert set(runs_between(item, change.at - DAY, change.at + DAY)) <= shown
        if shown:
            assert shown == set(runs_between(item, min(shown), max(shown) + timedelta(seconds=1)))
        for one in change.times:
            if one.offset is None:
                assert one.run in (None, change.at)
                continue
            moment = (one.local - one.offset).replace(tzinfo=UTC)
            assert moment.astimezone(place).replace(tzinfo=None) == one.local
            assert one.run == (None if one.fate is Fate.NOT_AGAIN else moment)
