"""Decides what an exception means for its job: to be tried again and when, put off, given up, or ended for good.

Only the exception's type and attributes decide, never its text. The executor uses this module for whatever a handler
raised. It knows the classes of errors, and nothing of jobs or the database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from backfill.errors import LONGEST_WAIT, BatchFailed, Discard, Snooze, WorkerError

_MOST = 1_000
"""How many members of a group are looked at."""
_SHORTEST_SNOOZE = timedelta(milliseconds=100)
"""The shortest time to put a job off: one put off for no time at all would keep its worker busy with nothing else."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a job whose handler raised.

    Attributes:
        retryable: whether another attempt may follow.
        retry_after: how long the next attempt must wait, where the error says so.
        snooze: how long the job is put off, without failure; None where it is not put off.
        discard: the reason for which the job ends without failure; None where it does not.
        batch: what the handler of a batch raised to name the items that failed; None where all of them did.
    """

    retryable: bool = True
    retry_after: timedelta | None = None
    snooze: timedelta | None = None
    discard: str | None = None
    batch: BatchFailed | None = None


RETRY = Verdict()


def judge(error: BaseException, no_retry: tuple[type[BaseException], ...] = ()) -> Verdict:
    """The verdict on what a handler raised.

    Where a group of exceptions was raised, its members decide. If one of them must not be retried, the job is not. Of
    several times to wait the longest counts. The job is put off or discarded only if every member is a `Snooze` or a
    `Discard`; these two are no failures, so `no_retry` does not apply to them. What the items of a batch failed with
    decides like the members of a group. A `BatchFailed` within a group names no items: what else was raised may be
    about any of them.

    Args:
        error: what was raised.
        no_retry: classes that the task does not want to be retried, groups included.
    """
    members, batch = list(members_of(error)), error if isinstance(error, BatchFailed) else None
    if batch is not None and isinstance(batch.error, BaseException):
        members += [batch.error, *members_of(batch.error)]
    wishes = [member for member in members if isinstance(member, (Snooze, Discard))]
    if wishes and len(wishes) == len(members):
        return _granted(wishes)
    failures = [error, *(member for member in members if not isinstance(member, (Snooze, Discard)))]
    if any(not _retryable(failure, no_retry) for failure in failures):
        return Verdict(retryable=False, batch=batch)
    waits = [_within(getattr(member, "retry_after", None)) for member in members if isinstance(member, WorkerError)]
    said = [wait for wait in waits if wait is not None]
    return Verdict(retry_after=max(said) if said else None, batch=batch)


def interrupt_in(error: BaseException) -> KeyboardInterrupt | None:
    """The KeyboardInterrupt that an error is or, as a group, holds; None where there is none."""
    try:
        return next((member for member in members_of(error) if isinstance(member, KeyboardInterrupt)), None)
    except BaseException:  # noqa: BLE001 - an error whose own code fails is no interrupt
        return None


def members_of(error: BaseException) -> Iterator[BaseException]:
    """The error itself or, where it is a group, its members and those of the groups within it, each once."""
    seen, waiting = set[int](), deque([error])
    while waiting and len(seen) < _MOST:
        member = waiting.popleft()
        if id(member) in seen:
            continue
        seen.add(id(member))
        if isinstance(member, BaseExceptionGroup):
            waiting.extend(member.exceptions)
        else:
            yield member


def _granted(wishes: list[Snooze | Discard]) -> Verdict:
    """The verdict on wishes alone: a `Discard` goes before a `Snooze`, and of several delays the longest counts.

    Where no `Snooze` has a valid delay, the job is retried as after a failure.
    """
    reasons = [str(getattr(wish, "reason", "")) for wish in wishes if isinstance(wish, Discard)]
    if reasons:
        return Verdict(discard="; ".join(filter(None, reasons)))
    delays = [_within(getattr(wish, "delay", None)) for wish in wishes]
    said = [delay for delay in delays if delay is not None]
    return Verdict(snooze=max(_SHORTEST_SNOOZE, *said)) if said else RETRY


def _within(wait: object) -> timedelta | None:
    """A time to wait, cut to the limits; None where it is no timedelta: the attribute may have been set to anything."""
    return min(max(wait, timedelta(0)), LONGEST_WAIT) if isinstance(wait, timedelta) else None


def _retryable(error: BaseException, no_retry: tuple[type[BaseException], ...]) -> bool:
    return not isinstance(error, no_retry) and not (isinstance(error, WorkerError) and not error.retryable)
