"""What an exception says about its job: tried again and when, put off, given up, or ended for good. By type, never by text.

Used by the executor for whatever a handler raised. It knows the classes of errors and nothing of jobs or the database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from backfill.errors import LONGEST_WAIT, Discard, Snooze, WorkerError

_MOST = 1_000
"""How many members of a group are looked at."""
_SHORTEST_SNOOZE = timedelta(milliseconds=100)
"""A job that is put off for no time must not keep its worker busy with nothing else."""


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
    longest counts. It is put off or discarded only if all of its members say nothing else; those two are no failures, so
    `no_retry` does not concern them.

    Args:
        error: what was raised.
        no_retry: classes that the task does not want to be retried, groups included.
    """
    members = list(members_of(error))
    wishes = [member for member in members if isinstance(member, (Snooze, Discard))]
    if wishes and len(wishes) == len(members):
        return _granted(wishes)
    failures = [error, *(member for member in members if not isinstance(member, (Snooze, Discard)))]
    if any(not _retryable(failure, no_retry) for failure in failures):
        return Verdict(retryable=False)
    waits = [_within(getattr(member, "retry_after", None)) for member in members if isinstance(member, WorkerError)]
    said = [wait for wait in waits if wait is not None]
    return Verdict(retry_after=max(said)) if said else RETRY


def interrupt_in(error: BaseException) -> KeyboardInterrupt | None:
    """The keyboard's interrupt, where an error is one or a group holds one."""
    try:
        return next((member for member in members_of(error) if isinstance(member, KeyboardInterrupt)), None)
    except BaseException:  # noqa: BLE001 - an error whose own code fails is none
        return None


def members_of(error: BaseException) -> Iterator[BaseException]:
    """An error itself, or what a group of them holds, each once, groups within it looked into as well."""
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
    """Discarding goes before putting off; of several delays the longest counts. A delay that is none is a failure."""
    reasons = [str(getattr(wish, "reason", "")) for wish in wishes if isinstance(wish, Discard)]
    if reasons:
        return Verdict(discard="; ".join(filter(None, reasons)))
    delays = [_within(getattr(wish, "delay", None)) for wish in wishes]
    said = [delay for delay in delays if delay is not None]
    return Verdict(snooze=max(_SHORTEST_SNOOZE, *said)) if said else RETRY


def _within(wait: object) -> timedelta | None:
    """A time to wait as it can be written: an attribute may have been set to anything."""
    return min(max(wait, timedelta(0)), LONGEST_WAIT) if isinstance(wait, timedelta) else None


def _retryable(error: BaseException, no_retry: tuple[type[BaseException], ...]) -> bool:
    return not isinstance(error, no_retry) and not (isinstance(error, WorkerError) and not error.retryable)
