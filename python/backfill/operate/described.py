"""Controls in words for people, and as plain data for programs."""

from __future__ import annotations

from typing import Any

from backfill.controls import Control, ControlKind
from backfill.limits import Limit, Rate


def sentence(control: Control) -> str:
    """What a control says, as in "task send_email is paused", without its author and reason."""
    about = subject(control)
    if not control.understood:
        return f"{about}: {control.kind} {control.said} (of a version of backfill that this one does not know)"
    if control.kind is ControlKind.PAUSE:
        return f"{about} is paused"
    if control.kind is ControlKind.CONCURRENCY:
        return f"{about} runs {_jobs(control.concurrency)} at once in each worker"
    if control.kind is ControlKind.LIMIT:
        return f"{about} has {limits(control.limit, control.rate)}"
    until = "" if control.until is None else f" until {control.until.isoformat(sep=' ', timespec='seconds')}"
    times = "once" if control.trips == 1 else f"{control.trips} times"
    return f"{about} is held by its breaker{until} (opened {times})"


def origin(control: Control) -> str:
    """Who said a control, when and why."""
    when = "" if control.said_at is None else f", {control.said_at.isoformat(sep=' ', timespec='seconds')}"
    return f"by {control.by}{when}{f': {control.reason}' if control.reason else ''}"


def subject(control: Control) -> str:
    """What a control is about, as in "task send_email"."""
    word, _, name = control.subject.partition(":")
    return f"{word} {name}" if name else word


def limits(limit: Limit | None, rate: Rate | None) -> str:
    """A limit and a rate in words."""
    words = [] if limit is None else [f"at most {_jobs(limit.most)} at once"]
    if rate is not None:
        burst = "" if rate.burst == 1 else f", {rate.burst} of them at once after a pause"
        starts = "1 start" if rate.count == 1 else f"{rate.count} starts"
        words.append(f"at most {starts} in {rate.per.total_seconds():g} s{burst}")
    by = limit.by if limit is not None else rate.by if rate is not None else None
    if by is not None:
        words.append(f"for each {by} of the payload")
    return ", ".join(words) or "no limit"


def _jobs(count: int | None) -> str:
    """A number of jobs in words."""
    return "1 job" if count == 1 else f"{count} jobs"


def data(control: Control) -> dict[str, Any]:
    """A control as values of JSON; times are ISO 8601, spans are seconds."""
    return {
        "id": control.id,
        "kind": str(control.kind),
        "subject": control.subject,
        "task": control.task,
        "queue": control.queue,
        "lane": control.lane,
        "everything": control.everything,
        "concurrency": control.concurrency,
        "limit": limit_data(control.limit),
        "rate": rate_data(control.rate),
        "until": None if control.until is None else control.until.isoformat(),
        "trips": control.trips,
        "by": control.by,
        "reason": control.reason,
        "said_at": None if control.said_at is None else control.said_at.isoformat(),
        "understood": control.understood,
    }


def limit_data(limit: Limit | None) -> dict[str, Any] | None:
    """A limit as values of JSON."""
    return None if limit is None else {"most": limit.most, "by": limit.by}


def rate_data(rate: Rate | None) -> dict[str, Any] | None:
    """A rate as values of JSON; the period is in seconds."""
    if rate is None:
        return None
    return {"count": rate.count, "per": rate.per.total_seconds(), "burst": rate.burst, "by": rate.by}
