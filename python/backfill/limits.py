"""Limits of tasks: how many jobs of a task may run in the whole fleet at once, and how many may start in a period.

The decorator of tasks takes them, operators set them through a client, and workers keep them. As JSON they stand in
`backfill_control` and in the rows of workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from backfill.checks import check_path
from backfill.errors import LONGEST_WAIT, ConfigurationError, InvalidJobError
from backfill.shown import shown

MOST: Final = 1_000_000
"""The largest number of jobs at once, of starts in a period, and of a burst."""
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many jobs of a task run in the whole fleet at once.

    Args:
        most: how many, 1 to 1,000,000.
        by: a field of the payload, such as `"tenant_id"`, or a path to one within objects, such as `"customer.id"`.
            Each of its values then has a limit of its own. None limits all jobs of the task together.

    Raises:
        ConfigurationError: a value is out of range; the message names it.

    Example:
        ```python
        Limit(4)                     # four jobs of the task at once
        Limit(2, by="tenant_id")     # two at once for each tenant
        ```
    """

    most: int
    by: str | None = None

    def __post_init__(self) -> None:
        """Refuse values by which nothing could be counted."""
        _check_count("limit", self.most, "to run none, pause the task")
        _check_path("limit", self.by)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many jobs of a task start in the whole fleet in a period.

    Starts are spread evenly: `Rate(100)` starts one job every 10 ms. With a burst of 10, ten jobs may start at once
    after the task has been idle; then they are spread evenly again.

    Args:
        count: how many jobs start in a period, 1 to 1,000,000.
        per: the period, at most 366 days; it must leave at least a microsecond between two starts.
        burst: how many jobs may start at once after the task has been idle, 1 to 1,000,000. The time that so many
            starts take at this rate is at most 366 days.
        by: as for `Limit`: each value of this field of the payload has a rate of its own. A task that has a limit too
            has the same `by` in both.

    Raises:
        ConfigurationError: a value is out of range; the message names it.

    Example:
        ```python
        Rate(100, burst=10)                              # 100 a second, ten of them at once after a pause
        Rate(5, per=timedelta(minutes=1), by="host")     # five a minute for each host
        ```
    """

    count: int
    per: timedelta = timedelta(seconds=1)
    burst: int = 1
    by: str | None = None

    def __post_init__(self) -> None:
        """Refuse values from which no time between two starts could be worked out."""
        _check_count("rate", self.count, "to start none, pause the task")
        if not isinstance(self.per, timedelta) or not timedelta(0) < self.per <= LONGEST_WAIT:
            raise _refused("per", self.per, "a datetime.timedelta over zero, at most 366 days")
        if self.per < self.count * _MICROSECOND:
            raise _refused("per", self.per, f"at least a microsecond for each of the {self.count} starts")
        _check_count("burst", self.burst, "1 allows no burst")
        if self.burst * self.per.total_seconds() / self.count > LONGEST_WAIT.total_seconds():
            raise _refused("burst", self.burst, "so few that their starts take at most 366 days at this rate")
        _check_path("rate", self.by)


def checked(limit: object, rate: object) -> tuple[Limit | None, Rate | None]:
    """Return a task's limit and rate as their types; a plain number is the limit of that many.

    Args:
        limit: a `Limit`, a number of jobs, or None.
        rate: a `Rate`, or None.

    Raises:
        ConfigurationError: a value is of another type or out of range, or the two name different fields.
    """
    if isinstance(limit, int):
        limit = Limit(limit)  # it refuses a bool too
    if limit is not None and not isinstance(limit, Limit):
        raise _refused("limit", limit, "a Limit, such as Limit(4, by='tenant_id'), or a number of jobs, or None")
    if rate is not None and not isinstance(rate, Rate):
        raise _refused("rate", rate, "a Rate, such as Rate(100, per=timedelta(seconds=1)), or None")
    if limit is not None and rate is not None and limit.by != rate.by:
        raise _refused("rate.by", rate.by, f"the same as limit.by, which is {limit.by!r}: give both, or neither")
    return limit, rate


def to_json(limit: Limit | None, rate: Rate | None) -> dict[str, Any]:
    """Return a limit and a rate in the form in which they are stored; both None say that there expressly is no limit.

    Args:
        limit: the limit, or None.
        rate: the rate, with the same `by` as the limit's, or None.
    """
    by = rate.by if limit is None and rate is not None else None if limit is None else limit.by
    return {
        "most": None if limit is None else limit.most,
        "by": by,
        "rate": None if rate is None else {"count": rate.count, "per": rate.per.total_seconds(), "burst": rate.burst},
    }


def from_json(stored: object) -> tuple[Limit | None, Rate | None]:
    """Return the limit and the rate that `to_json` wrote; what is missing is None, and unknown fields are ignored.

    Args:
        stored: the JSON, as Python values.

    Raises:
        ConfigurationError: it has another form, such as one of a later version.
    """
    if not isinstance(stored, Mapping):
        raise _refused("limits", stored, "a JSON object with 'most', 'by' and 'rate'")
    by, most, rate = stored.get("by"), stored.get("most"), stored.get("rate")
    limit = None if most is None else Limit(most, by)
    if rate is None:
        return limit, None
    if not isinstance(rate, Mapping):
        raise _refused("rate", rate, "a JSON object with 'count', 'per' and 'burst'")
    per = rate.get("per", 1.0)
    if not isinstance(per, (int, float)) or isinstance(per, bool) or not math.isfinite(per) or abs(per) > 1e9:
        raise _refused("per", per, "a number of seconds")
    return limit, Rate(rate.get("count", 0), timedelta(seconds=per), rate.get("burst", 1), by)


class Limited(Protocol):
    """What is asked of a task here; `Task` provides it."""

    identifier: str
    limit: Limit | None
    rate: Rate | None


def declared(tasks: Iterable[Limited]) -> dict[str, dict[str, Any]]:
    """Return the limits that the code of a worker's tasks declares, by the tasks' names, as JSON.

    Jobs that stand under an alias of a task count for the limit of the task, so aliases are not among the names.

    Args:
        tasks: the tasks; those without a limit and a rate are left out.
    """
    return {
        task.identifier: to_json(task.limit, task.rate)
        for task in tasks
        if task.limit is not None or task.rate is not None
    }


def _check_count(field: str, value: object, otherwise: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        raise _refused(field, value, f"an int from 1 to {MOST}; {otherwise}")


def _check_path(field: str, value: object) -> None:
    if value is not None:
        try:
            check_path(f"{field}.by", value)
        except InvalidJobError as error:
            raise ConfigurationError(str(error)) from None


def _refused(field: str, value: object, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{field} = {shown(value)}: expected {expected}")
