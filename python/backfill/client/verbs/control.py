"""Statements by which operators say something to the fleet, list what stands, and undo it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from backfill.checks import ENTRY_IDS, check_int
from backfill.client.verbs.asked import Asked, Steps, Together, Verb
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
    from backfill.storage.results import Result


def find_controls() -> Verb[list[Control]]:
    """List what stands said, oldest first."""
    return Verb("find_controls", (), lambda found: [_control(row) for row in rows(found)])


def find_worker_controls() -> Verb[list[Control]]:
    """List what stands said but the pauses of serial queues, oldest first."""
    return Verb("find_worker_controls", (), lambda found: [_control(row) for row in rows(found)])


def count_knowing(task: str) -> Verb[int]:
    """Count the live workers that know a task by this name."""
    named_subject("task", task)
    return Verb("count_knowing", (task,), lambda found: first(found).whole("knowing"))


def pause(task: str | None, queue: str | None, everything: bool, reason: str, by: str | None) -> Verb[Control]:
    """Pause a task, a serial queue or everything."""
    return _say(ControlKind.PAUSE, paused_subject(task, queue, everything), {}, reason, by)


def resume(task: str | None, queue: str | None, everything: bool) -> Asked[Control | None]:
    """End the pause of a task, a serial queue or everything; a task's breaker is closed too."""
    subject = paused_subject(task, queue, everything)
    return _unsay(ControlKind.PAUSE, subject) if task is None else Together(_resume_task(subject))


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
    return Verb("unsay_version", (str(int(number)),), read_standing)


def _say(kind: ControlKind, subject: str, said: dict[str, Any], reason: str, by: str | None) -> Verb[Control]:
    check_words(reason, by)
    parameters = (str(kind), subject, orjson.dumps(said).decode(), by, reason)
    return Verb("say", parameters, lambda found: _control(first(found)))


def _resume_task(subject: str) -> Steps[Control | None]:
    """End all that pauses a task by its name; the answer is what an operator said, where that stood."""
    paused = yield from _unsay(ControlKind.PAUSE, subject)
    opened = yield from _unsay(ControlKind.BREAKER, subject)
    return paused or opened


def _unsay(kind: ControlKind, subject: str) -> Verb[Control | None]:
    return Verb("unsay", (kind, subject), read_standing)


def read_standing(found: Result) -> Control | None:
    """Return the control that a statement gave, or None if it gave no row."""
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
