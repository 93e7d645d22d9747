"""`backfill cron list`, `show`, `next` and `preview`: what there is, when it runs, and what changes of clocks do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Final

import typer

from backfill.cli.common import DsnOption, JsonOption, SchemaOption, one_line, with_client
from backfill.cli.cron.lines import one_item
from backfill.errors import BackfillError, ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime

    from backfill.cron import Schedule
    from backfill.cron.preview import ClockChange
    from backfill.schedules import ScheduleInfo

MOST_RUNS: Final = 1_000
MOST_CHANGES: Final = 20
MOST_ALIKE: Final = 6
"""How many times in a row with the same fate are all shown; of more, the first two and the last are."""

_Identifier = Annotated[str | None, typer.Argument(metavar="IDENTIFIER", hidden=True, show_default=False)]
_Line = Annotated[
    str | None,
    typer.Option("--line", metavar="LINE", help="A line of a crontab instead of an identifier; no database is needed."),
]
_After = Annotated[
    str | None,
    typer.Option("--after", metavar="ISO", help="Later than this: 2030-01-31T12:00:00Z, or a day; now if not given."),
]


def list_all(as_json: JsonOption = False, dsn: DsnOption = None, schema: SchemaOption = None) -> None:
    """List all recurring jobs: those that run, and those that are paused, rest or were removed."""
    from backfill.operate import schedules as operate
    from backfill.operate.described_schedules import HEADINGS, cells, data, table

    found = with_client(dsn, schema, operate.standing)
    if as_json:
        typer.echo(json.dumps([data(info) for info in found]))
    elif found:
        for line in table([HEADINGS, *([one_line(cell) for cell in cells(info)] for info in found)]):
            typer.echo(line)
    else:
        typer.echo("there is no recurring job: neither a worker's code nor an operator names one")
    for note in _notes(found):
        typer.echo(one_line(note), err=True)


def show(
    identifier: Annotated[str, typer.Argument(metavar="IDENTIFIER", hidden=True)],
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Show all that is known of the recurring job IDENTIFIER."""
    from backfill.operate import schedules as operate
    from backfill.operate.described_schedules import data, details

    info = with_client(dsn, schema, lambda client: operate.one(client, identifier))
    if as_json:
        typer.echo(json.dumps(data(info)))
        return
    for name, value in details(info):
        typer.echo(f"{name:18} {one_line(value)}")


def coming(
    identifier: _Identifier = None,
    line: _Line = None,
    count: Annotated[int, typer.Option("--count", metavar="N", help="How many runs.")] = 10,
    after: _After = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Print the next runs of the recurring job IDENTIFIER, of a line of a crontab, or of all that run."""
    from backfill.operate import schedules as operate
    from backfill.operate.described_schedules import coming_data, coming_words

    _check_count("--count", count, MOST_RUNS)
    start = _time(after)
    if identifier is None and line is None:
        schedules, now = _running(dsn, schema)
    else:
        schedule, now = _chosen("next", identifier, line, dsn, schema)
        schedules = [schedule]
    found = operate.coming(schedules, start or now, count)
    if as_json:
        typer.echo(json.dumps([coming_data(one) for one in found]))
        return
    for one in found:
        typer.echo(one_line(coming_words(one)))
    if not found:
        typer.echo("no recurring job runs")


def preview(
    identifier: _Identifier = None,
    line: _Line = None,
    count: Annotated[int, typer.Option("--count", metavar="N", help="How many changes of clocks.")] = 2,
    after: _After = None,
    as_json: JsonOption = False,
    dsn: DsnOption = None,
    schema: SchemaOption = None,
) -> None:
    """Show what the next changes of clocks do to the recurring job IDENTIFIER, or to a line of a crontab.

    Of the day of each change and the days beside it, the times that the item names are printed: the local time, its
    offset from UTC, the run, and what became of it.
    """
    from backfill.operate import schedules as operate
    from backfill.operate.described_schedules import change_data

    _check_count("--count", count, MOST_CHANGES)
    start = _time(after)
    schedule, now = _chosen("preview", identifier, line, dsn, schema)
    changes = operate.preview(schedule, start or now, count)
    if as_json:
        items = [change_data(change) for change in changes]
        typer.echo(json.dumps({"identifier": schedule.identifier, "timezone": schedule.timezone, "changes": items}))
        return
    for text in _previewed(schedule, changes):
        typer.echo(one_line(text))


def _notes(found: list[ScheduleInfo]) -> Iterator[str]:
    """What an operator should know about the list: why nothing runs, and which texts contradict each other."""
    if any(info.next_run is not None and not info.schedulers for info in found):
        yield "note: no live worker schedules, so nothing runs until one starts"
    for info in found:
        if info.other_lines:
            name = info.identifier
            yield f"note: live workers declare {name} with different lines: `backfill cron show {name}` has them"


def _previewed(schedule: Schedule, changes: list[ClockChange]) -> Iterator[str]:
    """The lines that `preview` prints; of many times in a row that have the same fate, most are left out."""
    from backfill.operate.described_schedules import change_words, time_words

    if not changes:
        clocks = "every= follows no clock" if schedule.every else f"the clocks of {schedule.timezone} stay as they are"
        yield f"no change of clocks concerns {schedule.identifier}: {clocks}"
    for change in changes:
        yield change_words(schedule, change)
        for _, alike in groupby(change.times, key=attrgetter("fate", "offset")):
            times = list(alike)
            shown = times if len(times) <= MOST_ALIKE else [*times[:2], times[-1]]
            lines = [f"  {time_words(schedule, one)}" for one in shown]
            if len(shown) < len(times):
                lines.insert(2, f"  ... and {len(times) - len(shown)} more like these")
            yield from lines
        if not change.times:
            yield "  it names no time on this day, on the day before or on the day after"


def _chosen(
    command: str, identifier: str | None, line: str | None, dsn: str | None, schema: str | None
) -> tuple[Schedule, datetime]:
    """The item that the command is about, and the time from which on it is looked at."""
    from datetime import UTC, datetime

    from backfill.operate import schedules as operate

    if (identifier is None) is (line is None):
        raise ConfigurationError(f'{command}: give either an identifier or --line "0 4 * * * report"')
    if identifier is None:
        return one_item("--line", line or ""), datetime.now(UTC)
    info = with_client(dsn, schema, lambda client: operate.one(client, identifier))
    if info.schedule is None:
        raise BackfillError(f"{identifier}: this version of backfill cannot read its line")
    if info.next_run is None:
        typer.echo(one_line(f"note: {identifier} is {info.state}, and does not run now"), err=True)
    return info.schedule, info.looked_at


def _running(dsn: str | None, schema: str | None) -> tuple[list[Schedule], datetime]:
    """All items that run, and the database's time."""
    from datetime import UTC, datetime

    from backfill.operate import schedules as operate

    found = with_client(dsn, schema, operate.standing)
    running = [info.schedule for info in found if info.schedule is not None and info.next_run is not None]
    return running, found[0].looked_at if found else datetime.now(UTC)


def _check_count(option: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise ConfigurationError(f"{option} = {count}: an integer from 1 to {most}")


def _time(text: str | None) -> datetime | None:
    """A time of the option --after; a day alone begins in UTC."""
    from datetime import UTC, date, datetime, time

    if text is None:
        return None
    try:
        if len(text) == len("2030-01-31"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        moment = datetime.fromisoformat(text)
        if moment.utcoffset() is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ConfigurationError(
        f"--after = {text!r}: an ISO 8601 time with its zone, such as 2030-01-31T12:00:00Z, or a day"
    )
