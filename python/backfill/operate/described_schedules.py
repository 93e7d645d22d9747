"""Recurring items, their runs, and changes of clocks: in words for people, and as plain data for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from backfill.cron import Dst, Schedule
from backfill.cron.preview import ClockChange, Fate, NamedTime
from backfill.operate.schedules import Coming
from backfill.schedules import ScheduleInfo, ScheduleOrigin, ScheduleState

HEADINGS: Final = ("identifier", "state", "text of", "next run", "last run", "last job", "item")
NONE: Final = "-"


def cells(info: ScheduleInfo) -> tuple[str, ...]:
    """An item as a row of a table under `HEADINGS`; the payload is left out."""
    return (
        info.identifier,
        str(info.state),
        "the code" if info.origin is ScheduleOrigin.CODE else "an operator",
        _time(info.next_run),
        _time(info.last_run),
        _job(info),
        _without_payload(info),
    )


def details(info: ScheduleInfo) -> Iterator[tuple[str, str]]:
    """All that is known of an item: what each value is, and the value."""
    yield "identifier", info.identifier
    yield "item", info.line
    yield "state", _state(info)
    yield "text of", _origin(info)
    if info.code_line is not None and info.code_line != info.line:
        yield "the code says", info.code_line
    for line in info.other_lines:
        yield "other workers say", line
    yield "next run", _time(info.next_run) if info.schedule is None else _local(info.schedule, info.next_run)
    yield "last run", _time(info.last_run) if info.schedule is None else _local(info.schedule, info.last_run)
    yield "last job", _job(info) + ("" if info.last_job_run is None else f", of the run {_time(info.last_job_run)}")
    yield "known since", _time(info.known_since)
    if info.said_by is not None:
        yield "last changed", f"by {info.said_by}, {_time(info.said_at)}"


def sentence(info: ScheduleInfo) -> str:
    """What stands of an item now, in one sentence, as after something was said of it; the payload is left out."""
    if info.state is ScheduleState.REMOVED:
        return f"{info.identifier} is removed"
    if info.state is ScheduleState.RESTING:
        return f"{info.identifier} rests: no live worker declares it"
    if info.state is ScheduleState.PAUSED:
        return f"{info.identifier} is paused: {_without_payload(info)}"
    when = "" if info.next_run is None else f", next {_time(info.next_run)}"
    return f"{info.identifier} runs{when}: {_without_payload(info)}"


def data(info: ScheduleInfo) -> dict[str, Any]:
    """An item as values of JSON; times are ISO 8601."""
    return {
        "identifier": info.identifier,
        "task": None if info.schedule is None else info.schedule.task,
        "line": info.line,
        "state": str(info.state),
        "origin": str(info.origin),
        "next_run": _iso(info.next_run),
        "last_run": _iso(info.last_run),
        "known_since": _iso(info.known_since),
        "last_job_id": info.last_job_id,
        "last_job_run": _iso(info.last_job_run),
        "last_job_state": info.last_job_state,
        "last_end": None if info.last_end is None else str(info.last_end),
        "last_ended_at": _iso(info.last_ended_at),
        "declared_by": info.declared_by,
        "schedulers": info.schedulers,
        "code_line": info.code_line,
        "other_lines": list(info.other_lines),
        "paused_at": _iso(info.paused_at),
        "paused_by": info.paused_by,
        "removed_at": _iso(info.removed_at),
        "said_by": info.said_by,
        "said_at": _iso(info.said_at),
    }


def coming_words(one: Coming) -> str:
    """A coming run in words: its time in UTC, the local time where the item has a zone, and the item."""
    return f"{_local(one.schedule, one.run)}  {one.schedule.identifier}"


def coming_data(one: Coming) -> dict[str, Any]:
    """A coming run as values of JSON."""
    local = one.run.astimezone(_zone(one.schedule))
    return {"identifier": one.schedule.identifier, "run": _iso(one.run), "local": _iso(local)}


def change_words(schedule: Schedule, change: ClockChange) -> str:
    """A change of clocks in words, as the heading of the times around it."""
    before = (change.at + change.before).replace(tzinfo=None)
    after = (change.at + change.after).replace(tzinfo=None)
    return (
        f"{schedule.timezone}: clocks go from {before:%Y-%m-%d %H:%M} ({_offset(change.before)}) "
        f"to {after:%Y-%m-%d %H:%M} ({_offset(change.after)})"
    )


def time_words(schedule: Schedule, one: NamedTime) -> str:
    """A time around a change of clocks in words: the local time, its offset, the run in UTC, and what became of it."""
    offset = "no clock" if one.offset is None else _offset(one.offset)
    run = "no run" if one.run is None else f"{one.run:%Y-%m-%d %H:%M} UTC"
    return f"{one.local:%a %Y-%m-%d %H:%M}  {offset:8}  {run:20}  {_fate(schedule, one)}".rstrip()


def change_data(change: ClockChange) -> dict[str, Any]:
    """A change of clocks as values of JSON; offsets are in seconds."""
    return {
        "at": _iso(change.at),
        "before": change.before.total_seconds(),
        "after": change.after.total_seconds(),
        "times": [
            {
                "local": one.local.isoformat(),
                "offset": None if one.offset is None else one.offset.total_seconds(),
                "run": _iso(one.run),
                "fate": str(one.fate),
            }
            for one in change.times
        ],
    }


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines whose columns stand below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _without_payload(info: ScheduleInfo) -> str:
    """The text of an item without its payload, which may be long, and a secret."""
    if info.schedule is None:
        return info.line.partition("{")[0].rstrip()
    return str(replace(info.schedule, payload=None))


def _fate(schedule: Schedule, one: NamedTime) -> str:
    fixed = schedule.fields is not None and schedule.fields.fixed
    if one.fate is Fate.RUNS:
        return ""
    if one.fate is Fate.MOVED:
        return f"no clock shows this time: it runs at the end of the gap (dst={schedule.dst})"
    if one.fate is Fate.FIRST:
        return "clocks show this time twice: it runs the first time"
    if one.fate is Fate.SECOND:
        why = f"dst={Dst.TWICE}" if fixed else "an item with a * follows the clock"
        return f"clocks show this time twice: it runs the second time too ({why})"
    if one.fate is Fate.NOT_AGAIN:
        return f"clocks show this time twice: it does not run again (dst={schedule.dst})"
    why = f"dst={schedule.dst}" if fixed else "an item with a * follows the clock"
    return f"no clock shows this time: it is left out ({why})"


def _state(info: ScheduleInfo) -> str:
    if info.state is ScheduleState.PAUSED:
        return f"paused by {info.paused_by}, {_time(info.paused_at)}"
    if info.state is ScheduleState.REMOVED:
        return f"removed by {info.said_by}, {_time(info.removed_at)}"
    if info.state is ScheduleState.RESTING:
        return "resting: no live worker declares it"
    return str(info.state)


def _origin(info: ScheduleInfo) -> str:
    workers = "1 live worker declares" if info.declared_by == 1 else f"{info.declared_by} live workers declare"
    whose = "the code" if info.origin is ScheduleOrigin.CODE else "an operator"
    return f"{whose}; {workers} the item"


def _job(info: ScheduleInfo) -> str:
    if info.last_job_id is None:
        return NONE
    end = info.last_job_state if info.last_end is None else info.last_end
    return f"{info.last_job_id} {end or ''}".rstrip()


def _local(schedule: Schedule, run: datetime | None) -> str:
    """A run in UTC, and what the clocks of the item's zone show then."""
    if run is None or schedule.timezone == "UTC":
        return _time(run)
    local = run.astimezone(_zone(schedule))
    return f"{_time(run)} ({local:%Y-%m-%d %H:%M} in {schedule.timezone}, {_offset(local.utcoffset() or timedelta())})"


def _zone(schedule: Schedule) -> ZoneInfo:
    return ZoneInfo(schedule.timezone)


def _offset(offset: timedelta) -> str:
    """An offset from UTC as `+02:00`; zones of long ago have seconds too."""
    sign = "-" if offset < timedelta(0) else "+"
    hours, rest = divmod(int(abs(offset).total_seconds()), 3_600)
    seconds = f":{rest % 60:02}" if rest % 60 else ""
    return f"{sign}{hours:02}:{rest // 60:02}{seconds}"


def _time(time: datetime | None) -> str:
    return NONE if time is None else time.astimezone(UTC).isoformat(sep=" ", timespec="seconds")


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
