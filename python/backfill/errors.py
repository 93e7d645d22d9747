"""Every exception of the package, in one tree under `BackfillError`.

Every other module imports this one, and the native extension raises these classes; this module imports only `shown`,
which says how a message shows a value, and `rebuilt`, which says how an exception is pickled. A message names the
field, the value and the way out, since it may be read at night.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from backfill.rebuilt import Rebuilt
from backfill.shown import few, first_line, shown

if TYPE_CHECKING:
    from backfill.ends import JobEnd

LONGEST_WAIT = timedelta(days=366)
"""The longest time between two attempts."""


class BackfillError(Exception):
    """The root of all exceptions that backfill raises on purpose."""


class ConfigurationError(BackfillError, ValueError):
    """A setting of a client, a worker or the shell that cannot be used; the message names it and its limits."""


class TaskDefinitionError(BackfillError, TypeError):
    """A task that cannot be registered or resolved.

    The cause may be the handler's parameters, a name that is taken, or an annotation whose name is not imported.
    """


class InvalidJobError(Rebuilt, BackfillError, ValueError):
    """Bad input to a producer's call, refused before anything is written.

    Attributes:
        field: the argument at fault, as the caller spelt it (`job_key`, `priority`, `payload.items[3]` ...).
        value: what was given. The message shows it, shortened, if it is a text, a number, a time or of a class of this
            package. Of any other value it shows the type only, since that value may be a payload in the wrong place.
        limit: what would have been accepted, in words.
    """

    _arguments = ("field", "value", "limit")

    def __init__(self, field: str, value: object, limit: str) -> None:
        self.field = field
        self.value = value
        self.limit = limit
        super().__init__(f"{field} = {shown(value)}: {limit}")


class InvalidPayloadError(InvalidJobError):
    """A payload that is not JSON, or that PostgreSQL cannot hold: NaN, NUL, lone surrogates or unknown types.

    The message shows no values but numbers: other values may be secrets, and messages end up in logs.
    """

    def __init__(self, field: str, value: object, limit: str) -> None:
        super().__init__(field, value, limit)
        if not isinstance(value, (int, float)):
            self.args = (f"{field} (of type {type(value).__name__}): {limit}",)


class CrontabParseError(Rebuilt, BackfillError, ValueError):
    """A crontab's text, or the five fields of a schedule, that cannot be read.

    Attributes:
        line: the line at fault, counted from 1.
        column: the character of the line at which reading ended, counted from 1.
        input: what stands there, shortened; empty where something is missing. Of a payload it is one character.
        expected: what would have been accepted, in words.
    """

    _arguments = ("line", "column", "input", "expected")

    def __init__(self, line: int, column: int, input: str, expected: str) -> None:
        self.line = line
        self.column = column
        self.input = input
        self.expected = expected
        super().__init__(f"line {line}, column {column}: {shown(input) if input else 'nothing'}: expected {expected}")


class PayloadDecodeError(BackfillError):
    """A row whose payload is not of its handler's type, or a column that cannot be read; its attempt alone fails."""


class BulkEnqueueError(BackfillError):
    """A bulk enqueue that stopped; `__cause__` says why.

    Attributes:
        written: how many jobs are committed and will run; 0 if the call was to write all jobs or none.
        index: the zero-based position of the job at fault; None if no single job is at fault.
        unknown: how many more jobs may be committed, either all of these or none: the connection was lost during their
            commit.
        skipped: how many items among the committed jobs were left out, because an interceptor said Skip. So the first
            item of which nothing is committed is the one at the position `written + skipped`.
    """

    def __init__(
        self, message: str, *, written: int = 0, index: int | None = None, unknown: int = 0, skipped: int = 0
    ) -> None:
        self.written = written
        self.index = index
        self.unknown = unknown
        self.skipped = skipped
        super().__init__(message)


class JobScheduleRefusedError(Rebuilt, BackfillError):
    """A job was not added, because an interceptor of `BeforeJobSchedule` said Skip or Fail.

    Attributes:
        task: the name of the job's task.
        hook: the dotted name of the interceptor.
        text: the text of Fail; None if the interceptor said Skip.
        skipped: whether it said Skip.
    """

    _arguments = ("task", "hook", "text")

    def __init__(self, task: str, hook: str, text: str | None) -> None:
        self.task = task
        self.hook = hook
        self.text = text
        self.skipped = text is None
        why = "skipped the job" if text is None else f"refused the job: {text}"
        super().__init__(f"task {task!r}: not added, since {hook} {why}")


class JobNotCompletedError(Rebuilt, BackfillError):
    """A job whose result was awaited ended without one: it failed for good, was discarded, or was superseded.

    Attributes:
        end: how it ended, a `JobEnd`.
    """

    _arguments = ("end",)

    def __init__(self, end: JobEnd) -> None:
        reason = "" if end.error is None else f": {first_line(end.error)}"
        how = "completed without a result" if end.how == "completed" else end.how
        super().__init__(f"job {end.job_id} ({end.task_identifier}) {how}{reason}")
        self.end = end


class JobCancelledError(JobNotCompletedError):
    """A job whose result was awaited was cancelled."""

    @property
    def reason(self) -> str | None:
        """Why it was cancelled; None if no reason was given."""
        return self.end.error


class EndNotKeptError(BackfillError, LookupError):
    """A job whose result was awaited does not exist any more, and its end was not kept."""


class ResultTimeoutError(BackfillError, TimeoutError):
    """A job whose result was awaited has not ended in time; the job itself goes on."""


class DlqRequeueError(Rebuilt, BackfillError):
    """Some dead letters could not be requeued; all others of the call are requeued.

    Attributes:
        added: for each requeued entry, by the entry's id, the id of its new job.
        refused: for each other entry, by the entry's id, why the database refused it.
    """

    _arguments = ("added", "refused")

    def __init__(self, added: Mapping[int, int], refused: Mapping[int, str]) -> None:
        self.added = dict(added)
        self.refused = dict(refused)
        some = few([f"id {entry}: {reason}" for entry, reason in self.refused.items()])
        super().__init__(f"{len(self.refused)} dead letters were refused, {len(self.added)} are requeued: {some}")


class DlqJobNotFoundError(Rebuilt, BackfillError, LookupError):
    """A dead letter that does not exist any more: it was deleted, or it went when its requeued job completed.

    Attributes:
        id: the entry's id.
    """

    _arguments = ("id",)

    def __init__(self, id: int) -> None:
        self.id = id
        super().__init__(f"there is no dead letter with the id {id}")


class CleanupRefusedError(BackfillError):
    """Unused queues or tasks were not removed, since another program might still refer to a removed row.

    Attributes:
        workers: the ids of other programs' workers that may still live, ten at most.
    """

    def __init__(self, message: str, workers: tuple[str, ...] = ()) -> None:
        self.workers = workers
        super().__init__(message)


class ClientClosedError(BackfillError):
    """A call to a client or a worker that is closed, or that is not open yet although the call needs it open."""


class HandlersStillRunningError(BackfillError):
    """A worker has ended, but handlers of it still run; their jobs were given back. End the process to end them.

    Args:
        handlers: the id and the task of each handler's job, and for how many seconds the handler has run.
    """

    def __init__(self, handlers: Sequence[tuple[int, str, float]]) -> None:
        self.handlers = tuple(handlers)
        super().__init__(self.handlers)

    def __str__(self) -> str:
        """How many handlers run, the first few of them, and how to end them, in a sentence of its own."""
        some = few([f"job {job} ({task}) for {seconds:,.1f} s" for job, task, seconds in self.handlers])
        end = "End the process by os._exit(), since sys.exit() can wait for them for ever"
        return f"the worker has ended, but {len(self.handlers)} handlers still run: {some}. {end}"


class DatabaseConnectionError(BackfillError):
    """There is no connection to PostgreSQL; the message names host, port, database and user, never the password.

    If this class itself is raised, not a subclass, nothing was written.
    """


class ReadOnlyDatabaseError(DatabaseConnectionError):
    """The database is a standby or set to be read-only, as a client or a worker found when it started."""


class CommitUnknownError(DatabaseConnectionError):
    """The connection was lost while the server worked: what was being written is committed as a whole or not at all."""


class SchemaError(BackfillError):
    """The database's schema is not one that this version can work with."""


class SchemaMissingError(SchemaError):
    """The schema, or this package's part of it, does not exist yet; `backfill migrate` makes it."""


class SchemaVersionError(SchemaError):
    """The schema is too old, or has a breaking migration that this version does not know; both numbers are named."""


class MigrationError(SchemaError):
    """A migration could not be carried out; what was done before stands, and a second run continues from there."""


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
