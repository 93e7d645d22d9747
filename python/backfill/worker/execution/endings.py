"""The ways in which an attempt can end. Each says all that the rest of the worker must know of it.

That is: by which statement it is written, as what it is counted, how the log speaks of it, and what of it can be left out
where the database refuses it. Who adds another way writes one class here, its statement in storage/sql, and the place where
an attempt ends so.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

from backfill.records import Job
from backfill.storage.attempts import Attempt
from backfill.storage.settlements import BOOLEANS, NUMBERS, TEXTS, TIMES, End, Settling
from backfill.worker.execution.failures import cleansed

COMPLETE: Final = Settling("complete", ends_job=True)
COMPLETE_KEEPING: Final = Settling("complete_keeping", (NUMBERS, TIMES, TEXTS, TEXTS, TEXTS), ends_job=True)
FAIL: Final = Settling("fail", (NUMBERS, TEXTS, BOOLEANS), compares=True, tells_last=True)
FAIL_KEEPING: Final = Settling(
    "fail_keeping", (NUMBERS, TEXTS, BOOLEANS, NUMBERS, TIMES), compares=True, tells_last=True
)
GIVE_BACK: Final = Settling("give_back", (NUMBERS, BOOLEANS), compares=True)

Counted = Literal["done", "failed", "snoozed", "discarded", "given_back"]
"""The counters' columns for kinds of ends."""
Total = Literal["done", "failed", "put_off", "given_back"]
"""What a worker that has stopped says of its attempts (`events.Tally`)."""


class Ending:
    """How an attempt ended.

    Attributes:
        counted: the counter that it adds to.
        total: the total of the worker that it adds to.
        ends_job: whether its job is over with it, without failure.
        goes_back: whether its job is where it was before, so that it may be claimed again at once.
        undone: whether the attempt counts for nothing: it has no place in the histograms.
        may_be_last: whether another attempt may or may not follow; the statement that writes it says which.
        text_in_row: whether its text is written to the job's row too, and not only where the end is kept.
    """

    __slots__ = ()

    counted: ClassVar[Counted]
    total: ClassVar[Total]
    ends_job: ClassVar[bool] = False
    goes_back: ClassVar[bool] = False
    undone: ClassVar[bool] = False
    may_be_last: ClassVar[bool] = False
    text_in_row: ClassVar[bool] = False

    def end(self, attempt: Attempt, keep: float | None) -> End:
        """How the end of an attempt is written.

        Args:
            attempt: which.
            keep: for how many seconds the end is kept; None where it is not.
        """
        raise NotImplementedError

    def level(self, job: Job) -> int:  # noqa: ARG002 - some endings look at it
        """At which level the log speaks of it."""
        return logging.DEBUG

    def expects_last(self, job: Job) -> bool:  # noqa: ARG002 - some endings look at it
        """Whether it will be its job's last attempt, as far as the worker can tell before it is written."""
        return True

    @property
    def size(self) -> int:
        """How many bytes of it are written that may be many."""
        return 0

    @property
    def text(self) -> str | None:
        """What it says of why it ended so; None where it says nothing."""
        return None

    def with_text(self, text: str) -> Ending:  # noqa: ARG002 - some endings have one
        """The same with another text."""
        return self

    def without_result(self, reason: str) -> Ending | None:  # noqa: ARG002 - some endings have one
        """The same without its result, for that reason; None where it has none."""
        return None


@dataclass(frozen=True, slots=True)
class Completed(Ending):
    """The attempt ended well."""

    counted: ClassVar[Counted] = "done"
    total: ClassVar[Total] = "done"
    ends_job: ClassVar[bool] = True

    def end(self, attempt: Attempt, keep: float | None) -> End:  # noqa: ARG002 - with `keep` it is a CompletedWithResult
        """Its job is deleted."""
        return COMPLETE, attempt, ()


@dataclass(frozen=True, slots=True)
class CompletedWithResult(Ending):
    """The attempt ended well, and its task keeps how: the result as JSON, or why there is none."""

    counted: ClassVar[Counted] = "done"
    total: ClassVar[Total] = "done"
    ends_job: ClassVar[bool] = True

    result: bytes | None
    error: str | None = None

    def end(self, attempt: Attempt, keep: float | None) -> End:
        """Its job is deleted, and its end is kept with the result."""
        if keep is None:
            return COMPLETE, attempt, ()
        result = None if self.result is None else self.result.decode()
        return COMPLETE_KEEPING, attempt, (keep, attempt.claim.claimed_at(attempt), "completed", self.error, result)

    @property
    def size(self) -> int:
        """That of the result."""
        return 0 if self.result is None else len(self.result)

    @property
    def text(self) -> str | None:
        """Why there is no result."""
        return self.error

    def with_text(self, text: str) -> Ending:
        """The same with another reason."""
        return replace(self, error=text)

    def without_result(self, reason: str) -> Ending | None:
        """It has ended well all the same."""
        if self.result is None:
            return None
        return CompletedWithResult(None, cleansed(f"its result was refused by the database\n{reason}"))


@dataclass(frozen=True, slots=True)
class Discarded(Ending):
    """The handler has ended its job for good, without failure."""

    counted: ClassVar[Counted] = "discarded"
    total: ClassVar[Total] = "done"
    ends_job: ClassVar[bool] = True

    reason: str

    def end(self, attempt: Attempt, keep: float | None) -> End:
        """Its job is deleted, and its end is kept with the reason, where its task keeps ends."""
        if keep is None:
            return COMPLETE, attempt, ()
        why = cleansed(self.reason) or None
        return COMPLETE_KEEPING, attempt, (keep, attempt.claim.claimed_at(attempt), "discarded", why, None)

    def level(self, job: Job) -> int:  # noqa: ARG002 - it is the same for all jobs
        """A handler seldom does so, and nothing else tells of it."""
        return logging.INFO

    @property
    def text(self) -> str | None:
        """Why it was discarded."""
        return self.reason

    def with_text(self, text: str) -> Ending:
        """The same for another reason."""
        return replace(self, reason=text)


@dataclass(frozen=True, slots=True)
class Failed(Ending):
    """The attempt failed; `final` leaves no other. The next comes after `delay` seconds, or by the contract's schedule."""

    counted: ClassVar[Counted] = "failed"
    total: ClassVar[Total] = "failed"
    may_be_last: ClassVar[bool] = True
    text_in_row: ClassVar[bool] = True

    error: str
    final: bool = False
    delay: float | None = None

    def end(self, attempt: Attempt, keep: float | None) -> End:
        """Its job waits for its next attempt, or is a dead letter."""
        how = (self.delay, self.error, self.final)
        if keep is None:
            return FAIL, attempt, how
        return FAIL_KEEPING, attempt, (*how, keep, attempt.claim.claimed_at(attempt))

    def level(self, job: Job) -> int:
        """The last failure is an error, for what collects errors; the others are warnings."""
        return logging.ERROR if self.expects_last(job) else logging.WARNING

    def expects_last(self, job: Job) -> bool:
        """By the job's row as it was claimed."""
        return self.final or is_last(job)

    @property
    def text(self) -> str | None:
        """What it failed with."""
        return self.error

    def with_text(self, text: str) -> Ending:
        """The same failure in other words."""
        return replace(self, error=text)


@dataclass(frozen=True, slots=True)
class Snoozed(Ending):
    """The attempt is undone, and its job put off for `delay` seconds."""

    counted: ClassVar[Counted] = "snoozed"
    total: ClassVar[Total] = "put_off"

    delay: float

    def end(self, attempt: Attempt, keep: float | None) -> End:  # noqa: ARG002 - its job goes on
        """Its job waits again, for later."""
        return GIVE_BACK, attempt, (self.delay, attempt.handler_started)


@dataclass(frozen=True, slots=True)
class GivenBack(Ending):
    """The attempt is undone: it goes back as it was."""

    counted: ClassVar[Counted] = "given_back"
    total: ClassVar[Total] = "given_back"
    goes_back: ClassVar[bool] = True
    undone: ClassVar[bool] = True

    def end(self, attempt: Attempt, keep: float | None) -> End:  # noqa: ARG002 - its job goes on
        """Its job waits as before."""
        return GIVE_BACK, attempt, (None, attempt.handler_started)


COMPLETED: Final = Completed()
GIVEN_BACK: Final = GivenBack()


def is_last(job: Job) -> bool:
    """Whether a job has no attempt left after this one, by its row as it was claimed."""
    return job.attempts >= job.max_attempts


def was_last(attempt: Attempt, ending: Ending) -> bool:
    """Whether an attempt was its job's last: as the statement said that wrote its end, which knows the row as it was then.

    Where it said nothing, since its answer was lost, what the worker expected has to do.
    """
    return ending.expects_last(attempt.job) if attempt.last is None else attempt.last
