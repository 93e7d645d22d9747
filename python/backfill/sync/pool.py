"""The pool of a synchronous client's connections, which outlives an outage of any length and belongs to one process.

It is psycopg's pool, whose threads make its connections. As the asynchronous client's pool does, it goes on trying to
connect until there is a connection, and logs an outage once. A forked child has none of the pool's threads, and must
not use its sockets: there the pool is left as it is, and the client makes another one.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import Any, Final
from weakref import WeakSet

import psycopg
import psycopg_pool
from psycopg_pool import PoolClosed, PoolTimeout

from backfill.errors import ConfigurationError
from backfill.storage.backoff import Backoff
from backfill.storage.outage import Outage
from backfill.storage.types import Dsn
from backfill.sync.connecting import OwnConnection, connect
from backfill.sync.types import SyncConnection

logger = logging.getLogger(__name__)

_OPEN: Final[WeakSet[PatientSyncPool]] = WeakSet()
_EXIT_SECONDS: Final = 1.0


class PatientSyncPool(psycopg_pool.ConnectionPool[SyncConnection]):
    """A pool of connections like those that `connect` makes; a new pool is not open yet.

    Args:
        dsn: a connection string, or a callable that is asked for one at each new connection.
        min_size: how many connections the pool keeps open when they are not used.
        max_size: how many connections it has at most.
    """

    def __init__(self, dsn: Dsn, *, min_size: int, max_size: int) -> None:
        self._dsn = dsn
        self._made_in = os.getpid()
        self._outage = Outage(logger)
        self._ending = threading.Event()
        pool = self

        class Lasting(psycopg.Connection[Any]):
            """A connection that `PatientSyncPool.lasting` makes; the arguments of its `connect` are ignored."""

            @classmethod
            def connect(cls, *_: Any, **__: Any) -> SyncConnection:  # type: ignore[override]
                return pool.lasting()

        super().__init__(
            "", connection_class=Lasting, min_size=min_size, max_size=max_size, open=False, name="backfill"
        )
        _OPEN.add(self)

    def __del__(self) -> None:
        """End the pool's threads, in the process that has them."""
        if self._made_in == os.getpid():
            super().__del__()

    def lasting(self, seconds: float | None = None) -> SyncConnection:
        """Make a new connection, however long it takes.

        Args:
            seconds: after how many seconds to give up; None for never.

        Raises:
            PoolTimeout: there was no connection in time; the message says why.
            PoolClosed: the pool was closed meanwhile.
            ConfigurationError: the connection string cannot be read.
        """
        backoff, waited = Backoff(), 0.0
        while not self._ending.is_set():
            try:
                connection = connect(self._dsn)
            except ConfigurationError:
                raise
            except Exception as error:
                self._outage.failed(error)
                pause = backoff.pause()
                waited += pause
                if seconds is not None and waited > seconds:
                    raise self._outage.not_made(seconds) from error
                self._ending.wait(pause)
            else:
                self._outage.connected()
                return connection
        raise PoolClosed("the pool was closed")

    def getconn(self, timeout: float | None = None) -> SyncConnection:
        """Lend a connection.

        Raises:
            PoolTimeout: there was no connection in time; the message says why.
        """
        try:
            return super().getconn(timeout)
        except PoolTimeout as error:
            raise self._outage.not_lent(error, self.max_size) from error

    def putconn(self, conn: SyncConnection) -> None:
        """Take a connection back; a forked child that leaves a block of its parent's does nothing."""
        if self.is_here:
            super().putconn(conn)

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool without waiting for pauses between attempts to connect."""
        self._ending.set()
        super().close(timeout)

    @property
    def is_here(self) -> bool:
        """Whether this process made the pool, so that it may be used here."""
        return self._made_in == os.getpid()


class _Quiet(logging.Filter):
    """Keeps two kinds of records out of psycopg's pool log, as the asynchronous client does.

    They are about an attempt to connect that a closing pool ended, and about single broken connections of ours.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be logged."""
        given = record.args if isinstance(record.args, tuple) else ()
        return not any(isinstance(one, (PoolClosed, OwnConnection)) for one in given)


def _close_all() -> None:
    """Close the pools that are open when the program ends, so that no thread of theirs is left."""
    for pool in list(_OPEN):
        if pool.is_here and not pool.closed:
            pool.close(_EXIT_SECONDS)


logging.getLogger("psycopg.pool").addFilter(_Quiet())
atexit.register(_close_all)
