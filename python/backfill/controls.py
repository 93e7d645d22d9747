"""Controls: what operators say to the whole fleet while it runs, as types.

The client's verbs for control give these values, and workers read them from the table `backfill_control`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from backfill.checks import IDENTIFIER_LIMIT, KEY_LIMIT, check_text
from backfill.errors import BackfillError, InvalidJobError
from backfill.limits import Limit, Rate, from_json

AUTHOR_LIMIT: Final = 200
REASON_LIMIT: Final = 1_000
CONCURRENCY: Final = range(1, 10_001)
EVERYTHING: Final = "everything"
"""The subject of a pause of everything; all other subjects are a word of `_NAMED`, a colon and a name."""
_NAMED: Final = ("task", "queue", "lane")


class ControlKind(StrEnum):
    """What a control does."""

    PAUSE = "pause"
    """Nothing of a task, of a serial queue or of everything starts."""
    CONCURRENCY = "concurrency"
    """A lane of each worker runs so many jobs at once."""
    LIMIT = "limit"
    """A task has this limit and this rate in the whole fleet, whatever the workers' code says."""
    BREAKER = "breaker"
    """The breaker of a task has opened: the task is paused for a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One thing that stands said to the fleet, with its author, its reason and its time.

    A control of a later version may say what this version cannot read: `kind` is then a plain text, or `understood` is
    False, and `subject` and `said` have the words of the row.

    Attributes:
        id: its number, by which it can be undone. To say something again of the same subject gives a new number.
        kind: what it does.
        subject: what it is about, in one word: `task:NAME`, `queue:NAME`, `lane:NAME` or `everything`.
        said: its values, as the text of a JSON object.
        task: the name of the task that it is about; None if it is not about a task.
        queue: the name of the serial queue that it is about; None if it is not about a queue.
        lane: the name of the lane that it is about; None if it is not about a lane.
        concurrency: how many jobs at once the lane runs in each worker; None for other kinds.
        limit: the limit that was set; None if none was, and for other kinds.
        rate: the rate that was set; None if none was, and for other kinds.
        until: when the breaker lets a first job through; None for other kinds.
        trips: how often the breaker has opened since the task was well last; None for other kinds.
        by: who said it.
        reason: why; an empty text if no reason was given.
        said_at: when, by the database's clock.
        understood: whether this version can read all of it.
    """

    id: int
    kind: ControlKind | str
    subject: str
    said: str = "{}"
    task: str | None = None
    queue: str | None = None
    lane: str | None = None
    concurrency: int | None = None
    limit: Limit | None = None
    rate: Rate | None = None
    until: datetime | None = None
    trips: int | None = None
    by: str
    reason: str = ""
    said_at: datetime | None
    understood: bool = True

    @property
    def everything(self) -> bool:
        """Whether it is about everything."""
        return self.subject == EVERYTHING


def read_control(
    *, id: int, kind: str, subject: str, said: str, by: str, reason: str, said_at: datetime | None
) -> Control:
    """Make a control from the values of its row; one that cannot be read is made all the same, as not understood."""
    word, _, name = subject.partition(":")
    about: dict[str, Any] = {word: name} if name and word in _NAMED else {}
    try:
        known: ControlKind | str = ControlKind(kind)
        values = _values(ControlKind(kind), orjson.loads(said))
        understood = bool(about) or subject == EVERYTHING
    except (BackfillError, ValueError, TypeError, KeyError, AttributeError):
        known = next((one for one in ControlKind if one == kind), kind)
        values, understood = {}, False
    return Control(
        id=id, kind=known, subject=subject, said=said, by=by, reason=reason, said_at=said_at, understood=understood,
        **about, **values,
    )  # fmt: skip


def paused_subject(task: object, queue: object, everything: object) -> str:
    """Return the subject of a pause; exactly one of the three must be given.

    Raises:
        InvalidJobError: none or several are given, or a name cannot be one.
    """
    if not isinstance(everything, bool):
        raise InvalidJobError("everything", everything, "True, or leave it out")
    given = [field for field, value in (("task", task), ("queue", queue)) if value is not None]
    given += ["everything"] if everything else []
    if len(given) != 1:
        what = " and ".join(given) or "nothing"
        raise InvalidJobError("task", task, f"give exactly one of task, queue and everything=True; given is {what}")
    if everything:
        return EVERYTHING
    return named_subject("task", task) if task is not None else named_subject("queue", queue)


def named_subject(field: str, name: object) -> str:
    """Return the subject for a task, a queue or a lane of a name.

    Args:
        field: `task`, `queue` or `lane`.
        name: its name.

    Raises:
        InvalidJobError: the name is not a text that such a thing can have as its name.
    """
    check_text(field, name, KEY_LIMIT if field == "lane" else IDENTIFIER_LIMIT)
    return f"{field}:{name}"


def check_words(reason: object, by: object) -> None:
    """Refuse a reason or an author that is not a text, or too long; a reason may be empty, an author may be None."""
    if reason != "":
        check_text("reason", reason, REASON_LIMIT)
    if by is not None:
        check_text("by", by, AUTHOR_LIMIT)


def _values(kind: ControlKind, said: dict[str, Any]) -> dict[str, Any]:
    if kind is ControlKind.CONCURRENCY:
        return {"concurrency": CONCURRENCY[CONCURRENCY.index(said["concurrency"])]}
    if kind is ControlKind.LIMIT:
        limit, rate = from_json(said)
        return {"limit": limit, "rate": rate}
    if kind is ControlKind.BREAKER:
        return {"until": datetime.fromisoformat(said["until"]), "trips": int(said["trips"])}
    return {}
