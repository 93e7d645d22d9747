"""Statements by which operators say something to the fleet, list what stands, and undo it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from backfill.checks import ENTRY_IDS, check_int
from backfill.client.verbs.asked import Verb
from backfill.controls import (
    CONCURRENCY,
    Control,
    ControlKind,
    check_words,
    named_subject,
    paused_subject,
    read_control,
)
from backfill.errors import InvalidJobError
from backfill.limits import Limit, Rate, checked, to_json
from backfill.storage.results import Row, first, rows

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult


def find_controls() -> Verb[list[Control]]:
    """List what stands said, oldest first."""
    return Verb("find_controls", (), lambda found: [_control(row) for row in rows(found)])


def pause(task: str | None, queue: str | None, everything: bool, reason: str, by: str | None) -> Verb[Control]:
    """Pause a task, a serial queue or everything."""
    return _say(ControlKind.PAUSE, paused_subject(task, queue, everything), {}, reason, by)


def resume(task: str | None, queue: str | None, everything: bool) -> Verb[Control | None]:
    """End the pause of a task, a serial queue or everything."""
    return Verb("unsay", (ControlKind.PAUSE, paused_subject(task, queue, everything)), _undone)


def set_concurrency(lane: str, concurrency: int, reason: str, by: str | None) -> Verb[Control]:
    """Set the concurrency of the lanes of a name."""
    if concurrency is None:
        raise InvalidJobError("concurrency", concurrency, "a number; to go back to the workers' own, undo the control")
    check_int("concurrency", concurrency, CONCURRENCY)
    said = {"concurrency": int(concurrency)}
    return _say(ControlKind.CONCURRENCY, named_subject("lane", lane), said, reason, by)


def set_limit(task: str, limit: Limit | int | None, rate: Rate | None, reason: str, by: str | None) -> Verb[Control]:
    """Set the limit and the rate of a task."""
    subject = named_subject("task", task)
    return _say(ControlKind.LIMIT, subject, to_json(*checked(limit, rate)), reason, by)


def undo(control: Control | int) -> Verb[Control | None]:
    """Undo a control by its number."""
    number = control.id if isinstance(control, Control) else control
    if number is None:
        raise InvalidJobError("control", control, "a Control or its id")
    check_int("control", number, ENTRY_IDS)
    return Verb("unsay_version", (str(int(number)),), _undone)


def _say(kind: ControlKind, subject: str, said: dict[str, Any], reason: str, by: str | None) -> Verb[Control]:
    check_words(reason, by)
    parameters = (str(kind), subject, orjson.dumps(said).decode(), by, reason)
    return Verb("say", parameters, lambda found: _control(first(found)))


def _undone(found: PGresult) -> Control | None:
    return next((_control(row) for row in rows(found)), None)


def _control(row: Row) -> Control:
    return read_control(
        id=row.whole("version"),
        kind=row.word("kind"),
        subject=row.word("subject"),
        said=row.word("said"),
        by=row.word("said_by"),
        reason=row.word("reason"),
        said_at=row.time("said_at"),
    )
