"""The filter that says which jobs of the queue are meant, for calls that concern many jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from backfill.checks import (
    BIGINT,
    IDENTIFIER_LIMIT,
    KEY_LIMIT,
    SMALLINT,
    check_duration,
    check_int,
    check_text,
    check_time,
    checked_flags,
)
from backfill.errors import InvalidJobError

_MOST: Final = range(1, 2**31)


class JobState(StrEnum):
    """Where a job of the queue stands."""

    WAITING = "waiting"
    """No worker holds it, and it has attempts left; it may be due, or wait for its time."""
    RUNNING = "running"
    """A worker holds it."""
    FAILED = "failed"
    """No worker holds it, and it has no attempt left: a worker moves it to the dead letters within a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs of the queue are meant; an argument that is not given does not filter.

    Args:
        ids: the jobs' ids.
        tasks: a glob of task names or a list of them (`video.*`).
        queues: a glob of serial queues' names or a list of them (`user:*`); an empty text means parallel jobs.
        key_prefix: what the jobs' keys begin with.
        priority: a priority, or a range of them.
        run_at_from: jobs that are due at this time or later; an aware time.
        run_at_until: jobs that are due at this time or earlier; an aware time.
        state: whether the jobs wait, run or have failed for good.
        flags: names of flags; a job that has one of them matches.
        older_than: jobs that were added longer ago than this, by the database's clock.
        limit: the largest number of jobs, those with the smallest ids first.

    Raises:
        InvalidJobError: a value is out of range; the error names it.
    """

    ids: Iterable[int] | None = None
    tasks: str | Iterable[str] | None = None
    queues: str | Iterable[str] | None = None
    key_prefix: str | None = None
    priority: int | range | None = None
    run_at_from: datetime | None = None
    run_at_until: datetime | None = None
    state: JobState | None = None
    flags: Iterable[str] | None = None
    older_than: timedelta | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that no job could match."""
        if self.ids is not None:
            self._settle("ids", _ids(self.ids))
        if self.tasks is not None:
            self._settle("tasks", _globs("tasks", self.tasks, empty=False))
        if self.queues is not None:
            self._settle("queues", _globs("queues", self.queues, empty=True))
        if self.key_prefix is not None:
            check_text("key_prefix", self.key_prefix, KEY_LIMIT)
        if isinstance(self.priority, range):
            _check_range(self.priority)
        else:
            check_int("priority", self.priority, SMALLINT)
        check_time("run_at_from", self.run_at_from)
        check_time("run_at_until", self.run_at_until)
        if self.state is not None:
            self._settle("state", _state(self.state))
        if self.flags is not None:
            flags = checked_flags(self.flags)
            if not flags:
                raise InvalidJobError("flags", self.flags, "one flag at least, or leave it out")
            self._settle("flags", flags)
        check_duration("older_than", self.older_than, zero=True)
        check_int("limit", self.limit, _MOST)

    @property
    def is_empty(self) -> bool:
        """Whether every job matches; `limit` alone does not say which jobs are meant."""
        return all(getattr(self, one.name) is None for one in fields(self) if one.name != "limit")

    def _settle(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _state(value: JobState) -> JobState:
    try:
        return JobState(value)
    except ValueError:
        raise InvalidJobError("state", value, f"one of {', '.join(JobState)}") from None


def _ids(value: object) -> tuple[int, ...]:
    for number in (ids := _listed("ids", value)):
        if not isinstance(number, int) or isinstance(number, bool) or number not in BIGINT:
            raise InvalidJobError("ids", number, "a job's id: an integer from -2^63 to 2^63 - 1")
    return tuple(sorted(set(ids)))


def _globs(field: str, value: object, *, empty: bool) -> tuple[str, ...]:
    globs = (value,) if isinstance(value, str) else _listed(field, value)
    if not globs:
        raise InvalidJobError(field, value, "one glob at least, or leave it out")
    for glob in globs:
        if not (empty and glob == ""):
            check_text(field, glob, IDENTIFIER_LIMIT)
    return tuple(map(str, globs))


def _listed(field: str, value: object) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidJobError(field, value, "a list")
    return tuple(value)


def _check_range(value: range) -> None:
    if value.step != 1 or not value or value.start not in SMALLINT or value.stop - 1 not in SMALLINT:
        raise InvalidJobError("priority", value, "a range of priorities with step 1, within -32768 to 32767")
