"""Statements that find what holds a job back, and the reasons that are read from their answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from backfill.client.verbs.asked import Steps, Verb
from backfill.client.verbs.jobs import JobReference, reference_id
from backfill.controls import EVERYTHING, Control, ControlKind, read_control
from backfill.errors import ConfigurationError
from backfill.limits import Limit, Rate
from backfill.storage.results import Row, first, rows, time_of
from backfill.whys import ShareHolder, Why, WhyKind, WhyReason

if TYPE_CHECKING:
    from backfill.storage.results import Result

HOLDERS: Final = 20
"""How many of the jobs that have a limit's shares are named."""
_OURS: Final = "backfill_"
_HELD: Final = re.compile(r"backfill:retry:(\d{1,18})")
_PAUSE: Final = re.compile(r"backfill:pause(:\d{1,18})?")


def why(job: JobReference) -> Steps[Why]:
    """Find what holds a job back."""
    return _why(reference_id("job", job))


def _why(number: int) -> Steps[Why]:
    row = yield from Verb("why_job", (str(number),), first)
    now = row.time("now_micros")
    assert now is not None  # noqa: S101 - the database's clock
    task = row.text("task")
    if task is None:
        reasons = [_gone(number, row)]
    elif row.flag("is_locked"):
        reasons = [_running(number, row)]
    elif row.whole("attempts") >= row.whole("max_attempts"):
        text = f"job {number} has used up its {row.whole('attempts')} attempts; a worker makes it a dead letter soon"
        reasons = [WhyReason(kind=WhyKind.FAILED, text=text)]
    else:
        limit = yield from Verb("why_limit", (task, row.word("limit_value"), str(HOLDERS)), _only)
        reasons = [*_own(task, row), *_said(row), *_of_queue(number, row), *_of_limit(task, row, limit)]
    return Why(
        job_id=number,
        task=task,
        queue=row.text("queue_name"),
        reasons=tuple(reasons),
        knowing=row.whole("knowing"),
        looked_at=now,
    )


def _only(found: Result) -> Row | None:
    return next(iter(rows(found)), None)


def _gone(number: int, row: Row) -> WhyReason:
    how, letter = row.text("how"), row.number("letter")
    if letter is not None:
        at = row.time("failed_at")
        text = f"job {number} is the dead letter {letter}{_since(at)}: it is tried again once somebody requeues it"
        return WhyReason(kind=WhyKind.GONE, text=text, since=at)
    if how is not None:
        at = row.time("ended_at")
        return WhyReason(kind=WhyKind.GONE, text=f"job {number} has ended{_at(at)}: {how}", since=at)
    text = f"job {number} is not in the queue: it has ended and its end was not kept, or it was never there"
    return WhyReason(kind=WhyKind.GONE, text=text)


def _running(number: int, row: Row) -> WhyReason:
    worker, since = row.word("locked_by"), row.time("locked_at")
    where = f"worker {worker}{_place(row.text('holder_place'))}"
    if not worker.startswith(_OURS):
        text = f"job {number} is locked by {worker or 'somebody without a name'}{_since(since)}{_stranger(worker)}"
    elif row.flag("holder_lives"):
        text = f"job {number} is run by {where}{_since(since, 'at least ')}"
    else:
        text = f"job {number} is locked by {where}, which gives no heartbeat; another worker will run the job again"
    if row.flag("is_cancelled"):
        text += "; it was cancelled, and its worker is asked to end it"
    return WhyReason(kind=WhyKind.RUNNING, text=text, since=since, worker_id=worker)


def _own(task: str, row: Row) -> Iterator[WhyReason]:
    if row.flag("is_early"):
        until = row.time("run_at")
        text = (
            f"it is not due before {_time(until)}" if until is not None else "it is never due: its run_at is infinite"
        )
        yield WhyReason(kind=WhyKind.NOT_DUE, text=text, until=until)
    if not row.whole("knowing"):
        yield WhyReason(kind=WhyKind.NO_WORKER, text=f"no live worker of this package knows the task {task}")
    elif not row.whole("taking"):
        text = (
            f"none of the live workers that know the task {task} ({row.whole('knowing')}) takes the job: its flags, or "
            "that it has none, do not fit their accepted_flags and forbidden_flags"
        )
        yield WhyReason(kind=WhyKind.FLAGS, text=text)


def _said(row: Row) -> Iterator[WhyReason]:
    """The pauses that concern the job."""
    for control in _controls(row):
        if control.kind is not ControlKind.PAUSE:
            continue
        about = EVERYTHING if control.everything else control.subject.replace(":", " ", 1)
        reason = f": {control.reason}" if control.reason else ""
        text = f"{about} is paused by {control.by}{_since(control.said_at)}{reason}"
        yield WhyReason(kind=WhyKind.PAUSED, text=text, since=control.said_at, control=control)


def _of_queue(number: int, row: Row) -> Iterator[WhyReason]:
    name, holder, since = row.text("queue_name"), row.text("queue_holder"), row.time("queue_since")
    if name is None:
        return
    if holder is None:
        other = row.number("first_job")
        if other is not None and other != number and not row.flag("is_early"):
            text = f"job {other} comes first in the serial queue {name}"
            yield WhyReason(kind=WhyKind.QUEUE_BEHIND, text=text, job_id=other)
        return
    if (held := _HELD.fullmatch(holder)) is not None:
        other = int(held[1])
        if other != number:
            text = f"the serial queue {name} waits for the retry of job {other}"
            yield WhyReason(kind=WhyKind.QUEUE_HELD, text=text, job_id=other)
    elif _PAUSE.fullmatch(holder) is None:
        other = row.number("queue_job")
        what = "a job that is ending" if other is None else f"job {other}"
        where = f"worker {holder}{_place(row.text('queue_place'))}" if holder.startswith(_OURS) else holder
        text = f"the serial queue {name} is busy with {what} in {where}{_since(since, 'at least ')}{_stranger(holder)}"
        yield WhyReason(kind=WhyKind.QUEUE_BUSY, text=text, since=since, worker_id=holder, job_id=other)
    elif not any(control.queue == name for control in _controls(row)):
        text = f"the serial queue {name} is still locked for a pause that has ended; a worker frees it within a minute"
        yield WhyReason(kind=WhyKind.QUEUE_BUSY, text=text, since=since)


def _of_limit(task: str, row: Row, reached: Row | None) -> Iterator[WhyReason]:
    if reached is None:
        return
    breaker = next((control for control in _controls(row) if control.kind is ControlKind.BREAKER), None)
    setting = next((control for control in _controls(row) if control.kind is ControlKind.LIMIT), None)
    limit, rate = _limits(reached)
    most, taken = reached.number("most"), reached.whole("taken")
    holders = tuple(_holder(one) for one in reached.items("holders"))
    probing = reached.flag("probing")
    whose = "" if limit is None or limit.by is None else f" for {limit.by} = {row.word('limit_value') or 'no value'}"
    if reached.flag("is_closed"):
        until = reached.time("closed_until")
        cause = "" if breaker is None or not breaker.reason else f": {breaker.reason}"
        text = f"the breaker of the task {task} is open until {_time(until)}{cause}"
        yield WhyReason(kind=WhyKind.BREAKER_OPEN, text=text, until=until, control=breaker)
    elif most is not None and taken >= most:
        jobs = ", ".join(f"{holder.job_id} in {holder.worker_id}" for holder in holders[:3])
        more = ", and others" if taken > 3 else ""
        if probing:
            text = f"the breaker of the task {task} tries one job at a time: job {jobs}"
            yield WhyReason(kind=WhyKind.BREAKER_OPEN, text=text, control=breaker, holders=holders)
        else:
            text = f"the limit of the task {task} is full{whose}: {taken} of {most} jobs run ({jobs}{more})"
            text += _set(setting)
            yield WhyReason(kind=WhyKind.LIMIT_FULL, text=text, limit=limit, holders=holders, control=setting)
    elif probing and reached.flag("is_slowed"):
        until = reached.time("next_at")
        text = f"the breaker of the task {task} tries one job in each pause: the next one at {_time(until)}"
        yield WhyReason(kind=WhyKind.BREAKER_OPEN, text=text, until=until, control=breaker)
    if reached.flag("is_slowed") and not probing:
        until = reached.time("next_at")
        allowed = "" if rate is None else f" ({rate.count} in {rate.per.total_seconds():g} s)"
        text = f"the rate of the task {task}{allowed} allows the next start{whose} at {_time(until, 'milliseconds')}"
        text += _set(setting)
        yield WhyReason(kind=WhyKind.RATE, text=text, until=until, rate=rate, control=setting)


def _set(control: Control | None) -> str:
    """Who has set a limit, and why; nothing where the code says it."""
    if control is None:
        return ""
    return f"; set by {control.by}{_since(control.said_at)}" + (f": {control.reason}" if control.reason else "")


def _limits(reached: Row) -> tuple[Limit | None, Rate | None]:
    """The limit and the rate that hold; None for what this version could not have set."""
    by, most, count = reached.text("by_path"), reached.number("most"), reached.number("rate_count")
    try:
        limit = None if most is None else Limit(most, by)
        per = timedelta(microseconds=reached.whole("rate_micros"))
        return limit, None if count is None else Rate(count, per, reached.whole("burst"), by)
    except (ConfigurationError, OverflowError):
        return None, None


def _holder(found: dict[str, Any]) -> ShareHolder:
    return ShareHolder(found["job"], found["worker"], time_of(found["since"]))


def _controls(row: Row) -> list[Control]:
    return [read_control(**(found | {"said_at": time_of(found["said_at"])})) for found in row.items("controls")]


def _stranger(holder: str) -> str:
    """That a lock's holder is another program's worker, and how to free what it holds; nothing for a worker of ours."""
    if holder.startswith(_OURS):
        return ""
    text = ", which is not a worker of this package"
    if not holder:
        return text
    return f"{text}: if its process is dead, client.force_unlock_workers([{holder!r}]) frees its jobs at once"


def _place(place: str | None) -> str:
    return "" if place is None else f" ({place})"


def _since(time: datetime | None, word: str = "") -> str:
    return "" if time is None else f" since {word}{_time(time)}"


def _at(time: datetime | None) -> str:
    return "" if time is None else f" at {_time(time)}"


def _time(time: datetime | None, precision: str = "seconds") -> str:
    return "an unknown time" if time is None else time.astimezone(UTC).isoformat(sep=" ", timespec=precision)
