"""What one scheduler does in a look, on a table in memory whose time is the test's."""

from __future__ import annotations

import logging
from datetime import timedelta

import psycopg
import pytest

from backfill.cron import Missed, Overlap, Schedule
from backfill.hooks import CronJobScheduled, CronTick
from backfill.worker.scheduling import scheduler as module
from scheduler_rig import Rig, hours_of

from schedule_tables import START, at, spoken

HOURLY = Schedule("hourly", "@hourly")
DAY = timedelta(days=1)


async def test_a_new_item_is_registered_and_runs_from_then_on() -> None:
    """An item that nobody knew has no runs before that; each later run is enqueued when it is due."""
    rig = Rig(HOURLY)
    await rig.look(0.5)
    assert rig.table.known["hourly"].known_since == at(0.5)
    assert rig.table.added == []
    await rig.look(1)
    await rig.look(1.2)
    await rig.look(2.001)
    assert hours_of(rig.table.runs("hourly")) == [1, 2]


async def test_it_sleeps_until_the_next_run() -> None:
    """It looks again when a run is due, a little later, and at least twice a minute."""
    rig = Rig(HOURLY, Schedule("often", every=timedelta(seconds=20)))
    await rig.look(0.5)
    assert 0 <= await rig.look(0.5 + 13 / 3600) - 7 <= module.SPREAD_SECONDS
    rig = Rig(HOURLY)
    assert await rig.look(0.5) == module.LOOK_SECONDS
    assert 0 <= await rig.look(1 - 5 / 3600) - 5 <= module.SPREAD_SECONDS


async def test_a_worker_without_items_asks_one_statement() -> None:
    """A look costs one statement as long as nothing is in force, and nothing has changed."""
    rig = Rig()
    assert await rig.look(0) == module.LOOK_SECONDS
    rig.table.calls.clear()
    assert await rig.look(0.1) == module.LOOK_SECONDS
    assert rig.table.calls == ["read_schedules"]


async def test_a_look_between_runs_asks_one_statement() -> None:
    """Items that have nothing due cost nothing."""
    rig = Rig(HOURLY, Schedule("daily", "@daily"))
    await rig.look(0.5)
    rig.table.calls.clear()
    await rig.look(0.6)
    assert rig.table.calls == ["read_schedules"]


@pytest.mark.parametrize(
    ("schedule", "runs", "backfilled"),
    [
        (HOURLY, [], []),
        (Schedule("hourly", "@hourly", fill=timedelta(hours=3)), [8, 9, 10], [True, True, True]),
        (Schedule("hourly", "@hourly", fill=timedelta(hours=3), missed=Missed.LAST), [10], [True]),
        (Schedule("hourly", "@hourly", fill=DAY), [3, 4, 5, 6, 7, 8, 9, 10], [True] * 8),
    ],
    ids=["no fill", "fill", "last", "since the last one"],
)
async def test_missed_runs_are_made_up_for_once(schedule: Schedule, runs: list[float], backfilled: list[bool]) -> None:
    """A fleet that was down makes up for what `fill` and `missed` say, at its first look, oldest first."""
    rig = Rig(schedule, started=at(10.5))
    rig.table.knows("hourly", START, at(2))
    await rig.look(10.6)
    assert hours_of(rig.table.runs("hourly")) == runs
    assert [b'"backfilled":true' in run.payload for run in rig.table.added] == backfilled
    await rig.look(10.7)
    await rig.look(11)
    assert hours_of(rig.table.runs("hourly")) == [*runs, 11]
    assert b'"backfilled":false' in rig.table.added[-1].payload


async def test_runs_of_an_outage_are_all_enqueued() -> None:
    """What fell due while the scheduler was asleep or cut off is enqueued although the item has no fill."""
    rig = Rig(HOURLY)
    await rig.look(0.5)
    rig.table.failing = [psycopg.OperationalError("gone")]
    with pytest.raises(psycopg.OperationalError):
        await rig.look(1)
    del rig.table.workers["me"]  # its heartbeat did not come
    await rig.look(5.5)
    assert hours_of(rig.table.runs("hourly")) == [1, 2, 3, 4, 5]
    assert not any(b'"backfilled":true' in run.payload for run in rig.table.added)


async def test_an_older_worker_that_ended_leaves_nothing_out() -> None:
    """Runs that fell due after this worker's last look are on time, although the oldest worker has gone meanwhile."""
    rig = Rig(HOURLY, started=at(2.2))
    rig.table.declare("old", HOURLY, at=START)
    rig.table.knows("hourly", START, at(2))
    await rig.look(2.5)
    del rig.table.workers["old"]
    rig.table.declare("me", HOURLY, at=at(4.4))  # it was given up, and has a new row
    await rig.look(4.5)
    assert hours_of(rig.table.runs("hourly")) == [3, 4]


async def test_a_clock_that_jumps_back_repeats_nothing() -> None:
    """Times that come again have no runs again, and a jump forth leaves none out."""
    rig = Rig(HOURLY)
    for hours in [0.5, 1, 4.5, 2.5, 3, 4, 5, 6.2]:
        await rig.look(hours)
    assert hours_of(rig.table.runs("hourly")) == [1, 2, 3, 4, 5, 6]


async def test_a_thousand_runs_at_most(caplog: pytest.LogCaptureFixture) -> None:
    """Of more missed runs the oldest are dropped, and one warning says how many, and which."""
    rig = Rig(Schedule("often", "* * * * *", fill=DAY), started=at(20))
    rig.table.knows("often", START)
    await rig.look(20)
    await rig.look(20.01)
    assert len(rig.table.added) == 1_000
    assert rig.table.runs("often")[0] == at(20) - timedelta(minutes=999)
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "'often': 200 runs from 2026-01-01 12:01:00+00:00 until before 2026-01-01 15:21:00+00:00" in record.message


async def test_many_runs_go_in_several_statements() -> None:
    """A backlog of many items does not become one huge statement."""
    rig = Rig(*(Schedule(f"t{number}", "* * * * *") for number in range(5)))
    await rig.look(0)
    rig.table.calls.clear()
    await rig.look(10)
    assert len(rig.table.added) == 3_000
    assert 3 <= rig.table.calls.count("add_runs") <= 6


async def test_overlapping_runs_are_left_out() -> None:
    """With overlap=skip a run gives no job while the last one's job is there, and the run after it may."""
    rig = Rig(Schedule("hourly", "@hourly", overlap=Overlap.SKIP))
    await rig.look(0.5)
    await rig.look(1)
    await rig.look(2)
    assert hours_of(rig.table.runs("hourly")) == [1]
    rig.table.waiting.clear()
    await rig.look(3)
    assert hours_of(rig.table.runs("hourly")) == [1, 3]
    told = [event.scheduled_at for event in rig.events if isinstance(event, CronJobScheduled)]
    assert hours_of(told) == [1, 3]


async def test_the_text_of_the_last_worker_counts(caplog: pytest.LogCaptureFixture) -> None:
    """Of two texts that of the worker counts that was started last, with one warning for each pair of texts."""
    rig = Rig(HOURLY)
    await rig.look(0.5)
    rig.table.declare("new", Schedule("hourly", "30 * * * *"), at=at(0.6))
    for hours in [0.7, 1, 1.5, 2, 2.5]:
        await rig.look(hours)
    assert hours_of(rig.table.runs("hourly")) == [1.5, 2.5]
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "'hourly' is declared with different texts: that of worker new" in record.message
    assert "30 *" not in record.message  # a text may hold a payload
    del rig.table.workers["new"]
    await rig.look(3)
    assert hours_of(rig.table.runs("hourly")) == [1.5, 2.5, 3]


async def test_a_new_text_has_no_runs_from_before() -> None:
    """An item that runs more often from now on has no runs of the time in which it ran seldom."""
    rig = Rig(HOURLY)
    for hours in [0.5, 1, 1.49]:
        await rig.look(hours)
    often = Schedule("hourly", "*/6 * * * *")
    rig.table.declare("new", often, at=at(1.5))
    await rig.look(1.51)
    new = Rig(often)
    new.table = rig.table
    new.one = new.another()
    await new.look(1.52)
    assert hours_of(rig.table.runs("hourly")) == [1, 1.5]
    await rig.look(1.6)
    assert hours_of(rig.table.runs("hourly")) == [1, 1.5, 1.6]


async def test_what_operators_say_wins() -> None:
    """They change, pause, resume, remove and add items; what they said is found at the next look."""
    rig = Rig(HOURLY)
    await rig.look(0.5)
    rig.table.say(spoken("hourly", "30 * * * * hourly", since=at(0.6)))
    rig.table.say(spoken("extra", "15 * * * * extra {a: 1}", since=at(0.6), revision=2))
    for hours in [0.7, 1, 1.25, 1.5]:
        await rig.look(hours)
    assert hours_of(rig.table.runs("hourly")) == [1.5]
    assert hours_of(rig.table.runs("extra")) == [1.25]
    rig.table.say(spoken("hourly", paused=True, revision=3))
    for hours in [2, 3]:
        await rig.look(hours)
    rig.table.say(spoken("hourly", since=at(3.2), revision=4))
    rig.table.say(spoken("extra", removed=True, revision=5))
    for hours in [3.3, 4, 4.25]:
        await rig.look(hours)
    assert hours_of(rig.table.runs("hourly")) == [1.5, 4]
    assert hours_of(rig.table.runs("extra")) == [1.25, 2.25]


async def test_a_run_by_old_words_is_not_added() -> None:
    """If operators spoke after the scheduler had read, its run is refused, and the next look goes by what they said."""
    rig = Rig(HOURLY)
    await rig.look(0.5)
    reading = rig.table.find_known_schedules

    async def paused_meanwhile(identifiers: object) -> object:
        rig.table.words["hourly"] = spoken("hourly", paused=True)
        return await reading(identifiers)  # type: ignore[arg-type]

    rig.table.find_known_schedules = paused_meanwhile  # type: ignore[method-assign,assignment]
    assert await rig.look(1) <= module.SOON_SECONDS
    assert rig.table.added == []
    assert await rig.look(1.001) == module.LOOK_SECONDS
    assert rig.table.added == []


async def test_a_resting_item_comes_back_and_is_filled() -> None:
    """An item that no live worker declares has no runs; when one does again, its fill says what is made up for."""
    declared = Schedule("hourly", "@hourly", fill=timedelta(hours=3))
    rig = Rig()
    rig.table.declare("old", declared, at=START)
    for hours in [0.5, 1]:
        await rig.look(hours)
    del rig.table.workers["old"]
    for hours in [1.5, 2, 3, 8.5]:
        await rig.look(hours)
    assert hours_of(rig.table.runs("hourly")) == [1]
    rig.table.declare("new", declared, at=at(9.5))
    await rig.look(9.6)
    assert hours_of(rig.table.runs("hourly")) == [1, 7, 8, 9]


async def test_busy_items_are_tried_again_soon() -> None:
    """An item on which another transaction works is left to the next look, which comes soon; others are done."""
    rig = Rig(HOURLY, Schedule("other", "@hourly"))
    await rig.look(0.5)
    rig.table.busy = {"hourly"}
    assert await rig.look(1) <= module.SOON_SECONDS
    assert [run.identifier for run in rig.table.added] == ["other"]
    await rig.look(1.0001)
    assert hours_of(rig.table.runs("hourly")) == [1]


async def test_an_item_that_was_forgotten_is_registered_again() -> None:
    """If somebody deletes an item's row, it is registered anew, and runs from then on."""
    rig = Rig(HOURLY)
    await rig.look(0.5)
    rig.table.known.clear()
    await rig.look(1)
    await rig.look(2)
    assert hours_of(rig.table.runs("hourly")) == [2]


async def test_unreadable_text_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """A text that this version cannot read is left to others, with one warning."""
    rig = Rig(HOURLY)
    rig.table.say(spoken("odd", "some day odd {secret: 1}"))
    rig.table.say(spoken("odder", "", revision=2))
    rig.table.say(spoken("other", str(HOURLY), revision=4))
    for hours in [0.5, 0.6]:
        await rig.look(hours)
    rig.table.say(spoken("hourly", revision=3))
    await rig.look(1)
    assert hours_of(rig.table.runs("hourly")) == [1]
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.__dict__["schedule"] for record in records] == ["odd", "odder", "other"]
    assert "secret" not in caplog.text


async def test_observers_hear_of_ticks_and_jobs() -> None:
    """A tick is told before the jobs are added, and a job by the worker that added it, unless it was made up for."""
    schedule = Schedule("hourly", "@hourly", fill=DAY)
    rig = Rig(schedule, started=at(2.5))
    rig.table.knows("hourly", START)
    await rig.look(2.6)
    assert rig.events == [CronTick(at(2.6), (schedule,), "me")]
    rig.events.clear()
    await rig.look(3)
    assert rig.events == [CronTick(at(3), (schedule,), "me"), CronJobScheduled(schedule, at(3), 3, "me")]
    rig.events.clear()
    rig.one = rig.another()
    await rig.look(3.1)
    assert rig.events == []
