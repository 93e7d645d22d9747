"""Waiting for ends: one task a client that hears of them on a connection of its own, with a poll beneath.

A notification only makes a look come sooner: what a look finds counts, so one that is lost, or a pooler that passes
none on, delays an answer by the poll's interval and no more. Any role that may connect can send one, so that those
which were in vain are followed by a look so often and no oftener. While the database is away, or its connection string
cannot be had, it waits, and looks once it is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import orjson
import psycopg

from backfill.client.asking import carry_out
from backfill.client.verbs.ends import find_ends
from backfill.ends import JobEnd
from backfill.errors import BackfillError, DatabaseConnectionError
from backfill.logs import outside_jobs
from backfill.said import why
from backfill.storage.backoff import Backoff
from backfill.storage.pooler import is_pooled
from backfill.storage.ration import Ration
from backfill.storage.types import Connection
from backfill.storage.workers import listen

logger = logging.getLogger(__name__)

ENDS_CHANNEL: Final = "backfill:ends"
POLL_SECONDS: Final = 5.0
"""Between two looks, where ends are heard of."""
DEAF_POLL_SECONDS: Final = 0.5
"""The same where they are not."""
LINGER_SECONDS: Final = 10.0
"""How long the connection is kept when nobody waits any more."""
LOOKS_AT_ONCE: Final = 20
LOOKS_PER_SECOND: Final = 50.0
"""How often notifications make it look, beside as many times as an end was found."""
_BATCH: Final = 1_000
_ANSWER_SECONDS: Final = 30.0
Waiter = asyncio.Future[JobEnd | None]


class EndWatch:
    """Those who wait for ends on one event loop.

    Args:
        schema: the queue's.
        connect: makes the connection on which ends are heard of; None where the client has no DSN, but a pool.
        lend: lends a connection of the client's, for looks where there is none of its own.
    """

    def __init__(
        self,
        schema: str,
        *,
        connect: Callable[[], Awaitable[Connection]] | None,
        lend: Callable[[], AbstractAsyncContextManager[Connection]],
    ) -> None:
        self._schema = schema
        self._connect = connect
        self._lend = lend
        self.loop = asyncio.get_running_loop()
        self._waiters: dict[int, set[Waiter]] = defaultdict(set)
        self._wanted = asyncio.Event()
        self._deaf = connect is None
        self._task: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._backoff = Backoff()
        self._ration = Ration(LOOKS_AT_ONCE, LOOKS_PER_SECOND)

    async def wait(self, job_id: int) -> JobEnd | None:
        """The end of a job once there is one; None once the job is gone without one."""
        waiter: Waiter = self.loop.create_future()
        # Known before its first look: an end that is written after that look is heard of, or found by the next.
        self._waiters[job_id].add(waiter)
        if self._task is None or self._task.done():
            with outside_jobs():  # it serves others, too, and outlives the job that asks first
                self._task = self.loop.create_task(self._watch(), name="backfill-ends")
        self._wanted.set()
        look = self.loop.create_task(self._first_look(job_id), name="backfill-end")
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)
        try:
            both: list[asyncio.Future[Any]] = [waiter, look]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if look.done():
                look.result()
            return await waiter
        finally:
            # First what takes no time: whoever cancels this once more, while the look ends, leaves no waiter behind.
            waiters = self._waiters[job_id]
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[job_id]
            look.cancel()
            await asyncio.wait([look])

    async def close(self) -> None:
        """End the task and all first looks, and every waiting with the error that is set for them."""
        task, self._task = self._task, None
        ending = [*self._looks, *([] if task is None else [task])]
        for one in ending:
            one.cancel()
        if ending:
            await asyncio.wait(ending)

    def fail(self, error: Exception) -> None:
        """Raise an error for all who wait."""
        for waiters in list(self._waiters.values()):
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)

    async def _first_look(self, job_id: int) -> None:
        try:
            async with self._lend() as connection:
                await self._look(connection, [job_id])
        except (DatabaseConnectionError, psycopg.OperationalError, TimeoutError, OSError) as error:
            self._say(error)  # the others' task looks again, as soon as it can

    async def _watch(self) -> None:
        while await self._is_wanted():
            try:
                async with self._connection() as connection:
                    polled = False
                    while await self._is_wanted():
                        await self._look(connection, list(self._waiters), polled=polled)
                        if self._backoff.reset():
                            logger.info("ends are found again")
                        if self._connect is None:
                            break
                        polled = not await self._listen(connection)
                if self._connect is None:
                    await asyncio.sleep(DEAF_POLL_SECONDS)
            except (BackfillError, psycopg.Error, TimeoutError, OSError) as error:
                self._say(error)
                await asyncio.sleep(self._backoff.pause())
            except Exception as error:  # noqa: BLE001 - those who wait must not wait for ever
                self.fail(error)
                await asyncio.sleep(self._backoff.pause())

    async def _is_wanted(self) -> bool:
        """Whether somebody waits, or does so again before long."""
        if not self._waiters:
            self._wanted.clear()
            try:
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                return bool(self._waiters)
        return True

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        if self._connect is None:
            async with self._lend() as connection:  # for one look: its owner has others who need it
                yield connection
            return
        async with await self._connected(self._connect) as connection:
            if is_pooled(connection):
                self._connect = None  # nothing is heard through a pooler: from now on it only looks
                yield connection
                return
            async with asyncio.timeout(_ANSWER_SECONDS):
                await listen(connection, (ENDS_CHANNEL,))
            yield connection

    async def _connected(self, connect: Callable[[], Awaitable[Connection]]) -> Connection:
        try:
            return await connect()
        except (BackfillError, psycopg.Error, OSError):
            raise
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            # What gives the connection string is the caller's, and may be able to later; it may have been cancelled
            # itself. Its class alone: what it says may be a secret.
            reason = type(error).__name__
            raise DatabaseConnectionError(f"the dsn's callable gave no connection string: {reason}") from error

    async def _listen(self, connection: Connection) -> bool:
        """Wait as long as lies between two looks; whether an end was heard of before that somebody waits for."""
        until = time.monotonic() + (DEAF_POLL_SECONDS if self._deaf else POLL_SECONDS)
        while (left := until - time.monotonic()) > 0 and self._waiters:
            async for notification in connection.notifies(timeout=left, stop_after=1):
                if self._concerns(notification.payload):
                    self._deaf = False
                    await asyncio.sleep(self._ration.wait())
                    self._ration.take()
                    return True
        return False

    def _concerns(self, payload: str) -> bool:
        """Whether somebody waits for one of the ends that are told of; without ids it may be any."""
        try:
            ids = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return True
        if not ids or not isinstance(ids, list):
            return True
        return any(isinstance(number, int) and number in self._waiters for number in ids)

    async def _look(self, connection: Connection, ids: list[int], *, polled: bool = False) -> None:
        """Look for the ends of some jobs; `polled` says that nothing was heard of any."""
        for start in range(0, len(ids), _BATCH):
            some = ids[start : start + _BATCH]
            async with asyncio.timeout(_ANSWER_SECONDS):
                found = await carry_out(connection, self._schema, find_ends(some))
            for job in found:
                if job.end is None and job.waits:
                    continue
                self._resolve(job.id, job.end)
                # Nothing is heard here, as where a pooler is in between: look more often.
                self._deaf = self._deaf or (polled and job.end is not None)

    def _resolve(self, number: int, how: JobEnd | None) -> None:
        self._ration.earn(1)
        for waiter in self._waiters.get(number, ()):
            if not waiter.done():
                waiter.set_result(how)

    def _say(self, error: BaseException) -> None:
        logger.log(self._backoff.level(), "ends could not be looked for and are again: %s", why(error))


def _is_cancelled() -> bool:
    """Whether it is this task that was cancelled.

    The task is in no local of the caller's: an error keeps its frame, and the frame would keep the task.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
