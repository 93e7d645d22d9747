"""Synchronous connections of the client's own, made like the asynchronous ones of `storage.connection`.

Used by the pool, and where a client opens.
"""

from __future__ import annotations

import inspect
import os
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg import IsolationLevel
from psycopg.rows import dict_row

from backfill.errors import BackfillError
from backfill.storage.connection import answered, complete, resolve, unreachable
from backfill.storage.isolation import READ_COMMITTED
from backfill.storage.pasted import is_function, pasted
from backfill.storage.pooler import Way, found_of, without_option
from backfill.storage.statements import render
from backfill.storage.types import Dsn
from backfill.sync.base import in_a_loop
from backfill.sync.types import SyncConnection


class Known(NamedTuple):
    """What was found out about a connection.

    Attributes:
        way: how it reaches the server.
        committed: whether statements that are transactions of their own run at `read committed`.
    """

    way: Way = Way.DIRECT
    committed: bool = True


_KNOWN: Final[WeakKeyDictionary[SyncConnection, Known]] = WeakKeyDictionary()
_UNKNOWN: Final = Known()


class OwnConnection(psycopg.Connection[Any]):
    """A connection of the client's own, which belongs to the process that made it.

    A forked child inherits the socket of its parent's connection. The child never uses it, and says nothing on it when
    the object is collected there.
    """

    _made_in = 0

    @property
    def is_inherited(self) -> bool:
        """Whether another process made the connection, and still uses its socket."""
        return self._made_in not in (0, os.getpid())

    def wait(self, *given: Any, **how: Any) -> Any:
        """Send and receive as the driver does; everything that it does on the connection goes through this method.

        Raises:
            BackfillError: another process made the connection.
        """
        if self.is_inherited:
            raise BackfillError(
                "this process was forked within a call or a block of its parent's, and would use its parent's "
                "connection: let the child do its own work only, and end it by os._exit()"
            )
        return super().wait(*given, **how)

    def close(self) -> None:
        """Close the connection in the process that made it; in another one, that would end the session of the first."""
        if not self.is_inherited:
            super().close()

    def __del__(self, *given: Any) -> None:
        """Warn of a connection that was not closed, but only in the process that made it."""
        if self._made_in == os.getpid():
            super().__del__(*given)


def connect(dsn: Dsn, *, application_name: str = "backfill") -> SyncConnection:
    """Open a connection in autocommit, with keepalives, whose cursors take `$1` placeholders.

    Raises:
        DatabaseConnectionError: the server cannot be reached or refuses us; the message names the server, but not the
            password.
        ConfigurationError: the connection string cannot be read.
    """
    given = resolved(dsn)
    conninfo = complete(given, application_name=application_name)
    try:
        connection = OwnConnection.connect(conninfo, autocommit=True, cursor_factory=psycopg.RawCursor)
        connection._made_in = os.getpid()  # noqa: SLF001 - our own class
        try:
            find_out(connection, wanted=without_option(given)[1], own=True)
        except BaseException:
            with suppress(psycopg.Error, OSError):
                connection.close()
            raise
    except psycopg.OperationalError as error:
        raise unreachable(conninfo, error) from error
    return connection


def resolved(dsn: Dsn) -> str:
    """Return the connection string that a DSN stands for; a callable that is async runs in an event loop of its own.

    Raises:
        ConfigurationError: the DSN, or what the callable gave, is no connection string.
        DatabaseConnectionError: an asynchronous callable gave no connection string in time.
    """
    if not is_function(dsn):
        return pasted("dsn", dsn)
    given = dsn()
    if not inspect.isawaitable(given):
        return answered(given)
    return in_a_loop(partial(resolve, lambda: given))


def find_out(connection: SyncConnection, *, wanted: bool = False, own: bool = False) -> Known:
    """Find out whether a connection goes through a pooler, and at which level its statements run.

    The server is asked only the first time, in one round trip.

    Args:
        connection: a connection with nothing under way on it.
        wanted: whether its DSN asks for prepared statements even behind a pooler.
        own: whether the connection is the client's own: then its session is set up too.

    Raises:
        psycopg.Error: the server could not be asked.
        ConfigurationError: a setting of its session makes it unusable, and the session is not ours to change.
    """
    known = _KNOWN.get(connection)
    if known is not None:
        return known
    cursor = psycopg.RawCursor(connection, row_factory=dict_row)
    cursor.execute(render("backend_pid"), [connection.info.backend_pid if own else None], prepare=False)
    found = found_of(cursor.fetchone(), connection.info, wanted=wanted, own=own)
    direct, committed = found.way is Way.DIRECT, found.level == READ_COMMITTED
    if own and not direct:
        connection.isolation_level = IsolationLevel.READ_COMMITTED
    elif own and not committed:
        psycopg.RawCursor(connection).execute(render("set_isolation"), prepare=False)
        committed = True
    if found.sets_nulls:
        psycopg.RawCursor(connection).execute(render("set_array_nulls"), prepare=False)
    if found.way is Way.POOLED and own:
        connection.prepare_threshold = None
    known = _KNOWN[connection] = Known(found.way, committed)
    return known


def known_of(connection: SyncConnection) -> Known:
    """Return what was found out about a connection, without asking the server."""
    return _KNOWN.get(connection, _UNKNOWN)
