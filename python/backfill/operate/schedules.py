"""What an operator asks and says about recurring items: the client's verbs, and the way out for a role without rights.

Here is also what needs no database: the next runs of an item, and what changes of clocks do to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from backfill.client import BackfillClient
from backfill.cron import Schedule, next_runs
from backfill.cron.preview import ClockChange, clock_changes
from backfill.operate.permission import permitted
from backfill.records import Job
from backfill.schedules import ScheduleInfo


@dataclass(frozen=True, slots=True)
class Coming:
    """A run that an item will have.

    Attributes:
        schedule: the item.
        run: when it is, in UTC.
    """

    schedule: Schedule
    run: datetime


async def standing(client: BackfillClient) -> list[ScheduleInfo]:
    """Return all recurring items, those that rest or were removed too.

    Raises:
        BackfillError: the role may not read them.
    """
    with permitted():
        return await client.schedules.list()


async def one(client: BackfillClient, identifier: str) -> ScheduleInfo:
    """Return one recurring item.

    Raises:
        ScheduleNotFoundError: there is none of this identifier.
        BackfillError: the role may not read it.
    """
    with permitted():
        return await client.schedules.get(identifier)


async def add(client: BackfillClient, schedule: Schedule | str, *, by: str | None = None) -> ScheduleInfo:
    """Add an item; the arguments are those of the client's verb.

    Raises:
        CrontabParseError: a line cannot be read.
        ScheduleExistsError: there is an item of this identifier.
        BackfillError: the role has no operator's rights.
    """
    with permitted():
        return await client.schedules.add(schedule, by=by)


async def change(client: BackfillClient, identifier: str, to: Schedule | str, *, by: str | None = None) -> ScheduleInfo:
    """Give an item another text; the arguments are those of the client's verb.

    Raises:
        CrontabParseError: a line cannot be read.
        ScheduleNotFoundError: there is no item of this identifier.
        BackfillError: the role has no operator's rights.
    """
    with permitted():
        return await client.schedules.change(identifier, to, by=by)


async def pause(client: BackfillClient, identifier: str, *, by: str | None = None) -> ScheduleInfo:
    """Pause an item.

    Raises:
        ScheduleNotFoundError: there is no item of this identifier.
        BackfillError: the role has no operator's rights.
    """
    with permitted():
        return await client.schedules.pause(identifier, by=by)


async def resume(client: BackfillClient, identifier: str, *, by: str | None = None) -> ScheduleInfo | None:
    """End the pause of an item; None if it was not paused.

    Raises:
        ScheduleNotFoundError: there is no item of this identifier.
        BackfillError: the role has no operator's rights.
    """
    with permitted():
        return await client.schedules.resume(identifier, by=by)


async def remove(client: BackfillClient, identifier: str, *, by: str | None = None) -> ScheduleInfo:
    """Remove an item.

    Raises:
        ScheduleNotFoundError: there is no item of this identifier.
        BackfillError: the role has no operator's rights.
    """
    with permitted():
        return await client.schedules.remove(identifier, by=by)


async def reset(client: BackfillClient, identifier: str, *, by: str | None = None) -> ScheduleInfo | None:
    """Forget what operators said of an item, so that the code's text counts again; None if they said nothing.

    Raises:
        ScheduleNotFoundError: there is no item of this identifier.
        BackfillError: operators added it and no code declares it, or the role has no operator's rights.
    """
    with permitted():
        return await client.schedules.reset(identifier, by=by)


async def trigger(client: BackfillClient, identifier: str) -> Job:
    """Add a job of an item now.

    Raises:
        ScheduleNotFoundError: there is no item of this identifier.
        BackfillError: the role has no operator's rights.
    """
    with permitted():
        return await client.schedules.trigger(identifier)


def coming(schedules: list[Schedule], after: datetime, count: int) -> list[Coming]:
    """The next runs of some items together, the earliest first.

    Args:
        schedules: the items.
        after: the time after which the runs are.
        count: how many there are at most.
    """
    found = [Coming(schedule, run) for schedule in schedules for run in next_runs(schedule, after, count)]
    return sorted(found, key=lambda one: (one.run, one.schedule.identifier))[:count]


def preview(schedule: Schedule, after: datetime, count: int) -> list[ClockChange]:
    """The next changes of clocks that concern an item, each with what becomes of the item's times.

    Args:
        schedule: the item.
        after: the time after which the changes are.
        count: how many there are at most.
    """
    return clock_changes(schedule, after, count)
