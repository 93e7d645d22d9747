"""Every exception of the package, in one tree under `BackfillError`.

Read by every other module and by the native extension, which raises these classes; it imports nothing of ours. A message
names the field, the value and the way out: whoever reads it may be reading it at night.
"""

from __future__ import annotations


class BackfillError(Exception):
    """The root of all that backfill raises on purpose."""


class ConfigurationError(BackfillError, ValueError):
    """A setting of a client, a worker or the shell that cannot be used: the message names the setting and its limits."""


class TaskDefinitionError(BackfillError, TypeError):
    """A task that cannot be registered or resolved: a handler's shape, a name in use, an annotation without its import."""


class InvalidJobError(BackfillError, ValueError):
    """Bad input to a producer's call, refused before anything is written.

    Attributes:
        field: the argument at fault, as the caller spelt it (`job_key`, `priority`, `payload.items[3]` ...).
        value: what was given (shortened in the message, whole here).
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
    """A row's payload, or another of its columns, that cannot be read as its handler's type: that attempt fails, alone."""


class BulkEnqueueError(BackfillError):
    """A bulk enqueue that stopped; `__cause__` says why.

    Attributes:
        written: how many jobs are committed and will run; 0 where the call was all or nothing.
        index: the zero-based position of the job at fault, where one job is at fault, else None.
    """

    def __init__(self, message: str, *, written: int, index: int | None = None) -> None:
        self.written = written
        self.index = index
        super().__init__(message)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Pickle with the two attributes, which are keyword-only."""
        return _rebuild_bulk_error, (type(self), str(self), self.written, self.index)


class ClientClosedError(BackfillError):
    """A call to a client or a worker that was closed, or is not open yet where it must be."""


class DatabaseConnectionError(BackfillError):
    """No connection to PostgreSQL: the message names host, port, database and user, never the password."""


class SchemaError(BackfillError):
    """The database's schema is not one that this version can work with."""


class SchemaMissingError(SchemaError):
    """The schema, or our part of it, is not there yet: `backfill migrate` makes it."""


class SchemaVersionError(SchemaError):
    """The schema is too new (a breaking migration that this version does not know) or too old: both numbers are named."""


class MigrationError(SchemaError):
    """A migration that could not be carried out; what had been done stands, and a second run goes on from there."""


def _shortened(value: object, limit: int = 120) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (a caller's own __repr__ must not hide the error that names the field)
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _rebuild_bulk_error(
    kind: type[BulkEnqueueError], message: str, written: int, index: int | None
) -> BulkEnqueueError:
    return kind(message, written=written, index=index)
