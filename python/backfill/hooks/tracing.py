"""What a plugin for traces gives to the package: spans around calls that add jobs, and around attempts.

Observers and interceptors cannot do this: a span has to be current while the code within it runs, so it begins and ends
in that code's own context. A plugin registers one `Tracer` by `HookRegistry.trace`. Clients and workers without one do
none of this. `backfill.contrib.opentelemetry` has the only tracer of this package.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from backfill.records import Job


class Outcome(StrEnum):
    """What an attempt came to, as its span says it."""

    COMPLETED = "completed"
    """The handler returned."""
    SKIPPED = "skipped"
    """A hook had the job count as done."""
    DISCARDED = "discarded"
    """The handler ended the job for good by raising `Discard`."""
    SNOOZED = "snoozed"
    """The handler put the job off by raising `Snooze`; or the worker did, since something that it needs was away."""
    CANCELLED = "cancelled"
    """A request cancelled the job."""
    RETRIED = "retried"
    """The attempt failed, and another one follows."""
    DEAD_LETTER = "dead_letter"
    """The attempt failed, and no other one follows."""
    INTERRUPTED = "interrupted"
    """The worker stopped, or was given up by the others, before the handler had ended."""
    RETURNED = "returned"
    """The job went back before its handler was called."""
    LOST = "lost"
    """Somebody else had unlocked the job meanwhile, so that the attempt counts for nothing here."""


@dataclass(frozen=True, slots=True)
class AttemptError:
    """What an attempt failed with, as the record of the attempt has it: without what a database quotes of rows.

    Attributes:
        error_type: the dotted path of the error's class; None where it is not known.
        message: the error's message.
        traceback: where it came from; None where that is not known.
    """

    error_type: str | None
    message: str
    traceback: str | None


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended.

    Attributes:
        outcome: what it came to, as far as the worker can tell before the end is written.
        ended: when it ended, in nanoseconds since 1970.
        reason: what made it fail, as `FailReason` names it; None where it did not fail.
        error: what it failed with; None where it did not fail, or where that is not known.
    """

    outcome: Outcome
    ended: int
    reason: str | None = None
    error: AttemptError | None = None


class Crossing(NamedTuple):
    """What makes a span current in another process.

    Attributes:
        function: the name of a function, as `importable.reference_to` gives it; it returns a context manager, in whose
            block the span is current.
        arguments: the function's arguments.
    """

    function: str
    arguments: tuple[str, ...]


class AttemptSpan(Protocol):
    """The span of one attempt, which is recorded."""

    def end(self, end: AttemptEnd) -> None:
        """End the span. It raises nothing, and is called on the worker's event loop."""
        ...


class SendSpan(Protocol):
    """The span of one call that adds jobs."""

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that carry the span's context with each job of the call; none where there is nothing to carry."""
        ...

    def sent(self, count: int, *, task: str | None = None, job_id: int | None = None) -> None:
        """Note what came of the call, before its span ends.

        Args:
            count: how many jobs were added.
            task: the name of their task; None where they are of several, or where the span has the name already.
            job_id: the id of the job, where there is only one.
        """
        ...


class Tracer(Protocol):
    """Makes spans. None of its functions raises, since no job may suffer from traces."""

    def sending(self, task: str | None, *, bulk: bool = False) -> AbstractContextManager[SendSpan]:
        """Begin the span of a call that adds jobs: it is current within the block, and ends with it.

        Args:
            task: the name of the jobs' task; None where it is not known yet, or where they are of several.
            bulk: whether the call adds any number of jobs.
        """
        ...

    def enter(self) -> None:
        """Make this context one in which no span is recorded; the contexts of all attempts are copies of it."""
        ...

    def sees(self, job: Job) -> bool:
        """Whether an attempt may have a span. It is asked for every job, so it costs next to nothing."""
        ...

    def attempt(self, job: Job) -> AttemptSpan | None:
        """Begin the span of an attempt that may have one; make it current in this context, which is the attempt's own.

        Returns:
            The span; None where nobody records it, so that there is nothing to end.
        """
        ...

    def crossing(self) -> Crossing | None:
        """What makes the current span current in the child process of a handler; None where no span is current."""
        ...
