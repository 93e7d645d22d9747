"""Runs statements on any connection, whatever its row factory, cursor, adapters or mode, and reads their results.

Used by the client's verbs. Results are taken directly from libpq, so that neither a value that Python cannot hold nor a
loader that a caller registered can cause an error.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from enum import Enum, auto
from functools import cache
from hashlib import sha256
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import ExecStatus
from psycopg.rows import tuple_row
from psycopg.waiting import Ready, Wait

from backfill.client.carrier import AnyConnection, Carrier, sqlstate_of
from backfill.client.prepare import Parameters
from backfill.errors import BackfillError, CommitUnknownError, DatabaseConnectionError, SchemaMissingError
from backfill.said import said, stripped
from backfill.storage.isolation import by_itself, is_read_committed
from backfill.storage.pooler import may_prepare
from backfill.storage.results import Result, first
from backfill.storage.statements import render
from backfill.storage.types import Connection

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

T = TypeVar("T")

PASSING: Final = frozenset({"40P01", "40001"})
"""The server's codes for a deadlock and for a serialisation failure: other calls made it undo a statement."""
BRIEFLY: Final = frozenset({"55P03", "40P01"})
"""Its codes for a lock that was not to be had in time, and for a deadlock."""
_TRIES: Final = 10
_ARRAY_HEADER: Final = 20
_INT8: Final = struct.Struct("!iq")  # an element and its length
_UNPREPARED: Final = (psycopg.errors.InvalidSqlStatementName, psycopg.errors.FeatureNotSupported)
_UNDONE: Final = (
    psycopg.errors.AdminShutdown,
    psycopg.errors.CannotConnectNow,
    psycopg.errors.TooManyConnections,
    psycopg.errors.IdleSessionTimeout,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
)
_MISSING: Final = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedObject,
    psycopg.errors.InvalidSchemaName,
)


class EncodedText(Dumper):
    """Passes text that is already encoded to the server, which infers its type as for any text."""

    def dump(self, obj: bytes) -> bytes:
        """Return the bytes unchanged."""
        return obj


class _State(Enum):
    """Whether a connection has run a statement before, and whether it has prepared it."""

    NEW = auto()
    SEEN = auto()
    PREPARED = auto()
    PLAIN = auto()


_STATES: Final[WeakKeyDictionary[Connection, dict[bytes, _State]]] = WeakKeyDictionary()


async def run(
    connection: AnyConnection,
    name: str,
    schema: str,
    parameters: Parameters = (),
    *,
    binary: bool = False,
    prepared: bool = True,
) -> Result:
    """Run a statement by its name and return its result, in text format unless `binary` is set.

    Args:
        connection: any connection.
        name: the statement's name.
        schema: the queue's schema.
        parameters: the statement's parameters.
        binary: whether the result's values come in binary format.
        prepared: whether the driver may prepare the statement, so that one plan serves many calls. It must not if an
            empty table grows large between these calls.
    """
    if isinstance(connection, Carrier):
        return await connection.run(name, schema, parameters, binary=binary)
    cursor = psycopg.AsyncRawCursor(connection, row_factory=tuple_row)
    if any(isinstance(value, bytes) for value in parameters):
        cursor.adapters.register_dumper(bytes, EncodedText)
    prepare = None if prepared and may_prepare(connection) else False
    if connection.pgconn.pipeline_status:
        async with connection.pipeline():  # leaving the pipeline block at once waits for the result
            await cursor.execute(render(name, schema), parameters, prepare=prepare, binary=binary)
    else:
        async with by_itself(connection):
            await cursor.execute(render(name, schema), parameters, prepare=prepare, binary=binary)
    if cursor.pgresult is None:
        raise BackfillError(f"statement {name!r}: the driver gave no result")
    return cursor.pgresult


async def run_own(connection: AnyConnection, name: str, schema: str, parameters: Parameters) -> Result:
    """Run a statement by its name on a connection of the client's, in autocommit, that nobody else uses meanwhile.

    From the second run on a connection, the statement is prepared and sent without the driver's cursors, which would
    take as long as the server does. Results come in binary format.
    """
    if isinstance(connection, Carrier):
        return await connection.run(name, schema, parameters, binary=True)
    key, text = _prepared_as(name, schema)
    states = _STATES.get(connection)
    if states is None:
        states = _STATES[connection] = {}
    state = states.get(key, _State.NEW)
    if connection.pgconn.pipeline_status:
        return await run(connection, name, schema, parameters, binary=True)
    if state is not _State.PREPARED and (
        state is _State.PLAIN or not may_prepare(connection) or not is_read_committed(connection)
    ):
        return await run(connection, name, schema, parameters, binary=True)
    if state is _State.NEW:
        states[key] = _State.SEEN
        return await run(connection, name, schema, parameters, binary=True)
    pgconn = connection.pgconn
    try:
        if state is _State.SEEN:
            with suppress(psycopg.errors.DuplicatePreparedStatement):  # its name is a hash of its text: it is the same
                await _sent(connection, lambda: pgconn.send_prepare(key, text))
            states[key] = _State.PREPARED
        values = [value.encode() if isinstance(value, str) else value for value in parameters]
        return await _sent(connection, lambda: pgconn.send_query_prepared(key, values, result_format=1))
    except _UNPREPARED:
        # Nothing was done: a pooler or a DISCARD dropped the prepared statement, or a table was altered. From now on,
        # run it unprepared.
        states[key] = _State.PLAIN
        return await run(connection, name, schema, parameters, binary=True)


def in_transaction(connection: AnyConnection) -> AbstractAsyncContextManager[object]:
    """Begin a transaction for a block; without autocommit, the block is part of the one that the caller commits."""
    return connection.transaction() if connection.autocommit else nullcontext()


async def repeated(call: Callable[[], Awaitable[T]]) -> T:
    """Return what a call gives; repeat the call if the server undid it because of other calls, as in a deadlock.

    Args:
        call: runs a statement that is a transaction of its own, or statements within a savepoint, so that nothing is
            left of them when they are undone.
    """
    for _ in range(_TRIES - 1):
        try:
            return await call()
        except Exception as error:
            if sqlstate_of(error) not in PASSING:
                raise
    return await call()


class passed_over:  # noqa: N801 - used as a function, as `suppress` is
    """Leave a block quietly at an error of any driver for which the server has one of these codes."""

    def __init__(self, states: frozenset[str]) -> None:
        self._states = states

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        """Tell whether the error is passed over."""
        return isinstance(error, Exception) and sqlstate_of(error) in self._states


async def with_key_lock(
    connection: AnyConnection, schema: str, call: Callable[[], Awaitable[T]], *, lock: str = "share_keys"
) -> T:
    """Run a statement that holds many jobs at once, without blocking other holders of jobs for long.

    At first the statement waits only briefly for jobs that others hold. If that is not enough, it is undone and
    releases all rows. The function then waits, without holding any row, for the calls that write keys in several
    statements, and runs the statement again under a lock that keeps such calls away until it is done.

    Args:
        connection: a connection that is not in a transaction, or in one that holds nothing yet that others may wait
            for.
        schema: the queue's schema.
        call: runs the statement on that connection.
        lock: the statement that keeps others away: "share_keys" or "lock_keys".
    """
    with passed_over(BRIEFLY):
        async with connection.transaction():
            before = first(await run(connection, "be_brief", schema)).text("before")
            result = await call()
            await run(connection, "be_patient", schema, (before,))
            return result

    async def kept_away() -> T:
        async with connection.transaction():
            await run(connection, lock, schema)
            return await call()

    return await repeated(kept_away)


def array_of_int8(result: Result) -> list[int]:
    """Read the only value of a binary result, which is an array of bigints without nulls."""
    raw = result.get_value(0, 0) or b""
    return [value for _, value in _INT8.iter_unpack(raw[_ARRAY_HEADER:])]


def cancellations() -> int:
    """Return how many times cancellation of the current task was requested; 0 where no event loop runs."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0
    return 0 if task is None else task.cancelling()


def surely_undone(error: BaseException) -> bool:
    """Tell whether an error means that the server did nothing of what it was asked, so that it may be asked again.

    A FATAL error instead of an answer, such as at an administrator's shutdown, comes before a commit and never after
    it. A connection that is merely lost does not show what was done.
    """
    said = error if isinstance(error, psycopg.Error) else error.__cause__
    return isinstance(said, _UNDONE)


def translated(
    error: psycopg.Error, connection: AnyConnection | None, *, where: str, schema: str, writing: bool = True
) -> Exception:
    """Return the error that a caller should see for a driver's error on a connection of the client's own.

    A lost connection and a missing schema become errors of this library; any other error (a deadlock, missing rights)
    is returned unchanged.

    Args:
        error: the driver's error.
        connection: the connection on which the error occurred; None if there was none.
        where: the server's address, without secrets.
        schema: the queue's schema.
        writing: whether something may have been committed; if not, nothing was, whatever the last error of the server.
    """
    stripped(error)
    reason = said(error)
    if isinstance(error, psycopg.OperationalError) and (connection is None or connection.closed):
        if connection is None or not writing or surely_undone(error):
            return DatabaseConnectionError(f"no connection to PostgreSQL at {where}: {reason}; nothing was written")
        return CommitUnknownError(
            f"the connection to PostgreSQL at {where} was lost: {reason}; what was being written then may or may not be"
            " there, and nothing else is. A job_key makes it harmless to enqueue again"
        )
    if isinstance(error, _MISSING):
        return SchemaMissingError(
            f"schema {schema!r} at {where} lacks what the queue needs ({reason}): `backfill migrate` makes it"
        )
    return error


@cache
def _prepared_as(name: str, schema: str) -> tuple[bytes, bytes]:
    """Return the name under which a statement is prepared, which is unique to its text, and the text."""
    text = render(name, schema).encode()
    return b"backfill_" + sha256(text).hexdigest()[:32].encode(), text


async def _sent(connection: Connection, send: Callable[[], None]) -> PGresult:
    send()
    return checked(connection, await connection.wait(answer(connection.pgconn)))


def checked(connection: Connection, result: PGresult) -> PGresult:
    """Return a result, or raise the driver's own error if the server refused the statement."""
    if result.status == ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result, connection.info.encoding)
    return result


def answer(pgconn: PGconn) -> PQGen[PGresult]:
    """Read the only result of what was sent; it is flushed before the wait, so that the event loop turns only once."""
    yield from flushed(pgconn)
    only: PGresult | None = None
    while True:
        try:
            while pgconn.is_busy():
                if (yield Wait.R):
                    pgconn.consume_input()
        except psycopg.OperationalError:
            if only is None or only.status != ExecStatus.FATAL_ERROR:
                raise
            break  # the server's last error says more than that the connection is lost
        result = pgconn.get_result()
        if result is None:
            break
        only = result
        if result.status == ExecStatus.COPY_IN:  # libpq returns this status each time it is asked
            break
    if only is None:
        raise psycopg.OperationalError("the connection is lost")
    return only


def flushed(pgconn: PGconn) -> PQGen[None]:
    """Pass what libpq holds to the socket, and read meanwhile: a server that cannot send stops receiving."""
    while pgconn.flush():
        # `ready` is empty (None, or 0) if the driver only resumes the generator, after a cancellation or now and then.
        ready = yield Wait.RW
        if ready and ready & Ready.R:
            pgconn.consume_input()
