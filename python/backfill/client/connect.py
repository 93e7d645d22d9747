"""The life of a client: how it opens, checks the schema and closes, and how each verb gets a connection.

This is the base of the client's verbs. It does not use the network before a verb, `open()` or `async with` does.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import psycopg
import psycopg_pool

from backfill.client.asking import carry_out, follow
from backfill.client.carrier import AnyConnection, Carrier, lent
from backfill.client.execute import cancellations, surely_undone, translated
from backfill.client.gathering.adding import Adding
from backfill.client.manner import in_utf8, speak_again, speak_utf8
from backfill.client.opening import Opening
from backfill.client.scheduling import Scheduling
from backfill.client.session import Session
from backfill.client.starting import Settings, start
from backfill.client.verbs.asked import Asked
from backfill.errors import (
    BackfillError,
    ClientClosedError,
    CommitUnknownError,
    DatabaseConnectionError,
)
from backfill.hooks import Plugin, checked_plugins, composed
from backfill.said import stripping
from backfill.storage.backoff import Backoff
from backfill.storage.isolation import read_committed
from backfill.storage.pool import PatientPool
from backfill.storage.pooler import look_for_pooler
from backfill.storage.statements import DEFAULT_SCHEMA
from backfill.storage.types import Connection, Dsn, Pool

MOST_CONNECTIONS: Final = 10
AGAIN_SECONDS: Final = 30.0
"""Seconds for which a call of which nothing was done is repeated: as long as it may wait for a connection."""
_BESIDE_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.02
T = TypeVar("T")


@dataclass(slots=True)
class _Turn:
    """The state by which calls on one event loop of one process take turns to open and close the client.

    Attributes:
        lock: held by the call that opens or closes the client.
        inside: how many `async with` blocks are being run.
        opener: the task that opens the client.
    """

    loop: asyncio.AbstractEventLoop
    pid: int
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    inside: int = 0
    opener: asyncio.Task[Any] | None = None


class ClientLife:
    """What all verbs share: the pool, the schema, and the client's state."""

    _patience = 0.0
    """Seconds for which a call waits for a connection in use, before another one is made."""
    _max_idle = 600.0
    """Seconds after which an unused connection is closed, unless it is one of the `min_size` that are kept."""

    def __init__(
        self,
        dsn: Dsn | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        pool: psycopg_pool.AsyncConnectionPool[Any] | None = None,
        migrate: bool = False,
        min_size: int = 1,
        max_size: int = MOST_CONNECTIONS,
        plugins: Iterable[Plugin] = (),
        gather: bool = True,
        notify_every: timedelta | None = None,
    ) -> None:
        self._settings = Settings.checked(
            dsn, schema=schema, pool=pool, migrate=migrate, min_size=min_size, max_size=max_size
        )
        hooks = composed(checked_plugins(plugins))
        self._scheduling, self._tracer = Scheduling.of(hooks), hooks.tracer
        self._dsn = self._settings.dsn
        self._schema = schema
        self._given_pool = pool
        self._session: Session | None = None
        self._closed = False
        self._turn: _Turn | None = None
        self._known: tuple[set[str], set[str]] = set(), set()
        self._adding = Adding(self, gather=gather, notify_every=notify_every)

    @classmethod
    def connect(
        cls,
        dsn: Dsn | None = None,
        *,
        schema: str = DEFAULT_SCHEMA,
        pool: psycopg_pool.AsyncConnectionPool[Any] | None = None,
        migrate: bool = False,
        min_size: int = 1,
        max_size: int = MOST_CONNECTIONS,
        plugins: Iterable[Plugin] = (),
        gather: bool = True,
        notify_every: timedelta | None = None,
    ) -> Opening[Self]:
        """Make a client with the same arguments as the class, and open it.

        The return value can be awaited, as in `client = await BackfillClient.connect(dsn)`, or entered, as in
        `async with BackfillClient.connect(dsn) as client`, which also closes the client at the block's end.

        Raises:
            DatabaseConnectionError: the server cannot be reached, or refuses the connection.
            ReadOnlyDatabaseError: the only server of the DSN takes no writes.
            SchemaMissingError: the schema does not exist, and `migrate` is not set.
            SchemaVersionError: the schema is too new or too old.
            ConfigurationError: an argument cannot be used, or neither `dsn` nor DATABASE_URL is set.
        """
        client = cls(
            dsn, schema=schema, pool=pool, migrate=migrate, min_size=min_size, max_size=max_size, plugins=plugins,
            gather=gather, notify_every=notify_every,
        )  # fmt: skip
        return Opening(client._opened_self(), client.__aenter__, client.__aexit__)

    async def _opened_self(self) -> Self:
        await self.open()
        return self

    @property
    def schema(self) -> str:
        """The schema whose queue this client works with."""
        return self._schema

    @property
    def pool(self) -> Pool:
        """The psycopg pool of this client: the one that it was given, or its own, which is there while it is open.

        It is for statements of yours on the same connections: `async with client.pool.connection() as connection`. The
        connections of the client's own pool are in autocommit, so a transaction is a block `async with
        connection.transaction()`; they write parameters as `$1`, and speak UTF-8. Leave these settings as they are. The
        client closes its own pool; do not close it yourself.

        While you hold a connection of it, calls of the client need another one. With `max_size=1` there is none, and
        such a call fails after half a minute; give it `connection=` then.

        In a handler `ctx.client.pool` has the connections that all handlers of the worker share. The worker opens that
        client at its first use, so `await ctx.client.open()` before.

        Raises:
            ClientClosedError: the client makes its own pool when it opens, and it is not open.
        """
        if self._given_pool is not None:
            return self._given_pool
        session = self._session
        if session is None or session.pid != os.getpid():
            raise ClientClosedError(
                "this client has a pool of its own while it is open, and it is not open: "
                "use it by `async with client`, or call `await client.open()` before"
            )
        return session.pool

    @property
    def is_open(self) -> bool:
        """Whether the client is connected; a client that was never used is not, and opens itself at its first use."""
        return self._session is not None

    async def open(self) -> None:
        """Connect and check the schema; do nothing if the client is open already; open a closed client again.

        The first verb does this by itself, so a call is only useful to find errors early.

        Raises:
            DatabaseConnectionError: the server cannot be reached, or refuses the connection.
            ReadOnlyDatabaseError: the only server of the DSN takes no writes.
            SchemaMissingError: the schema does not exist, and `migrate` is not set.
            SchemaVersionError: the schema is too new or too old.
            ConfigurationError: neither a DSN nor DATABASE_URL is set, or the connection string cannot be read.
        """
        await self._opened(reopen=True)

    async def close(self) -> None:
        """Close the client and its own pool; a pool that was given to the client stays open.

        Calls of `enqueue` that wait to be written together are written first, if that takes at most 5 s; those that
        still wait then raise `ClientClosedError`. Calls under way keep their connections and finish; later calls raise
        `ClientClosedError` until `open()` is called. This closes the client for all its users, including those within
        `async with`. It does no harm if the client is closed already.
        """
        turn = self._turn_here()
        try:
            await self._adding.finish()
        finally:
            async with turn.lock:
                await self._end()

    async def __aenter__(self) -> Self:
        """Open the client, if it is not open; any number of tasks may be inside at once, and blocks may be nested."""
        turn = self._turn_here()
        async with self._opening(turn):
            await self._open_session(reopen=True)
            turn.inside += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client when nobody else is inside, whether or not `open()` was called too."""
        turn = self._turn_here()
        turn.inside = max(turn.inside - 1, 0)
        if turn.inside:
            return
        try:
            await self._adding.finish()
        finally:
            async with turn.lock:
                if not turn.inside:  # nobody has entered while this call waited
                    await self._end()

    def _connection(self, given: object | None) -> AbstractAsyncContextManager[AnyConnection]:
        """Give the caller's connection, or else one of the client's in autocommit; texts are UTF-8 in both."""
        return self._own_connection() if given is None else self._lent(given)

    @asynccontextmanager
    async def _own_connection(self, *, apart: bool = False) -> AsyncIterator[Connection]:
        """Give one of the client's connections, in autocommit and UTF-8.

        Args:
            apart: whether the caller's code runs meanwhile, which may need another connection of the client's.
        """
        session = self._session_here() or await self._opened(reopen=False)
        connection: Connection | None = None
        was_autocommit, encoding = True, None
        try:
            connection = await session.take(apart=apart)
            was_autocommit = connection.autocommit
            if not was_autocommit:
                await connection.set_autocommit(True)
            if not session.owned:
                await look_for_pooler(connection)
            encoding = await speak_utf8(connection, connection.pgconn)
            if session.owned:
                yield connection
            else:
                async with read_committed(connection):
                    yield connection
        except psycopg_pool.PoolClosed as error:
            raise ClientClosedError(f"this client's pool is closed: {error}") from error
        except psycopg.Error as error:
            await session.hang_up_standby(connection, error)
            seen = translated(error, connection, where=session.where, schema=self._schema)
            if seen is error:
                raise
            raise seen from error
        finally:
            if connection is not None:
                if encoding is not None:
                    await speak_again(connection, encoding)
                if not was_autocommit:
                    with suppress(psycopg.Error):  # the connection is broken, and the pool discards it
                        await connection.set_autocommit(False)
                await session.give_back(connection)

    @asynccontextmanager
    async def _lent(self, given: object) -> AsyncIterator[AnyConnection]:
        """Use the caller's connection in UTF-8 for a block, and remove from its errors the rows that they quote."""
        self._refuse_closed()
        with stripping():
            if isinstance(given, psycopg.AsyncConnection):
                async with in_utf8(given, given.pgconn):
                    yield given
                return
            async with lent(given, sync=False) as theirs:
                if isinstance(theirs, Carrier):
                    yield theirs
                    return
                async with in_utf8(theirs, theirs.pgconn):
                    yield theirs

    async def _beside(self) -> Connection | None:
        """Make a connection outside the client's own pool, for a call that already holds one of the pool.

        Return None if a pool was given to the client.
        """
        session = self._session_here() or await self._opened(reopen=False)
        return await session.pool.beside(_BESIDE_SECONDS) if isinstance(session.pool, PatientPool) else None

    async def _run(self, asked: Asked[T], connection: object | None = None) -> T:
        """Do all that a verb asks on one connection, the caller's or one of the client's, and return its answer."""
        async with self._connection(connection) as chosen:
            return await carry_out(chosen, self._schema, asked)

    async def _run_apart(self, asked: Asked[T]) -> T:
        """Do what a verb asks, and release the connection after each step, so that others may use it between steps."""
        return await follow(asked, self._run)

    async def _retrying(
        self, call: Callable[[Connection], Awaitable[T]], *, harmless: bool = False, apart: bool = False
    ) -> T:
        """Return what a call gives on a connection of the client's; if nothing was done, repeat it for half a minute.

        Args:
            call: runs one transaction, or several, if it does no harm that the first ones are done already when it is
                repeated.
            harmless: whether the call may be repeated even if it is unknown what was done.
            apart: whether the caller's code runs meanwhile, which may need another connection of the client's.
        """
        backoff, until = Backoff(_FIRST_PAUSE), time.monotonic() + AGAIN_SECONDS
        cancelled = cancellations()
        while True:
            try:
                async with self._own_connection(apart=apart) as chosen:
                    return await call(chosen)
            except (psycopg.Error, DatabaseConnectionError) as error:
                if cancellations() > cancelled:  # the driver raises the server's error instead of the cancellation
                    raise asyncio.CancelledError from error
                again = surely_undone(error) or (harmless and isinstance(error, CommitUnknownError))
                if not again or time.monotonic() > until:
                    raise
            await self._rest(backoff.pause())

    async def _rest(self, seconds: float) -> None:
        """Wait before a call is repeated."""
        await asyncio.sleep(seconds)

    async def _opened(self, *, reopen: bool) -> Session:
        async with self._opening(self._turn_here()):
            return await self._open_session(reopen=reopen)

    @asynccontextmanager
    async def _opening(self, turn: _Turn) -> AsyncIterator[None]:
        """Be the only call that opens or closes the client during a block."""
        task = asyncio.current_task()
        if task is not None and turn.opener is task:
            raise BackfillError(
                "the dsn's callable uses the client that it gives a connection string for: use another one"
            )
        async with turn.lock:
            turn.opener = task
            try:
                yield
            finally:
                turn.opener = None

    async def _open_session(self, *, reopen: bool) -> Session:
        session = self._session_here()
        if session is None:
            if not reopen:
                self._refuse_closed()
            session = self._session = await start(self._settings, patience=self._patience, max_idle=self._max_idle)
            self._closed = False
        return session

    async def _end(self) -> None:
        session = self._session_here()
        self._session, self._closed = None, True
        self._adding.end()
        if session is not None:
            await session.close()

    def _session_here(self) -> Session | None:
        """Return the session if this process can use it on this loop; forget a session that can never be used again."""
        session = self._session
        if session is None:
            return None
        loop = asyncio.get_running_loop()
        if session.pid == os.getpid():
            if session.loop is loop:
                return session
            if not session.loop.is_closed():
                raise BackfillError(
                    "this client is open on another event loop; close it there first, or make one client a loop"
                )
        # A forked child must not close what it shares with its parent, and a closed loop cannot close anything.
        self._session = None
        return None

    def _turn_here(self) -> _Turn:
        loop, pid = asyncio.get_running_loop(), os.getpid()
        if self._turn is None or self._turn.loop is not loop or self._turn.pid != pid:
            self._turn = _Turn(loop, pid)
        return self._turn

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClientClosedError("this client is closed; open it again, or make another")
