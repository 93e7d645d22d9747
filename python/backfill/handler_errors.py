"""The exceptions about handlers: those by which a handler says what becomes of its job, and what befalls its process.

Programs import them from `backfill` or from `backfill.errors`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from backfill.error_roots import BackfillError, ConfigurationError
from backfill.rebuilt import Rebuilt

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


def _wait(field: str, value: object) -> timedelta:
    if not isinstance(value, timedelta) or not timedelta(0) <= value <= LONGEST_WAIT:
        raise ConfigurationError(f"{field} = {value!r}: expected a datetime.timedelta from 0 to 366 days")
    return value
