"""What an exception says about its job: tried again and when, put off, given up, or ended for good. By type, never by text.

Used by the executor for whatever a handler raised. It knows the classes of errors and nothing of jobs or the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from backfill.errors import Discard, Snooze, WorkerError

_DEEPEST = 50
"""How deep groups of exceptions are looked into; deeper ones are failures like others."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a job whose handler raised.

    Attributes:
        retryable: whether another attempt may follow.
        retry_after: how long it must wait, where the error says so.
        snooze: put off for so long, without failure.
        discard: ended without failure, for this reason.
    """

    retryable: bool = True
    retry_after: timedelta | None = None
    snooze: timedelta | None = None
    discard: str | None = None


RETRY = Verdict()


def judge(error: BaseException, no_retry: tuple[type[BaseException], ...] = ()) -> Verdict:
    """The verdict on what a handler raised.

    A group of exceptions is looked into: one member that is not to be retried is enough, and of several times to wait the
    longest counts. It is put off or discarded only if all of its members say nothing else.

    Args:
        error: what was raised.
        no_retry: classes that the task does not want to be retried, groups included.
    """
    members = list(_members(error, 0))
    if isinstance(error, no_retry) or any(not _retryable(member, no_retry) for member in members):
        return Verdict(retryable=False)
    asked = [member for member in members if isinstance(member, (Snooze, Discard))]
    if len(asked) == len(members):
        discards = [member.reason for member in asked if isinstance(member, Discard)]
        if discards:
            return Verdict(discard="; ".join(filter(None, discards)))
        return Verdict(snooze=max(member.delay for member in asked if isinstance(member, Snooze)))
    waits = [member.retry_after for member in members if isinstance(member, WorkerError)]
    said = [wait for wait in waits if wait is not None]
    return Verdict(retry_after=max(said)) if said else RETRY


def _members(error: BaseException, depth: int) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup) or depth >= _DEEPEST:
        yield error
        return
    for member in error.exceptions:
        yield from _members(member, depth + 1)


def _retryable(error: BaseException, no_retry: tuple[type[BaseException], ...]) -> bool:
    return not isinstance(error, no_retry) and not (isinstance(error, WorkerError) and not error.retryable)
