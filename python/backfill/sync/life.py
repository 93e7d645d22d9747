"""The life of a synchronous client: how it opens and closes, in each process, and how each verb gets a connection.

Its verbs are those of `BackfillClient`; what differs is here. All state that belongs to a process (the pool, the lock
that one thread at a time opens the client with) is kept by process. A forked child thus finds nothing of its parent's,
not even a lock that a thread of the parent held during the fork.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import psycopg
import psycopg_pool

from backfill.client import BackfillClient
from backfill.client.bulk.items import Encoder, Reader
from backfill.client.carrier import AnyConnection, lent
from backfill.client.connect import AGAIN_SECONDS
from backfill.client.ends.watch import DEAF_POLL_SECONDS
from backfill.client.execute import translated
from backfill.client.manner import in_utf8
from backfill.client.verbs.ends import find_ends
from backfill.ends import JobEnd
from backfill.errors import (
    BackfillError,
    ClientClosedError,
    DatabaseConnectionError,
    ResultTimeoutError,
)
from backfill.hooks import Plugin
from backfill.said import stripping
from backfill.storage.statements import DEFAULT_SCHEMA
from backfill.storage.types import Dsn
from backfill.sync.base import rest
from backfill.sync.carrier import PsycopgCarrier
from backfill.sync.opening import checked_pool, in_our_manner, start
from backfill.sync.reading import AskedInLoop, reader_of
from backfill.sync.session import SyncSession
from backfill.sync.types import SyncConnection, SyncPool

T = TypeVar("T")

_FIRST_LOOK_SECONDS: Final = 0.01
_LEAST_SECONDS: Final = 1.0
_PATIENCE: Final[ContextVar[float | None]] = ContextVar("backfill_sync_patience", default=None)
"""Seconds for which a call waits for a connection; None for the pool's own timeout."""

_forks = 0
"""How many forks lie between this process and the one that imported this module first."""


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


@dataclass(slots=True, eq=False)
class _Here:
    """The client's state in one process.

    Attributes:
        lock: held by the thread that opens or closes the client.
        session: the open client; None if it is not open.
        inside: how many `with` blocks are being run.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    session: SyncSession | None = None
    inside: int = 0


_OPENING: Final[ContextVar[tuple[_Here, ...]]] = ContextVar("backfill_sync_opening", default=())
"""The clients that this thread is opening or closing; the thread in which a dsn's coroutine runs for it knows them."""


class SyncVerbs(BackfillClient):
    """The asynchronous client's verbs on synchronous connections: none of them waits for an event loop.

    Any number of threads may run its verbs at once.
    """

    def __init__(
        self,
        dsn: Dsn | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        pool: SyncPool | None = None,
        migrate: bool = False,
        min_size: int = 1,
        max_size: int = 10,
        plugins: Iterable[Plugin] = (),
    ) -> None:
        self._lent_pool = checked_pool(pool, dsn)
        super().__init__(dsn, schema=schema, migrate=migrate, min_size=min_size, max_size=max_size, plugins=plugins)
        if self._scheduling is not None:
            self._scheduling = AskedInLoop(self._scheduling)
        self._by_process: dict[tuple[int, int], _Here] = {}
        self._pool_is_of: int | None = os.getpid() if pool is not None and not pool.closed else None

    @property
    def here(self) -> _Here:
        """The state in this process. `setdefault` is atomic, so that threads need no lock, which a fork could copy."""
        key = os.getpid(), _forks
        return self._by_process.get(key) or self._by_process.setdefault(key, _Here())

    @property
    def sync_pool(self) -> SyncPool:
        """The pool that was given to the client, or its own, which is there while it is open.

        Raises:
            ClientClosedError: the client makes its own pool when it opens, and it is not open.
        """
        if self._lent_pool is not None:
            return self._lent_pool
        session = self.here.session
        if session is None:
            raise ClientClosedError(
                "this client has a pool of its own while it is open, and it is not open: "
                "use it by `with client`, or call `client.open()` before"
            )
        return session.pool

    def opened(self, *, reopen: bool, enter: bool = False) -> SyncSession:
        """Open the client in this process if it is not open, and return its session."""
        here = self.here
        with self._alone(here):
            if here.session is None:
                if not reopen:
                    self._refuse_closed()
                self._refuse_foreign_pool()
                here.session = start(self._settings, self._lent_pool)
                self._closed = False
            here.inside += enter
            return here.session

    def left(self) -> None:
        """Close the client, if no `with` block of it is being run any more."""
        here = self.here
        with self._alone(here):
            here.inside = max(here.inside - 1, 0)
            if not here.inside:
                self._close(here)

    def closed_here(self) -> None:
        """Close the client in this process."""
        here = self.here
        with self._alone(here):
            self._close(here)

    def _close(self, here: _Here) -> None:
        session, here.session, self._closed = here.session, None, True
        if session is not None:
            session.close()

    @contextmanager
    def _alone(self, here: _Here) -> Iterator[None]:
        """Be the only thread that opens or closes the client during a block."""
        if here in _OPENING.get():
            raise BackfillError(
                "the dsn's callable uses the client that it gives a connection string for: use another one"
            )
        with here.lock:
            before = _OPENING.set((*_OPENING.get(), here))
            try:
                yield
            finally:
                _OPENING.reset(before)

    def _refuse_foreign_pool(self) -> None:
        """Refuse a pool that another process opened: its threads are not in this one, and its sockets are shared."""
        if self._lent_pool is None:
            return
        if self._pool_is_of is None:
            self._pool_is_of = os.getpid()
        if self._pool_is_of != os.getpid():
            raise BackfillError(
                "pool: another process opened it, and this one is forked from that: open a pool here, or make the "
                "client with a dsn, and it makes a pool for each process"
            )

    @asynccontextmanager
    async def _own_connection(self, *, apart: bool = False) -> AsyncIterator[Any]:
        """Give one of the client's connections in a carrier, in autocommit and UTF-8.

        Args:
            apart: whether the caller's code runs meanwhile, which may need another connection of the client's.
        """
        session = self.here.session or self.opened(reopen=False)
        connection: SyncConnection | None = None
        own: PsycopgCarrier | None = None
        try:
            connection = session.take(apart=apart, seconds=_PATIENCE.get())
            own = PsycopgCarrier(connection)
            if session.owned:
                yield own
            else:
                with in_our_manner(connection):
                    async with in_utf8(own, connection.pgconn):
                        yield own
        except psycopg_pool.PoolClosed as error:
            raise ClientClosedError(f"this client's pool is closed: {error}") from error
        except psycopg.Error as error:
            session.hang_up_standby(connection, error)
            seen = translated(error, own, where=session.where, schema=self._schema)
            if seen is error:
                raise
            raise seen from error
        finally:
            if connection is not None:
                session.give_back(connection)

    @asynccontextmanager
    async def _lent(self, given: Any) -> AsyncIterator[AnyConnection]:
        """Use what the caller lends for a block, and remove from its errors the rows that they quote."""
        self._refuse_closed()
        with stripping():
            if isinstance(given, psycopg_pool.ConnectionPool):
                with given.connection() as connection, in_our_manner(connection):
                    own = PsycopgCarrier(connection)
                    async with in_utf8(own, connection.pgconn):
                        with connection.transaction():
                            yield own
            elif isinstance(given, psycopg.Connection):
                own = PsycopgCarrier(given)
                async with in_utf8(own, given.pgconn):
                    yield own
            else:
                async with lent(given, sync=True) as theirs:
                    yield theirs

    def _reader(self, items: Any, encoder: Encoder, skipped: list[int] | None) -> Reader:
        """Make what reads the items of one call."""
        return reader_of(items, encoder, self._scheduling, skipped)

    async def _awaited(self, number: int, seconds: float | None) -> JobEnd | None:
        """Look for the end of a job again and again, less and less often; None if the job is gone without one.

        Raises:
            ResultTimeoutError: there was no end in time.
        """
        until = math.inf if seconds is None else time.monotonic() + seconds
        if self.here.session is None:
            self.opened(reopen=False)
        pause = _FIRST_LOOK_SECONDS
        while True:
            left = until - time.monotonic()
            with _patient(max(left, _LEAST_SECONDS)), suppress(DatabaseConnectionError, psycopg.OperationalError):
                [job] = await self._run(find_ends([number]))
                if job.end is not None or not job.waits:
                    return job.end
            left = until - time.monotonic()
            if left <= 0:
                raise ResultTimeoutError(f"job {number}: no end within {seconds:g} s; it may still run")
            rest(min(pause, left))
            pause = min(pause * 1.5, DEAF_POLL_SECONDS)

    async def _beside(self) -> None:
        """Make no connection for new names: jobs with such names wait until the stream is at its end."""

    async def _rest(self, seconds: float) -> None:
        """Make the caller's thread wait before a call is repeated."""
        rest(seconds)


@contextmanager
def _patient(seconds: float) -> Iterator[None]:
    """Wait for a connection no longer than so many seconds, and no longer than the pool's own timeout."""
    before = _PATIENCE.set(min(seconds, AGAIN_SECONDS))
    try:
        yield
    finally:
        _PATIENCE.reset(before)
