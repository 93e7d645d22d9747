"""One way to run a statement on any connection, whatever its row factory, cursor, adapters or mode, and to read what came.

Used by the client's verbs. Results are taken from libpq as they are, so that a row which Python cannot hold, or a
loader that a caller registered, can do no harm.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from enum import Enum, auto
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import ExecStatus
from psycopg.rows import tuple_row
from psycopg.waiting import Ready, Wait

from backfill.client.prepare import Parameters
from backfill.errors import BackfillError, CommitUnknownError, DatabaseConnectionError, SchemaMissingError
from backfill.said import said, stripped
from backfill.storage.isolation import by_itself, is_read_committed
from backfill.storage.pooler import may_prepare
from backfill.storage.results import first
from backfill.storage.statements import render
from backfill.storage.types import Connection

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

T = TypeVar("T")

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


class _EncodedText(Dumper):
    """Hands text that is encoded already to the server, which finds its type as that of any text."""

    def dump(self, obj: bytes) -> bytes:
        """The bytes themselves."""
        return obj


class _State(Enum):
    """How often a connection has run a statement."""

    NEW = auto()
    SEEN = auto()
    PREPARED = auto()
    PLAIN = auto()


_STATES: Final[WeakKeyDictionary[Connection, dict[bytes, _State]]] = WeakKeyDictionary()


async def run(
    connection: Connection,
    name: str,
    schema: str,
    parameters: Parameters = (),
    *,
    binary: bool = False,
    prepared: bool = True,
) -> PGresult:
    """Run a statement by name and give back libpq's result, in text unless `binary` is asked for.

    Args:
        connection: any.
        name: the statement's.
        schema: the queue's.
        parameters: the statement's.
        binary: whether the result's values are binary.
        prepared: whether the driver may prepare it, so that one plan serves many calls. It must not where tables grow
            from nothing between these calls.
    """
    cursor = psycopg.AsyncRawCursor(connection, row_factory=tuple_row)
    if any(isinstance(value, bytes) for value in parameters):
        cursor.adapters.register_dumper(bytes, _EncodedText)
    prepare = None if prepared and may_prepare(connection) else False
    if connection.pgconn.pipeline_status:
        async with connection.pipeline():  # left again at once, which waits for the result
            await cursor.execute(render(name, schema), parameters, prepare=prepare, binary=binary)
    else:
        async with by_itself(connection):
            await cursor.execute(render(name, schema), parameters, prepare=prepare, binary=binary)
    if cursor.pgresult is None:
        raise BackfillError(f"statement {name!r}: the driver gave no result")
    return cursor.pgresult


async def run_own(connection: Connection, name: str, schema: str, parameters: Parameters) -> PGresult:
    """Run a statement by name on a connection of the client's, which is in autocommit and which nobody else uses meanwhile.

    From its second time on a connection it is prepared, and sent past the driver's cursors, which would take as long as
    the server does. Results are binary.
    """
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
            with suppress(psycopg.errors.DuplicatePreparedStatement):  # its name is its text's, so it is the same
                await _sent(connection, lambda: pgconn.send_prepare(key, text))
            states[key] = _State.PREPARED
        values = [value.encode() if isinstance(value, str) else value for value in parameters]
        return await _sent(connection, lambda: pgconn.send_query_prepared(key, values, result_format=1))
    except _UNPREPARED:
        # Nothing was done. A pooler or a DISCARD took it away, or a table was altered: from now on without.
        states[key] = _State.PLAIN
        return await run(connection, name, schema, parameters, binary=True)


def in_transaction(connection: Connection) -> AbstractAsyncContextManager[object]:
    """One transaction for what follows: the caller's where its connection begins them by itself, which commits it."""
    return connection.transaction() if connection.autocommit else nullcontext()


async def repeated(
    call: Callable[[], Awaitable[T]],
    passing: tuple[type[psycopg.Error], ...] = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure),
) -> T:
    """What a call gives; again where the server undid it since it came into others' way, as in a ring of waiting.

    Args:
        call: a statement that is a transaction of its own, or statements within a savepoint: undone, nothing is left of
            it.
        passing: the errors after which it is repeated.
    """
    for _ in range(_TRIES - 1):
        with suppress(*passing):
            return await call()
    return await call()


async def with_key_lock(
    connection: Connection, schema: str, call: Callable[[], Awaitable[T]], *, lock: str = "share_keys"
) -> T:
    """What a statement gives that holds many jobs at once, without keeping who holds one of them from another for long.

    It waits briefly at first. If that is not enough, it lets go of all rows. Then it waits, without holding any, for
    those who write keys in several statements, and keeps them away until it is done.

    Args:
        connection: not in a transaction, or in one that holds nothing yet that others may wait for.
        schema: the queue's.
        call: runs the statement on that connection.
        lock: how others are kept away: "share_keys" or "lock_keys".
    """
    with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
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


def array_of_int8(result: PGresult) -> list[int]:
    """The array of bigints, without nulls, that a binary result's only value is."""
    raw = result.get_value(0, 0) or b""
    return [value for _, value in _INT8.iter_unpack(raw[_ARRAY_HEADER:])]


def cancellations() -> int:
    """How often the current task was asked to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def surely_undone(error: BaseException) -> bool:
    """Whether an error says that the server did nothing of what it was asked, so that it may be asked again.

    A FATAL word in the place of an answer, as of an administrator's shutdown, comes before a commit and never after it;
    a connection that is merely gone says nothing.
    """
    said = error if isinstance(error, psycopg.Error) else error.__cause__
    return isinstance(said, _UNDONE)


def translated(
    error: psycopg.Error, connection: Connection | None, *, where: str, schema: str, writing: bool = True
) -> Exception:
    """What a caller should see of a driver's error on a connection of the client's own.

    A lost connection and a missing schema have names of ours; any other error (a deadlock, a lack of rights) is itself.

    Args:
        error: the driver's.
        connection: on which it came; None where there was none.
        where: the server, without secrets.
        schema: the queue's.
        writing: whether something may have been committed; else nothing was, whatever the server said last.
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
    """The name under which a statement is prepared, which no other text has, and its text."""
    text = render(name, schema).encode()
    return b"backfill_" + sha256(text).hexdigest()[:32].encode(), text


async def _sent(connection: Connection, send: Callable[[], None]) -> PGresult:
    send()
    return checked(connection, await connection.wait(answer(connection.pgconn)))


def checked(connection: Connection, result: PGresult) -> PGresult:
    """A result, or the driver's own error for what the server refused."""
    if result.status == ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result, connection.info.encoding)
    return result


def answer(pgconn: PGconn) -> PQGen[PGresult]:
    """The only result of what was sent; flushed before anybody waits, so that the loop turns once."""
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
            break  # its last word, which says more than that it is gone
        result = pgconn.get_result()
        if result is None:
            break
        only = result
        if result.status == ExecStatus.COPY_IN:  # which it says as often as it is asked
            break
    if only is None:
        raise psycopg.OperationalError("the connection is lost")
    return only


def flushed(pgconn: PGconn) -> PQGen[None]:
    """Hand what libpq holds to the socket, and read meanwhile: a server that is not rid of its words takes no more."""
    while pgconn.flush():
        # Nothing is ready (None, or 0) where the driver only looks in, after a cancellation or every now and then.
        ready = yield Wait.RW
        if ready and ready & Ready.R:
            pgconn.consume_input()
