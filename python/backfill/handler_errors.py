"""The exceptions about handlers: those by which a handler says what becomes of its job, and what befalls its process.

Programs import them from `backfill` or from `backfill.errors`.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable
from datetime import timedelta
from itertools import pairwise
from typing import ClassVar

from backfill.error_roots import BackfillError, ConfigurationError
from backfill.rebuilt import Rebuilt
from backfill.shown import few, shown

LONGEST_WAIT = timedelta(days=366)
"""The longest time between two attempts."""


class WorkerError(BackfillError):
    """The root of the errors by which a handler says whether another attempt is worthwhile; only the class decides.

    If this class itself is raised, the job is retried, as after any other exception of a handler.

    Args:
        message: what happened; it is written to `last_error`.
        retry_after: how long to wait before the next attempt, instead of the retry policy's delay; from 0 to 366 days.
            The attempt still counts, so no job is tried without end.

    Attributes:
        retryable: whether another attempt may follow.

    Raises:
        ConfigurationError: `retry_after` is not a time from 0 to 366 days.
    """

    retryable: ClassVar[bool] = True
    retry_after: timedelta | None = None

    def __init__(self, message: str = "", *, retry_after: timedelta | None = None) -> None:
        super().__init__(*([message] if message else []))
        self.retry_after = None if retry_after is None else _wait("retry_after", retry_after)

    @staticmethod
    def from_any_error(error: BaseException) -> WorkerError:
        """Make a `WorkerError` of any error, by the error's class; the error itself becomes its cause.

        Text that is no JSON becomes `MalformedData`, a `TimeoutError` `ConnectionTimeout`, a `ConnectionError`
        `NetworkError`, a `FileNotFoundError` `ResourceNotFound`, a `PermissionError` `Forbidden`, and all else
        `JobFailed`, which is retried. The message has the text of the first five only: others, such as a database's,
        may quote the data that they are about.

        Args:
            error: what was caught.

        Returns:
            The error to raise; what is a `WorkerError` already is returned as it is.

        Raises:
            BaseException: `error` itself, if it is a `Snooze`, a `Discard` or no `Exception` (such as a cancellation):
                these are no failures, and stay what they are.
            ConfigurationError: `error` is no exception.

        Example:
            >>> try:
            ...     load()
            ... except Exception as error:
            ...     raise WorkerError.from_any_error(error)
        """
        if isinstance(error, WorkerError):
            return error
        if not isinstance(error, BaseException):
            raise ConfigurationError(
                f"error = {type(error).__name__}: expected an exception; of a text, classify_from_message makes one"
            )
        if isinstance(error, (Snooze, Discard)) or not isinstance(error, Exception):
            raise error
        kind = next((kind for classes, kind in _converted() if isinstance(error, classes)), JobFailed)
        try:
            text = "" if kind is JobFailed else str(error)
        except Exception:  # noqa: BLE001 - a class whose text cannot be made is as good as one without a text
            text = ""
        made = kind(f"{type(error).__qualname__}: {text}" if text else type(error).__qualname__)
        made.__cause__ = error
        return made


class InvalidInput(WorkerError):  # noqa: N818 - the names of these classes are shared with the crate of the same queue
    """The payload asks for something that makes no sense; the job is not retried."""

    retryable = False


class MalformedData(WorkerError):  # noqa: N818
    """Data cannot be read; the job is not retried."""

    retryable = False


class Unauthorized(WorkerError):  # noqa: N818
    """Nobody is logged in, or the wrong user is; the job is not retried."""

    retryable = False


class Forbidden(WorkerError):  # noqa: N818
    """What the job should do is not allowed; the job is not retried."""

    retryable = False


class ResourceNotFound(WorkerError):  # noqa: N818
    """What the job is about does not exist; the job is not retried."""

    retryable = False


class ValidationFailed(WorkerError):  # noqa: N818
    """A rule of the program forbids what the job should do; the job is not retried."""

    retryable = False


class ConnectionTimeout(WorkerError):  # noqa: N818
    """No answer came in time; the job is retried."""


class NetworkError(WorkerError):
    """The network failed; the job is retried."""


class ServiceUnavailable(WorkerError):  # noqa: N818
    """A service is down; the job is retried."""


class RateLimitExceeded(WorkerError):  # noqa: N818
    """A service was asked too often, and `retry_after` is the wait that it demands; the job is retried."""


class TemporaryUnavailable(WorkerError):  # noqa: N818
    """The database will answer later; the job is retried."""


class JobFailed(WorkerError):  # noqa: N818
    """The job failed for a reason of its own; it is retried."""


class ExternalServiceFailure(WorkerError):  # noqa: N818
    """Another service failed, and the message names it and its error; the job is retried.

    Args:
        service: the name of the service.
        error: what the service said.
        retry_after: how long to wait before the next attempt.
    """

    def __init__(self, service: str, error: str = "", *, retry_after: timedelta | None = None) -> None:
        super().__init__(f"{service}: {error}" if error else service, retry_after=retry_after)
        self.service = service
        self.error = error


class ProcessDiedError(Rebuilt, WorkerError):
    """The child process that ran a handler with `run_in="process"` died; its attempt failed, and the job is retried.

    A signal such as SIGSEGV comes from a fault in a library that is written in C, SIGKILL mostly from the system where
    memory is short, and an exit code from code that calls `os._exit`. No other job is touched.

    Attributes:
        reason: what happened, such as "was killed by signal 11 (SIGSEGV)".
        signal: the number of the signal that killed the process; None if none did.
        exit_code: the process's exit code; None if a signal killed it.
    """

    _arguments = ("reason", "signal", "exit_code")

    def __init__(self, reason: str, signal: int | None = None, exit_code: int | None = None) -> None:
        self.reason = reason
        self.signal = signal
        self.exit_code = exit_code
        super().__init__(f"the process that ran the handler {reason}; docs/processes.md says what to do")


class Snooze(BackfillError):  # noqa: N818 - no error: a handler says "later" by it
    """Raised by a handler to put its job off: it costs no attempt and counts as no failure.

    Args:
        delay: how long from now, by the database's clock; from 0 to 366 days. A delay under 100 ms counts as 100 ms.

    Raises:
        ConfigurationError: `delay` is not a time from 0 to 366 days.
    """

    def __init__(self, delay: timedelta) -> None:
        self.delay = _wait("delay", delay)
        super().__init__(delay)


class Discard(BackfillError):  # noqa: N818 - no error: a handler says "never mind" by it
    """Raised by a handler to end its job for good, without failure.

    The job is not tried again, and it does not become a dead letter.

    Args:
        reason: why the job is discarded; it is logged.
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(*([reason] if reason else []))


class BatchFailed(WorkerError):  # noqa: N818 - a handler says by it which items are left
    """Raised by the handler of a task with `batch=True`: these items failed, and all others of the payload are done.

    The job goes on with the items that failed, and with them alone: its payload holds nothing else from then on. If no
    other attempt follows, its dead letter holds them. Any other exception means that every item failed.

        @tasks.task("index", batch=True)
        async def index(pages: list[str]) -> None:
            failed = [place for place, page in enumerate(pages) if not page.startswith("/")]
            if failed:
                raise BatchFailed(failed, ValueError("no path"))

    Args:
        indexes: the places of the items that failed in the list that the handler got, from 0. In any order; at least
            one, and none twice.
        error: what they failed with. Of an exception the class says whether another attempt is worthwhile, as if the
            handler had raised it alone; an `ExceptionGroup` holds several. If left out, it is the exception that
            `raise ... from` names, if there is one.
        retry_after: how long to wait before the next attempt, instead of the retry policy's delay; from 0 to 366 days.

    Attributes:
        indexes: the places of the items that failed, in order.

    Raises:
        ConfigurationError: `indexes` are no such places, `error` puts a job off or discards it, or `retry_after` is not
            a time from 0 to 366 days.
    """

    indexes: tuple[int, ...] = ()
    _given: BaseException | str | None = None

    def __init__(
        self,
        indexes: Iterable[int],
        error: BaseException | str | None = None,
        *,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(retry_after=retry_after)
        self.indexes = _places(indexes)
        self._given = error
        if isinstance(error, (Snooze, Discard)):
            raise ConfigurationError(
                f"error = {type(error).__name__}: single items of a batch cannot be put off or discarded; leave one "
                "that is discarded out of the indexes, and use retry_after for one that has to wait"
            )
        if isinstance(error, BaseException):
            self.__cause__ = error
        elif error is not None and not isinstance(error, str):
            raise ConfigurationError(f"error = {shown(error)}: expected an exception, a text, or leave it out")

    @property
    def error(self) -> BaseException | str | None:
        """What the items failed with: what was given, else the exception that `raise ... from` names.

        `raise error from error` names the error itself, which says nothing about its items.
        """
        return self.__cause__ if self._given is None and self.__cause__ is not self else self._given

    def __str__(self) -> str:
        """How many items failed, which ones, and with what; of an exception only its class, since its text follows."""
        places = few([str(index) for index in self.indexes], 10).replace(";", ",")
        noun = "item" if len(self.indexes) == 1 else "items"
        error = type(self.error).__qualname__ if isinstance(self.error, BaseException) else self.error
        return f"{len(self.indexes)} {noun} of the batch failed ({places}){f': {error}' if error else ''}"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the class and the arguments."""
        return type(self), (self.indexes, self._given), {"retry_after": self.retry_after}


def _converted() -> tuple[tuple[type[Exception], type[WorkerError]], ...]:
    """Which classes of the standard library become which of ours; the first that fits counts."""
    return (
        (json.JSONDecodeError, MalformedData),
        (TimeoutError, ConnectionTimeout),
        (ConnectionError, NetworkError),
        (FileNotFoundError, ResourceNotFound),
        (PermissionError, Forbidden),
    )


def _places(indexes: object) -> tuple[int, ...]:
    """The indexes of items, in order.

    Raises:
        ConfigurationError: they are no places in a list, one of them is there twice, or there is none.
    """
    if not isinstance(indexes, Iterable) or isinstance(indexes, (str, bytes)):
        raise ConfigurationError(f"indexes = {shown(indexes)}: expected the places of the items that failed, as [0, 2]")
    found = list[int]()
    for index in indexes:
        try:
            place = -1 if isinstance(index, bool) else operator.index(index)
        except TypeError:
            place = -1
        if place < 0:
            raise ConfigurationError(
                f"indexes holds {shown(index)}: expected the places of the items that failed, which are whole numbers "
                "from 0"
            )
        found.append(place)
    if not found:
        raise ConfigurationError(
            "indexes = []: expected the place of one item at least; where none has failed, return from the handler"
        )
    ordered = sorted(found)
    if (twice := next((one for one, two in pairwise(ordered) if one == two), None)) is not None:
        raise ConfigurationError(f"indexes holds {twice} twice: expected each place once")
    return tuple(ordered)


def _wait(field: str, value: object) -> timedelta:
    if not isinstance(value, timedelta) or not timedelta(0) <= value <= LONGEST_WAIT:
        raise ConfigurationError(f"{field} = {value!r}: expected a datetime.timedelta from 0 to 366 days")
    return value
