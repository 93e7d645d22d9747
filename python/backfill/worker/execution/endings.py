"""The ways in which an attempt can end: one class for each, with all that the rest of the worker must know of it.

A class says which statement writes the end, how it is counted, at which level it is logged, and what can be left out of
it where the database refuses it. To add another way to end, write one class here, its statement in storage/sql, and the
code that lets an attempt end in this way.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

from backfill.attempts import AttemptHow
from backfill.hooks.events import FailReason
from backfill.records import Job
from backfill.storage.attempts import Attempt
from backfill.storage.settlements import BOOLEANS, NUMBERS, TEXTS, TIMES, End, Settling
from backfill.worker.execution.failures import Raised, cleansed

COMPLETE: Final = Settling("complete", ends_job=True)
COMPLETE_KEEPING: Final = Settling("complete_keeping", (NUMBERS, TIMES, TEXTS, TEXTS, TEXTS), ends_job=True)
_FAILURE: Final = (NUMBERS, TEXTS, BOOLEANS, TIMES, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
FAIL: Final = Settling("fail", _FAILURE, compares=True, tells_last=True)
FAIL_KEEPING: Final = Settling("fail_keeping", (*_FAILURE, NUMBERS), compares=True, tells_last=True)
GIVE_BACK: Final = Settling("give_back", (NUMBERS, BOOLEANS, TIMES, TEXTS, NUMBERS), compares=True, asks_batches=True)
END_CANCELLED: Final = Settling("end_cancelled", (NUMBERS, TIMES, TEXTS), compares=True)

_HOWS: Final = {FailReason.TIMEOUT: AttemptHow.TIMED_OUT, FailReason.DEADLINE: AttemptHow.DEADLINE}
"""How a failed attempt ended, as its record says it; any other reason is a plain failure."""
Counted = Literal["done", "failed", "snoozed", "discarded", "given_back"]
"""The columns of the counters, one for each kind of end."""
Total = Literal["done", "failed", "put_off", "given_back"]
"""The totals that a worker reports when it has stopped (`events.Tally`)."""


class Ending:
    """How an attempt ended.

    Attributes:
        counted: the counter that it adds to.
        total: the total of the worker that it adds to.
        ends_job: whether the job ends with it, without failure.
        goes_back: whether the job waits again as before the attempt, so that it may be claimed again at once.
        undone: whether the attempt is left out of the histograms, as if it had not been.
        may_be_last: whether another attempt may or may not follow, as the statement that writes the end decides.
        text_in_row: whether its text is written to the job's row too, and not only to the table of kept ends.
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
        """The statement that writes the end of an attempt, with its parameters.

        Args:
            attempt: the attempt that ended.
            keep: for how many seconds the end is kept; None where it is not kept.
        """
        raise NotImplementedError

    def level(self, job: Job) -> int:  # noqa: ARG002 - some endings look at it
        """The level at which it is logged."""
        return logging.DEBUG

    def expects_last(self, job: Job) -> bool:  # noqa: ARG002 - some endings look at it
        """Whether it will be its job's last attempt, as far as the worker can tell before it is written."""
        return True

    @property
    def size(self) -> int:
        """How many bytes its result has; 0 where it has none."""
        return 0

    @property
    def text(self) -> str | None:
        """Why the attempt ended in this way; None where the ending gives no reason."""
        return None

    def with_text(self, text: str) -> Ending:  # noqa: ARG002 - some endings have one
        """This ending with another text; unchanged where it has none."""
        return self

    def without_record(self) -> Ending | None:
        """This ending without the record that is kept of the attempt; None where there is none anyway."""
        return None

    def without_result(self, reason: str) -> Ending | None:  # noqa: ARG002 - some endings have one
        """This ending without its result, which `reason` explains; None where it has no result."""
        return None


@dataclass(frozen=True, slots=True)
class Completed(Ending):
    """The attempt ended well."""

    counted: ClassVar[Counted] = "done"
    total: ClassVar[Total] = "done"
    ends_job: ClassVar[bool] = True

    def end(self, attempt: Attempt, keep: float | None) -> End:  # noqa: ARG002 - a kept one is a CompletedWithResult
        """Its job is deleted."""
        return COMPLETE, attempt, ()


@dataclass(frozen=True, slots=True)
class CompletedWithResult(Ending):
    """The attempt ended well, and its task keeps the result as JSON, or the reason why there is none."""

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
        """How many bytes the result has."""
        return 0 if self.result is None else len(self.result)

    @property
    def text(self) -> str | None:
        """Why there is no result."""
        return self.error

    def with_text(self, text: str) -> Ending:
        """This ending with another reason why there is no result."""
        return replace(self, error=text)

    def without_result(self, reason: str) -> Ending | None:
        """The attempt still counts as completed; the reason is kept in place of the result."""
        if self.result is None:
            return None
        return CompletedWithResult(None, cleansed(f"its result was refused by the database\n{reason}"))


@dataclass(frozen=True, slots=True)
class Committed(Ending):
    """The attempt ended well, and its handler's own transaction has written that."""

    counted: ClassVar[Counted] = "done"
    total: ClassVar[Total] = "done"
    ends_job: ClassVar[bool] = True

    def end(self, attempt: Attempt, keep: float | None) -> End:  # noqa: ARG002 - the end is kept already
        """Nothing is left to be written: the settler does not ask, and the statement would find no job."""
        return COMPLETE, attempt, ()


@dataclass(frozen=True, slots=True)
class Skipped(Ending):
    """A hook has had the job count as done, although its handler did not run, or failed.

    Attributes:
        reason: which hook it was.
        ran: whether the handler ran.
    """

    counted: ClassVar[Counted] = "done"
    total: ClassVar[Total] = "done"
    ends_job: ClassVar[bool] = True

    reason: str
    ran: bool = False

    def end(self, attempt: Attempt, keep: float | None) -> End:
        """Its job is deleted, and its end is kept with the reason in place of a result, where its task keeps ends."""
        if keep is None:
            return COMPLETE, attempt, ()
        why = cleansed(self.reason)
        return COMPLETE_KEEPING, attempt, (keep, attempt.claim.claimed_at(attempt), "completed", why, None)

    def level(self, job: Job) -> int:  # noqa: ARG002 - it is the same for all jobs
        """INFO, since nothing else tells that the job is done and why."""
        return logging.INFO

    @property
    def text(self) -> str | None:
        """Which hook it was."""
        return self.reason

    def with_text(self, text: str) -> Ending:
        """This ending with another reason."""
        return replace(self, reason=text)


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
        """INFO, since handlers seldom discard a job and nothing else tells of it."""
        return logging.INFO

    @property
    def text(self) -> str | None:
        """Why it was discarded."""
        return self.reason

    def with_text(self, text: str) -> Ending:
        """This ending with another reason."""
        return replace(self, reason=text)


@dataclass(frozen=True, slots=True)
class Failed(Ending):
    """The attempt failed.

    Where `final` is set, no other attempt follows. Else the next one comes after `delay` seconds, or, where `delay` is
    None, by the contract's schedule. `reason` says what made it fail. `raised` is for the record of the attempt, which
    is kept where `recorded` is set. `items` are the indexes of the elements of a batch that failed, with which alone
    the job goes on; all of its elements where there are none. None for a job that is no batch.
    """

    counted: ClassVar[Counted] = "failed"
    total: ClassVar[Total] = "failed"
    may_be_last: ClassVar[bool] = True
    text_in_row: ClassVar[bool] = True

    error: str
    final: bool = False
    delay: float | None = None
    reason: FailReason = FailReason.ERROR
    raised: Raised | None = None
    recorded: bool = True
    items: tuple[int, ...] | None = None

    def end(self, attempt: Attempt, keep: float | None) -> End:
        """Its job waits for its next attempt, or is a dead letter; either holds what is left of the batch."""
        raised = self.raised
        told = (None, None, None) if raised is None else (raised.error_type, raised.message, raised.traceback)
        how = _HOWS.get(self.reason, AttemptHow.FAILED) if self.recorded else None
        items = None if self.items is None else _marks(self.items)
        key = None if self.items is None else attempt.job.key
        values = (self.delay, self.error, self.final, attempt.claim.claimed_at(attempt), how, *told, items, key)
        if keep is None:
            return FAIL, attempt, values
        return FAIL_KEEPING, attempt, (*values, keep)

    def level(self, job: Job) -> int:
        """ERROR for the last failure, so that programs that collect errors see it; WARNING for the others."""
        return logging.ERROR if self.expects_last(job) else logging.WARNING

    def expects_last(self, job: Job) -> bool:
        """Whether it is final, or the job had no attempt left when it was claimed."""
        return self.final or is_last(job)

    @property
    def text(self) -> str | None:
        """What it failed with."""
        return self.error

    def with_text(self, text: str) -> Ending:
        """The same failure with another text."""
        return replace(self, error=text, raised=None if self.raised is None else self.raised.with_text(text))

    def without_record(self) -> Ending | None:
        """The same failure, of which the list of attempts says nothing."""
        return replace(self, recorded=False)


@dataclass(frozen=True, slots=True)
class Snoozed(Ending):
    """The attempt is not counted as one of the job's, and the job is put off for `delay` seconds."""

    counted: ClassVar[Counted] = "snoozed"
    total: ClassVar[Total] = "put_off"

    delay: float
    recorded: bool = True

    def end(self, attempt: Attempt, keep: float | None) -> End:
        """Its job waits again until the delay is over, unless it was cancelled: then its end is kept."""
        how = AttemptHow.SNOOZED if self.recorded else None
        return GIVE_BACK, attempt, (self.delay, attempt.handler_started, attempt.claim.claimed_at(attempt), how, keep)

    def without_record(self) -> Ending | None:
        """The same, of which the list of attempts says nothing."""
        return replace(self, recorded=False)


@dataclass(frozen=True, slots=True)
class GivenBack(Ending):
    """The attempt is not counted as one of the job's, and the job waits again as before.

    Where its handler had begun, the attempt was interrupted, and the list of attempts says so.
    """

    counted: ClassVar[Counted] = "given_back"
    total: ClassVar[Total] = "given_back"
    goes_back: ClassVar[bool] = True
    undone: ClassVar[bool] = True

    recorded: bool = True

    def end(self, attempt: Attempt, keep: float | None) -> End:
        """Its job waits as before, unless it was cancelled: then its end is kept."""
        how = AttemptHow.INTERRUPTED if self.recorded and attempt.handler_started else None
        return GIVE_BACK, attempt, (None, attempt.handler_started, attempt.claim.claimed_at(attempt), how, keep)

    def without_record(self) -> Ending | None:
        """The same, of which the list of attempts says nothing."""
        return replace(self, recorded=False)


@dataclass(frozen=True, slots=True)
class Cancelled(Ending):
    """The job was cancelled, and its handler has not completed.

    It is counted among the discarded ones: the job has ended without failure, and without being done. Dead letters that
    it left behind stay, since its work is not done.
    """

    counted: ClassVar[Counted] = "discarded"
    total: ClassVar[Total] = "done"
    undone: ClassVar[bool] = True

    def end(self, attempt: Attempt, keep: float | None) -> End:
        """Its job is deleted, and its end is kept with the reason that stands in its row."""
        how = AttemptHow.CANCELLED if attempt.handler_started else None
        return END_CANCELLED, attempt, (keep, attempt.claim.claimed_at(attempt), how)

    def level(self, job: Job) -> int:  # noqa: ARG002 - it is the same for all jobs
        """INFO, since somebody asked for it and nothing else tells of it."""
        return logging.INFO


class Answered(BaseException):
    """Ends an attempt in the way that was decided around its handler: by interceptors, or since its time was over.

    Only the executor sees it.

    Attributes:
        ending: how the attempt ended.
    """

    def __init__(self, ending: Ending) -> None:
        super().__init__()
        self.ending = ending


COMPLETED: Final = Completed()
COMMITTED: Final = Committed()
GIVEN_BACK: Final = GivenBack()
CANCELLED: Final = Cancelled()


def _marks(items: tuple[int, ...]) -> str:
    """Whether each element of a batch failed, up to the last that did; none where all of them did.

    Args:
        items: the indexes of those that failed, in order.
    """
    marks = ["f"] * (items[-1] + 1) if items else []
    for index in items:
        marks[index] = "t"
    return f"{{{','.join(marks)}}}"


def is_last(job: Job) -> bool:
    """Whether a job has no attempt left after this one, by its row as it was claimed."""
    return job.attempts >= job.max_attempts


def was_last(attempt: Attempt, ending: Ending) -> bool:
    """Whether an attempt was its job's last.

    The statement that wrote its end says so, since it saw the row as it was then. Where its answer was lost, the
    worker's own expectation is used.
    """
    return ending.expects_last(attempt.job) if attempt.last is None else attempt.last
