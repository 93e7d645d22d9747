"""The pool of a client's connections, which outlives an outage of any length.

It has connections again within a second or two of the outage's end. psycopg's own pool waits twice as long after each
attempt to connect, gives up after five minutes, and logs each attempt. Here an attempt goes on until there is a
connection, with pauses of our own, and an outage is logged once. Nothing private of psycopg's pool is used: the pool is
given a class of connections whose `connect` follows our rules.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar
from weakref import WeakSet

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from backfill.errors import ConfigurationError
from backfill.logs import outside_jobs
from backfill.storage.backoff import Backoff
from backfill.storage.connection import connect, is_alive
from backfill.storage.outage import Outage
from backfill.storage.types import Connection, Dsn
from backfill.storage.until import until

logger = logging.getLogger(__name__)

T = TypeVar("T")
_AGAIN_SECONDS: Final = 0.05
_OURS: Final[WeakSet[Connection]] = WeakSet()


class _ClosingError(Exception):
    """The pool was closed while it was connecting."""


class PatientPool(AsyncConnectionPool[Connection]):
    """A pool of connections like those that `connect` makes; a new pool is not open yet.

    Args:
        dsn: a connection string, or a callable that is asked for one at each new connection.
        min_size: how many connections the pool keeps open when they are not used.
        max_size: how many connections it has at most.
        max_idle: seconds after which an unused connection beyond min_size is closed.
        application_name: the name that `pg_stat_activity` shows for its connections.
    """

    def __init__(
        self, dsn: Dsn, *, min_size: int, max_size: int, max_idle: float = 600.0, application_name: str = "backfill"
    ) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._outage = Outage(logger)
        self._ending = asyncio.Event()
        self._at_hand: Callable[[], Connection | None] = lambda: None
        self._asking = 0
        pool = self

        class Lasting(psycopg.AsyncConnection[Any]):
            """A connection that `PatientPool.lasting` makes; the arguments of its `connect` are ignored."""

            @classmethod
            async def connect(cls, *_: Any, **__: Any) -> Connection:  # type: ignore[override]
                try:
                    return await pool.lasting()
                except asyncio.CancelledError:
                    _insist(asyncio.current_task())
                    raise

        super().__init__(
            "", connection_class=Lasting, min_size=min_size, max_size=max_size, max_idle=max_idle, open=False,
            name=application_name,
        )  # fmt: skip

    async def lasting(self) -> Connection:
        """A new connection, however long it takes; an error comes only if the pool is closed or the DSN is wrong."""
        backoff = Backoff()
        while True:
            try:
                connection = await self._unless_closed(connect(self._dsn, application_name=self._application_name))
            except (_ClosingError, ConfigurationError):
                raise
            except Exception as error:
                self._outage.failed(error)
                if await backoff.wait(self._ending):
                    raise _ClosingError from error
            else:
                self._outage.connected()
                _OURS.add(connection)
                return connection

    async def beside(self, timeout: float | None = None) -> Connection:
        """A connection that does not belong to the pool; the caller closes it.

        Args:
            timeout: how many seconds it may take; None for the pool's own timeout.

        Raises:
            PoolTimeout: there was no connection in time; the message says why.
            PoolClosed: the pool was closed meanwhile.
        """
        try:
            async with asyncio.timeout(timeout or self.timeout):
                return await self.lasting()
        except TimeoutError as error:
            raise self._outage.not_made(timeout or self.timeout) from error
        except _ClosingError as error:
            raise PoolClosed("the pool was closed") from error

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Open the pool; its tasks outlive a job that opens it, so their log records do not name that job."""
        with outside_jobs():
            await super().open(wait, timeout)

    async def getconn(self, timeout: float | None = None) -> Connection:
        """Lend a connection.

        Raises:
            PoolTimeout: there was no connection in time; the message says why.
        """
        at_hand = self._at_hand()
        if at_hand is not None:
            if is_alive(at_hand):
                return at_hand
            await at_hand.close()
            await self.putconn(at_hand)
        self._asking += 1
        try:
            connection: Connection = await super().getconn(timeout)
        except PoolTimeout as error:
            raise self._outage.not_lent(error, self.max_size) from error
        finally:
            self._asking -= 1
        return connection

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a connection."""
        return self._asking > 0

    def ask_first(self, at_hand: Callable[[], Connection | None]) -> None:
        """Ask this function for a lent connection that nobody uses, before another one is lent.

        Args:
            at_hand: gives up the connection that its holder keeps at hand; None if it has none.
        """
        self._at_hand = at_hand

    async def close(self, timeout: float = 5.0) -> None:
        """Close the pool without waiting for attempts to connect."""
        self._ending.set()
        await super().close(timeout)

    async def _unless_closed(self, work: Coroutine[Any, Any, T]) -> T:
        task = await until(self._ending, work)
        if task.cancelled():
            raise _ClosingError
        return task.result()


class _Quiet(logging.Filter):
    """Keeps records about single broken connections of ours out of psycopg's pool log.

    Such trouble is logged elsewhere, once.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be logged."""
        given = record.args if isinstance(record.args, tuple) else ()
        return not any(_is_ours(one) for one in given)


def _insist(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task of psycopg's pool until it ends.

    Such a task goes on when it is cancelled while it connects. At the end of `asyncio.run`, which cancels each task
    once, a client that was not closed would thus keep the program from ending.
    """
    if task is not None and not task.done():
        loop = task.get_loop()
        loop.call_soon(task.cancel)
        loop.call_later(_AGAIN_SECONDS, _insist, task)


def _is_ours(one: object) -> bool:
    return isinstance(one, (_ClosingError, asyncio.CancelledError)) or (
        isinstance(one, psycopg.AsyncConnection) and one in _OURS
    )


logging.getLogger("psycopg.pool").addFilter(_Quiet())
