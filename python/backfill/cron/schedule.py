"""A recurring item: which task, when, in which zone, and how its jobs are to be run."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, TypeVar

import orjson

from backfill.checks import IDENTIFIER_LIMIT, KEY_LIMIT, SMALLINT, check_duration, check_int, check_text
from backfill.cron.fields import EVERY_MINUTE, Fields, read_when
from backfill.cron.pieces import Piece
from backfill.cron.printing import text_of
from backfill.cron.zones import zone_of
from backfill.errors import InvalidJobError, InvalidPayloadError
from backfill.payloads import encode_plain
from backfill.payloads.scheduled import RUN_KEY
from backfill.retry import MAX_ATTEMPTS_LIMIT
from backfill.specs import JobKeyMode

_NONE: Final = timedelta(0)
_SECOND: Final = timedelta(seconds=1)


class Dst(StrEnum):
    """What becomes of runs on the days on which a zone's clocks change, if minute and hour are fixed."""

    SKIP = "skip"
    """A run that falls in the gap, when clocks are set forward, is left out; one in the repeated time runs once."""
    ONCE = "once"
    """A run that falls in the gap happens at the gap's end; one in the repeated time runs the first time only."""
    TWICE = "twice"
    """A run that falls in the gap happens at the gap's end; one in the repeated time runs both times."""


class Overlap(StrEnum):
    """What becomes of a run whose predecessor's job still waits or runs."""

    ALLOW = "allow"
    """A job is added all the same."""
    SKIP = "skip"
    """No job is added."""


class Missed(StrEnum):
    """Which of the runs are made up for that were missed while no scheduler ran."""

    ALL = "all"
    """All of them within `fill`."""
    LAST = "last"
    """The last one within `fill`."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A recurring item: a task, and when a job of it is to be added.

    An item runs either at the times of five fields (`when`) or at equal distances (`every`). Two items are equal if all
    their settings are. `str(schedule)` gives the item as a line of a crontab, with its payload.

    Args:
        task: the task's identifier, 1 to 128 characters.
        when: minute, hour, day of the month, month and day of the week, such as "30 4 * * mon-fri", or a short form
            such as "@daily". All five have to match. Afterwards the attribute holds the five fields in one form.
        every: the distance between runs instead of `when`, in whole seconds, at least one. Runs are at the multiples of
            it, counted from 1970-01-01 00:00 UTC.
        identifier: what tells the item from all others, 1 to 128 characters; the task's identifier if not given.
        timezone: the zone whose clocks `when` is compared with, by its IANA name such as Europe/Berlin.
        dst: what happens on the days on which that zone's clocks change, if minute and hour are fixed. An item with a
            `*` in one of the two follows the clock: it does not run in the gap, and it runs in both repeated hours.
        payload: the payload of the jobs: an object, or a value of a class that JSON writes as an object. None means
            that the item says nothing of it. The attribute holds plain values, which must not be changed.
        fill: how far back missed runs are made up for; 0 for not at all.
        max_attempts: the number of all runs of a job, 1 to 32,767; as for other jobs if not given.
        queue: the name of a serial queue; without one the jobs run in parallel.
        priority: -32,768 to 32,767, lower first; as for other jobs if not given.
        job_key: the key of the jobs, 1 to 512 characters; a waiting job with the key is replaced.
        job_key_mode: REPLACE, which is the default where a key is given, or PRESERVE_RUN_AT.
        jitter: the longest time by which a job may begin later than its run; `due_at` says by how much.
        overlap: what happens if the job of the run before still waits or runs.
        missed: which missed runs within `fill` are made up for.

    Raises:
        CrontabParseError: `when` cannot be read, or no day could ever match it.
        InvalidPayloadError: the payload is not written as an object, or JSON cannot hold it.
        InvalidJobError: another argument cannot be used; the message names it and the limit.

    Example:
        >>> from backfill.cron import Schedule
        >>> print(Schedule("report", "30 4 * * mon-fri", timezone="Europe/Berlin", payload={"to": "boss"}))
        30 4 * * 1-5 report ?tz=Europe/Berlin {"to":"boss"}
    """

    task: str
    when: str | None = None
    _: KW_ONLY
    every: timedelta | None = None
    identifier: str = ""
    timezone: str = "UTC"
    dst: Dst = Dst.ONCE
    payload: Any = field(default=None, hash=False, repr=False)
    fill: timedelta = _NONE
    max_attempts: int | None = None
    queue: str | None = None
    priority: int | None = None
    job_key: str | None = None
    job_key_mode: JobKeyMode | None = None
    jitter: timedelta = _NONE
    overlap: Overlap = Overlap.ALLOW
    missed: Missed = Missed.ALL
    fields: Fields | None = field(init=False, repr=False, compare=False)
    """The five fields as numbers; None if the item has `every`."""

    def __post_init__(self) -> None:
        """Refuse what cannot be used, and bring the rest to one form."""
        check_text("task", self.task, IDENTIFIER_LIMIT)
        if self.identifier == "":
            self._set("identifier", self.task)
        check_text("identifier", self.identifier, IDENTIFIER_LIMIT)
        self._read_times()
        for name, longest in (("queue", IDENTIFIER_LIMIT), ("job_key", KEY_LIMIT)):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name), longest)
        check_int("max_attempts", self.max_attempts, range(1, MAX_ATTEMPTS_LIMIT + 1))
        check_int("priority", self.priority, SMALLINT)
        _check_span("fill", self.fill, least=_NONE)
        _check_span("jitter", self.jitter, least=_NONE)
        self._set("dst", _choice("dst", self.dst, Dst))
        self._set("overlap", _choice("overlap", self.overlap, Overlap))
        self._set("missed", _choice("missed", self.missed, Missed))
        self._set("job_key_mode", _mode(self.job_key, self.job_key_mode))
        self._set("payload", _plain(self.payload))

    def __str__(self) -> str:
        """The item as a line of a crontab; `parse_crontab` makes an equal one of it."""
        return text_of(self)

    def _read_times(self) -> None:
        if self.every is not None:
            _check_span("every", self.every, least=_SECOND)
            if self.when is not None and self.when != EVERY_MINUTE:
                raise InvalidJobError("when", self.when, "None beside every=, which says how often the item runs")
            if self.timezone != "UTC":
                raise InvalidJobError("timezone", self.timezone, "UTC beside every=, which counts from 1970 on in UTC")
            if self.dst != Dst.ONCE:
                raise InvalidJobError("dst", self.dst, "nothing beside every=, which knows no change of clocks")
            self._set("when", None)
            self._set("fields", None)
            return
        check_text("timezone", self.timezone, IDENTIFIER_LIMIT)
        zone_of(self.timezone)
        if not isinstance(self.when, str):
            raise InvalidJobError("when", self.when, 'five fields, such as "30 4 * * *", unless every= is given')
        fields = read_when(Piece(self.when))
        self._set("fields", fields)
        self._set("when", fields.text)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


_Choice = TypeVar("_Choice", bound=StrEnum)


def _choice(name: str, value: str, kind: type[_Choice]) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        raise InvalidJobError(name, value, " or ".join(kind)) from None


def _check_span(name: str, value: object, *, least: timedelta) -> None:
    if not isinstance(value, timedelta):
        raise InvalidJobError(name, value, "a datetime.timedelta")
    check_duration(name, value, zero=True)
    if value < least or value % _SECOND:
        raise InvalidJobError(name, value, f"whole seconds, {least // _SECOND} at least")


def _mode(key: str | None, value: JobKeyMode | None) -> JobKeyMode | None:
    if value is None:
        return None if key is None else JobKeyMode.REPLACE
    if value not in (JobKeyMode.REPLACE, JobKeyMode.PRESERVE_RUN_AT):
        raise InvalidJobError("job_key_mode", value, "replace or preserve_run_at")
    if key is None:
        raise InvalidJobError("job_key_mode", value, "a job_key beside it")
    return JobKeyMode(value)


def _plain(payload: object) -> dict[str, Any] | None:
    """A payload as plain values, which nobody else holds."""
    if payload is None:
        return None
    plain = orjson.loads(encode_plain(payload))
    if not isinstance(plain, dict):
        raise InvalidPayloadError(
            "payload", payload, f"an object, beside whose keys the scheduler writes its own, {RUN_KEY}"
        )
    if RUN_KEY in plain:
        raise InvalidPayloadError(
            "payload", payload, f"an object without the key {RUN_KEY}, which the scheduler writes"
        )
    return plain
