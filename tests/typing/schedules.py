"""Recurring jobs as operators have them: the types of the verbs' answers, and calls that type checkers refuse."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_type

from backfill import BackfillClient, Job, ScheduleInfo, ScheduleOrigin, Schedules, ScheduleState
from backfill.cron import Schedule


async def say(client: BackfillClient) -> None:
    """Each verb gives exactly its own type."""
    assert_type(client.schedules, Schedules)
    info = await client.schedules.add("0 4 * * * report", by="ann")
    assert_type(info, ScheduleInfo)
    assert_type(info.schedule, Schedule | None)
    assert_type(info.state, ScheduleState)
    assert_type(info.origin, ScheduleOrigin)
    assert_type(info.next_run, datetime | None)
    assert_type(await client.schedules.add(Schedule("report", "@daily")), ScheduleInfo)
    assert_type(await client.schedules.list(), list[ScheduleInfo])
    assert_type(await client.schedules.get("report"), ScheduleInfo)
    assert_type(await client.schedules.change("report", "@daily report"), ScheduleInfo)
    assert_type(await client.schedules.change("report", every=timedelta(minutes=5), queue=None), ScheduleInfo)
    assert_type(await client.schedules.pause("report"), ScheduleInfo)
    assert_type(await client.schedules.resume("report"), ScheduleInfo | None)
    assert_type(await client.schedules.trigger("report"), Job)
    assert_type(await client.schedules.remove("report"), ScheduleInfo)
    assert_type(await client.schedules.reset("report"), ScheduleInfo | None)


async def refused(client: BackfillClient) -> None:
    """What no item has, and what is of another type, is told before the program runs."""
    await client.schedules.change("report", every=5)  # error: timedelta
    await client.schedules.change("report", identifier="other")  # error: identifier
    await client.schedules.pause(5)  # error: str
    await client.schedules.add(5)  # error: Schedule
    await client.schedules.trigger("report", by="ann")  # error: by
