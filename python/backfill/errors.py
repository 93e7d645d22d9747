"""Every exception of the package, in one tree under `BackfillError`.

Read by every other module and by the native extension, which raises these classes; it imports nothing of ours. A
message names the field, the value and the way out: whoever reads it may be reading it at night.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time, timedelta
from enum import Enum
from types import FunctionType
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from backfill.ends import JobEnd

LONGEST_WAIT = timedelta(days=366)
"""The longest time between two attempts."""
_NAMED = 5
"""A message that lists names shows so many of them at most."""
_SETTINGS: Final = (str, int, float, date, time, timedelta, Enum, type, FunctionType)
"""What a job's settings are made of; any other value may be a payload in the wrong place."""


class BackfillError(Exception):
    """The root of all that backfill raises on purpose."""


class ConfigurationError(BackfillError, ValueError):
    """A setting of a client, a worker or the shell that cannot be used.

    The message names the setting and its limits.
    """


class TaskDefinitionError(BackfillError, TypeError):
    """A task that cannot be registered or resolved.

    It may be a handler's shape, a name in use, or an annotation without its import.
    """


class InvalidJobError(BackfillError, ValueError):
    """Bad input to a producer's call, refused before anything is written.

    Attributes:
        field: the argument at fault, as the caller spelt it (`job_key`, `priority`, `payload.items[3]` ...).
        value: what was given. The message shows it, shortened, where it is text, a number, a time or a class of ours;
            of any other its type, since it may be a payload in the wrong place.
        limit: what would have been accepted, in words.
    """

    def __init__(self, field: str, value: object, limit: str) -> None:
        self.field = field
        self.value = value
        self.limit = limit
        super().__init__(f"{field} = {_shortened(value)}: {limit}")

    def __reduce__(self) -> tuple[type[InvalidJobError], tuple[str, object, str]]:
        """Pickle by the arguments, since the message alone could not rebuild it."""
        return type(self), (self.field, self.value, self.limit)


class InvalidPayloadError(InvalidJobError):
    """A payload that is not JSON, or that PostgreSQL would not hold: not a number, NUL, lone surrogates, unknown types.

    The message shows numbers only: other values of a payload may be secrets, and messages end in logs.
    """

    def __init__(self, field: str, value: object, limit: str) -> None:
        super().__init__(field, value, limit)
        if not isinstance(value, (int, float)):
            self.args = (f"{field} (of type {type(value).__name__}): {limit}",)


class PayloadDecodeError(BackfillError):
    """A row's payload, or another of its columns, that cannot be read as its handler's type.

    That attempt fails, alone.
    """


class BulkEnqueueError(BackfillError):
    """A bulk enqueue that stopped; `__cause__` says why.

    Attributes:
        written: how many jobs are committed and will run; 0 where the call was all or nothing.
        index: the zero-based position of the job at fault, where one job is at fault, else None.
        unknown: how many more may be committed, all or none of them: the connection was lost while they were.
    """

    def __init__(self, message: str, *, written: int, index: int | None = None, unknown: int = 0) -> None:
        self.written = written
        self.index = index
        self.unknown = unknown
        super().__init__(message)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle with the attributes, which are keyword-only."""
        return _rebuild_bulk_error, (type(self), str(self), self.written, self.index, self.unknown)


class JobNotCompletedError(BackfillError):
    """A job whose result was awaited has ended otherwise: it failed for good, was discarded, or was superseded.

    Attributes:
        end: how it ended, a `JobEnd`.
    """

    def __init__(self, end: JobEnd) -> None:
        reason = "" if end.error is None else f": {_shortened_text(end.error)}"
        how = "completed without a result" if end.how == "completed" else end.how
        super().__init__(f"job {end.job_id} ({end.task_identifier}) {how}{reason}")
        self.end = end

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the end, since the message alone could not rebuild it."""
        return type(self), (self.end,)


class JobCancelledError(JobNotCompletedError):
    """A job whose result was awaited was ended by an operator."""


class EndNotKeptError(BackfillError, LookupError):
    """A job whose result was awaited is not there, and left no end."""


class ResultTimeoutError(BackfillError, TimeoutError):
    """A job whose result was awaited has not ended in time; it goes on."""


class DlqRequeueError(BackfillError):
    """Some dead letters could not be requeued; all others of the call are.

    Attributes:
        added: the jobs' ids by their entries', of those that are requeued.
        refused: why the database refused the others, by their entries' ids.
    """

    def __init__(self, added: Mapping[int, int], refused: Mapping[int, str]) -> None:
        self.added = dict(added)
        self.refused = dict(refused)
        some = "; ".join(f"id {entry}: {reason}" for entry, reason in list(self.refused.items())[:_NAMED])
        more = f"; and {len(self.refused) - _NAMED} more" if len(self.refused) > _NAMED else ""
        super().__init__(f"{len(self.refused)} dead letters were refused, {len(self.added)} are requeued: {some}{more}")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by its two parts, since the message alone could not rebuild it."""
        return type(self), (self.added, self.refused)


class DlqJobNotFoundError(BackfillError, LookupError):
    """An entry of the dead letters that is not there: deleted, or gone since its job completed.

    Attributes:
        id: the entry's.
    """

    def __init__(self, id: int) -> None:
        self.id = id
        super().__init__(f"there is no dead letter with the id {id}")

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle by the id, since the message alone could not rebuild it."""
        return type(self), (self.id,)


class CleanupRefusedError(BackfillError):
    """Queues or tasks that are not collected, since another program could be left with what is gone.

    Attributes:
        workers: the ids of other programs' workers that may live, ten at most.
    """

    def __init__(self, message: str, workers: tuple[str, ...] = ()) -> None:
        self.workers = workers
        super().__init__(message)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle with the workers."""
        return type(self), (str(self), self.workers)


class ClientClosedError(BackfillError):
    """A call to a client or a worker that was closed, or is not open yet where it must be."""


class DatabaseConnectionError(BackfillError):
    """No connection to PostgreSQL: the message names host, port, database and user, never the password.

    Raised itself, nothing was written.
    """


class ReadOnlyDatabaseError(DatabaseConnectionError):
    """A database that takes no writes, found when a client or a worker started.

    It is a standby, or one that is set to be read-only.
    """


class CommitUnknownError(DatabaseConnectionError):
    """The connection was lost while the server worked: what was being written is there whole, or not at all."""


class SchemaError(BackfillError):
    """The database's schema is not one that this version can work with."""


class SchemaMissingError(SchemaError):
    """The schema, or our part of it, is not there yet: `backfill migrate` makes it."""


class SchemaVersionError(SchemaError):
    """The schema is too new (a breaking migration that this version does not know) or too old.

    Both numbers are named.
    """


class MigrationError(SchemaError):
    """A migration that could not be carried out; what had been done stands, and a second run goes on from there."""


class WorkerError(BackfillError):
    """The root of what handlers raise to say whether another attempt is worth while; the class alone decides, no text.

    Raised itself, it is retried, as whatever else a handler raises.

    Args:
        message: what happened; it ends in `last_error`.
        retry_after: how long to wait before the next attempt, in the place of the retry policy's delay; from 0 to 366
            days. The attempt counts all the same, so no job is tried without end.

    Attributes:
        retryable: whether another attempt may follow.

    Raises:
        ConfigurationError: `retry_after` is no such time.
    """

    retryable: ClassVar[bool] = True
    retry_after: timedelta | None = None

    def __init__(self, message: str = "", *, retry_after: timedelta | None = None) -> None:
        super().__init__(*([message] if message else []))
        self.retry_after = None if retry_after is None else _wait("retry_after", retry_after)


class InvalidInput(WorkerError):  # noqa: N818 - the names of these classes are shared with the crate of the same queue
    """The payload asks for what makes no sense. Not retried."""

    retryable = False


class MalformedData(WorkerError):  # noqa: N818
    """Data that cannot be read. Not retried."""

    retryable = False


class Unauthorized(WorkerError):  # noqa: N818
    """Nobody, or the wrong one, is logged in. Not retried."""

    retryable = False


class Forbidden(WorkerError):  # noqa: N818
    """It is not allowed. Not retried."""

    retryable = False


class ResourceNotFound(WorkerError):  # noqa: N818
    """What the job is about is not there. Not retried."""

    retryable = False


class ValidationFailed(WorkerError):  # noqa: N818
    """A rule of the program forbids it. Not retried."""

    retryable = False


class ConnectionTimeout(WorkerError):  # noqa: N818
    """No answer in time. Retried."""


class NetworkError(WorkerError):
    """The network failed. Retried."""


class ServiceUnavailable(WorkerError):  # noqa: N818
    """A service is down. Retried."""


class RateLimitExceeded(WorkerError):  # noqa: N818
    """Asked too often; `retry_after` is what the service said. Retried."""


class TemporaryUnavailable(WorkerError):  # noqa: N818
    """The database will answer later. The job is tried again."""


class JobFailed(WorkerError):  # noqa: N818
    """The job failed for a reason of its own. Retried."""


class ExternalServiceFailure(WorkerError):  # noqa: N818
    """Another service failed; both are named. Retried.

    Args:
        service: its name.
        error: what it said.
        retry_after: how long to wait before the next attempt.
    """

    def __init__(self, service: str, error: str = "", *, retry_after: timedelta | None = None) -> None:
        super().__init__(f"{service}: {error}" if error else service, retry_after=retry_after)
        self.service = service
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by its two parts, since the message alone could not rebuild it."""
        return type(self), (self.service, self.error), self.__dict__


class Snooze(BackfillError):  # noqa: N818 - no error: a handler says "later" by it
    """Raised by a handler to put its job off: it costs no attempt and counts as no failure.

    Args:
        delay: how long from now, by the database's clock; from 0 to 366 days. Less than 100 ms is 100 ms.

    Raises:
        ConfigurationError: `delay` is no such time.
    """

    def __init__(self, delay: timedelta) -> None:
        self.delay = _wait("delay", delay)
        super().__init__(delay)


class Discard(BackfillError):  # noqa: N818 - no error: a handler says "never mind" by it
    """Raised by a handler to end its job for good, without failure.

    Nothing is tried again or kept among the dead letters.

    Args:
        reason: why; it is logged.
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(*([reason] if reason else []))


def _wait(field: str, value: object) -> timedelta:
    if not isinstance(value, timedelta) or not timedelta(0) <= value <= LONGEST_WAIT:
        raise ConfigurationError(f"{field} = {value!r}: expected a datetime.timedelta from 0 to 366 days")
    return value


def _shortened_text(text: str, limit: int = 200) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def _shortened(value: object, limit: int = 120) -> str:
    """A value as messages show it: its own words where it is a setting, else its type, since it may be a payload."""
    ours = type(value).__module__.partition(".")[0] == "backfill"
    if not (value is None or ours or isinstance(value, _SETTINGS)):
        return f"<{type(value).__name__}>"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (a caller's own __repr__ must not hide the error that names the field)
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _rebuild_bulk_error(
    kind: type[BulkEnqueueError], message: str, written: int, index: int | None, unknown: int
) -> BulkEnqueueError:
    return kind(message, written=written, index=index, unknown=unknown)
