"""The schedules that a program declares, by their identifiers, of which each may be used once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backfill.cron.schedule import Schedule
from backfill.cron.text import parse_crontab
from backfill.errors import TaskDefinitionError

__all__ = ["CrontabSource", "Declared", "schedules_of"]

CrontabSource = str | Iterable[Schedule]
"""Schedules, or the text of a crontab."""


class Declared:
    """The schedules that were declared so far, by their identifiers."""

    def __init__(self) -> None:
        self._declared: dict[str, tuple[Schedule, str]] = {}

    def add(self, schedules: Iterable[Schedule], where: str) -> None:
        """Add schedules, either all or none of them.

        Args:
            schedules: the schedules.
            where: who declares them, such as `crontab=`; messages show it.

        Raises:
            TaskDefinitionError: two schedules have one identifier; the message names both.
        """
        added: dict[str, tuple[Schedule, str]] = {}
        for schedule in schedules:
            other = self._declared.get(schedule.identifier) or added.get(schedule.identifier)
            if other is not None:
                raise TaskDefinitionError(
                    f"schedule {schedule.identifier!r} is declared twice: {_shown(*other)}, and "
                    f"{_shown(schedule, where)}. Give one of them an identifier of its own: id= in a crontab and in "
                    "@tasks.cron, identifier= in Schedule"
                )
            added[schedule.identifier] = (schedule, where)
        self._declared |= added

    def where(self, identifier: str) -> str:
        """Who declares a schedule, as it was given to `add`."""
        return self._declared[identifier][1]

    def copy(self) -> Declared:
        """Another one with the same schedules."""
        other = Declared()
        other._declared = dict(self._declared)
        return other

    def __iter__(self) -> Iterator[Schedule]:
        """The schedules, in the order in which they were declared."""
        return (schedule for schedule, _ in self._declared.values())

    def __len__(self) -> int:
        """How many schedules there are."""
        return len(self._declared)


def schedules_of(crontab: CrontabSource) -> tuple[Schedule, ...]:
    """The schedules of a crontab's text, or the given schedules.

    Raises:
        CrontabParseError: the text cannot be read.
        TaskDefinitionError: something else than a text or schedules was given.
    """
    if isinstance(crontab, str):
        return parse_crontab(crontab)
    if isinstance(crontab, Iterable):
        schedules = tuple(crontab)
        if all(isinstance(schedule, Schedule) for schedule in schedules):
            return schedules
    raise TaskDefinitionError(
        f"crontab: expected the text of a crontab, or a list of Schedule objects; got one of type "
        f"{type(crontab).__name__}"
    )


def _shown(schedule: Schedule, where: str) -> str:
    """A schedule in a message; its payload may be a secret, so it is left out."""
    times = f"every {schedule.every}" if schedule.when is None else f'"{schedule.when}"'
    return f"{times} of task {schedule.task!r} by {where}"
