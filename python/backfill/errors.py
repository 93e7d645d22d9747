"""Every exception of the package, in one tree under `BackfillError`.

Every other module imports them from here, and the native extension raises these classes. The roots and the exceptions
about handlers stand in two modules of their own, `error_roots` and `handler_errors`. A message names the field, the
value and the way out, since it may be read at night.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta  # noqa: F401 (the annotations of classes of handler_errors are read in this module)
from typing import TYPE_CHECKING, ClassVar  # noqa: F401 (as above)

from backfill.error_roots import BackfillError, ConfigurationError
from backfill.handler_errors import (
    LONGEST_WAIT,
    BatchFailed,
    ConnectionTimeout,
    Discard,
    ExternalServiceFailure,
    Forbidden,
    InvalidInput,
    JobFailed,
    MalformedData,
    NetworkError,
    ProcessDiedError,
    RateLimitExceeded,
    ResourceNotFound,
    ServiceUnavailable,
    Snooze,
    TemporaryUnavailable,
    Unauthorized,
    ValidationFailed,
    WorkerError,
)
from backfill.rebuilt import Rebuilt
from backfill.shown import few, first_line, shown

if TYPE_CHECKING:
    from backfill.ends import JobEnd

__all__ = [
    "LONGEST_WAIT",
    "BackfillError",
    "BatchFailed",
    "BulkEnqueueError",
    "CleanupRefusedError",
    "ClientClosedError",
    "CommitUnknownError",
    "ConfigurationError",
    "ConnectionTimeout",
    "CrontabParseError",
    "DatabaseConnectionError",
    "Discard",
    "DlqJobNotFoundError",
    "DlqRequeueError",
    "EndNotKeptError",
    "ExternalServiceFailure",
    "Forbidden",
    "HandlersStillRunningError",
    "InvalidInput",
    "InvalidJobError",
    "InvalidPayloadError",
    "JobCancelledError",
    "JobFailed",
    "JobNotCompletedError",
    "JobScheduleRefusedError",
    "MalformedData",
    "MigrationError",
    "NetworkError",
    "PayloadDecodeError",
    "ProcessDiedError",
    "RateLimitExceeded",
    "ReadOnlyDatabaseError",
    "ResourceNotFound",
    "ResultTimeoutError",
    "ScheduleExistsError",
    "ScheduleNotFoundError",
    "SchemaError",
    "SchemaMissingError",
    "SchemaVersionError",
    "ServiceUnavailable",
    "Snooze",
    "TaskDefinitionError",
    "TemporaryUnavailable",
    "Unauthorized",
    "ValidationFailed",
    "WorkerError",
]


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


class ScheduleNotFoundError(Rebuilt, BackfillError, LookupError):
    """A recurring item that there is not: neither a worker's code nor an operator has ever named it.

    Attributes:
        identifier: the identifier that was asked for.
        alike: identifiers that there are and that look like it.
    """

    _arguments = ("identifier", "alike")

    def __init__(self, identifier: str, alike: tuple[str, ...] = ()) -> None:
        self.identifier = identifier
        self.alike = alike
        meant = f"; is {' or '.join(map(repr, alike))} meant?" if alike else ""
        known = "; items of code are known once a worker that declares them has started"
        super().__init__(f"there is no schedule {shown(identifier)}{meant or known}")


class ScheduleExistsError(Rebuilt, BackfillError):
    """A recurring item cannot be added, since there is one of this identifier.

    Attributes:
        identifier: the identifier.
    """

    _arguments = ("identifier",)

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        super().__init__(
            f"there is a schedule {shown(identifier)} already: change it, or give the new one another identifier (id=)"
        )


class CleanupRefusedError(BackfillError):
    """A cleanup was refused, since a worker might still need what it would remove or unlock.

    Unused queues or tasks are not removed while another program may still refer to them, and `force_unlock_workers`
    takes nothing from workers that are alive.

    Attributes:
        workers: the ids of the workers that live, or may live, ten at most.
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


class LeaseLostError(BackfillError):
    """The job is not this worker's any more, so what its handler wrote in `ctx.transaction()` was not committed.

    It is also raised where the answer to the commit was lost, and nobody can tell whether the job was completed by this
    attempt or by another one. The attempt ends with it, whatever the handler returns or raises after that.
    """


class TransactionUseError(BackfillError):
    """`ctx.transaction()` was used in a way in which it cannot complete the job; the message says the way out."""


class SchemaError(BackfillError):
    """The database's schema is not one that this version can work with."""


class SchemaMissingError(SchemaError):
    """The schema, or this package's part of it, does not exist yet; `backfill migrate` makes it."""


class SchemaVersionError(SchemaError):
    """The schema is too old, or has a breaking migration that this version does not know; both numbers are named."""


class MigrationError(SchemaError):
    """A migration could not be carried out; what was done before stands, and a second run continues from there."""


for _kind in (
    BackfillError,
    ConfigurationError,
    WorkerError,
    InvalidInput,
    MalformedData,
    Unauthorized,
    Forbidden,
    ResourceNotFound,
    ValidationFailed,
    ConnectionTimeout,
    NetworkError,
    ServiceUnavailable,
    RateLimitExceeded,
    TemporaryUnavailable,
    JobFailed,
    ExternalServiceFailure,
    ProcessDiedError,
    BatchFailed,
    Snooze,
    Discard,
):
    _kind.__module__ = __name__  # records of attempts and pickled errors name the module that programs import
