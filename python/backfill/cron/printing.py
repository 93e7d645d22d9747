"""An item as a line of a crontab."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import orjson

from backfill.cron.fields import EVERY_MINUTE
from backfill.cron.spans import show_span
from backfill.specs import JobKeyMode

if TYPE_CHECKING:
    from backfill.cron.schedule import Schedule

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_:/-]*")
"""A task's name that needs no quotes in a crontab."""
_NONE: Final = timedelta(0)
_OPTIONS: Final[tuple[tuple[str, str, object, Callable[[Any], str]], ...]] = (
    ("id", "identifier", None, str),
    ("every", "every", None, show_span),
    ("tz", "timezone", "UTC", str),
    ("dst", "dst", "once", str),
    ("fill", "fill", _NONE, show_span),
    ("max", "max_attempts", None, "{:d}".format),
    ("queue", "queue", None, str),
    ("priority", "priority", None, "{:d}".format),
    ("jobKey", "job_key", None, str),
    ("jobKeyMode", "job_key_mode", None, str),
    ("jitter", "jitter", _NONE, show_span),
    ("overlap", "overlap", "allow", str),
    ("missed", "missed", "all", str),
)
"""Each option, the argument of `Schedule` that it is, that argument's default, and how its value is written."""


def print_crontab(schedules: Iterable[Schedule]) -> str:
    r"""Write items as a crontab, a line an item.

    Args:
        schedules: the items; `parse_crontab` makes equal ones of the text.

    Example:
        >>> from backfill.cron import parse_crontab, print_crontab
        >>> print_crontab(parse_crontab("0  4 * * SUN  report  ?fill=24h"))
        '0 4 * * 0 report ?fill=1d\n'
    """
    return "".join(f"{schedule}\n" for schedule in schedules)


def text_of(schedule: Schedule) -> str:
    """One item as a line, without the end of the line."""
    plain = NAME.fullmatch(schedule.task) is not None
    parts = [schedule.when or EVERY_MINUTE, schedule.task if plain else orjson.dumps(schedule.task).decode()]
    options = "&".join(f"{name}={quote(value, safe='/:,')}" for name, value in _options(schedule))
    if options:
        parts.append(f"?{options}")
    if schedule.payload is not None:
        parts.append(orjson.dumps(schedule.payload).decode())
    return " ".join(parts)


def _options(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """The options that say something else than their defaults."""
    own = {"identifier": schedule.task, "job_key_mode": JobKeyMode.REPLACE if schedule.job_key else None}
    for option, argument, default, written in _OPTIONS:
        value = getattr(schedule, argument)
        if value != own.get(argument, default):
            yield option, written(value)
