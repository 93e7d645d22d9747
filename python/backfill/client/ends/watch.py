"""Waiting for ends: one task per client listens for notifications on a connection of its own, and polls as well.

A look is a query for ends. Only looks find ends; a notification merely makes the next look come sooner. So a lost
notification, or a pooler that passes none on, delays an answer by the poll's interval at most. Any role that may
connect can send notifications, so the looks that follow notifications without an end are limited in their rate. While
the database cannot be reached, or its connection string cannot be had, the task waits, and looks again as soon as it
can.
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
from backfill.storage.until import end_all
from backfill.storage.workers import listen

logger = logging.getLogger(__name__)

ENDS_CHANNEL: Final = "backfill:ends"
POLL_SECONDS: Final = 5.0
"""Seconds between two looks, if notifications arrive."""
DEAF_POLL_SECONDS: Final = 0.5
"""Seconds between two looks, if notifications do not arrive."""
LINGER_SECONDS: Final = 10.0
"""Seconds for which the connection is kept when nobody waits any more."""
LOOKS_AT_ONCE: Final = 20
LOOKS_PER_SECOND: Final = 50.0
"""How many looks per second notifications may cause, beside one look for each end that was found."""
_BATCH: Final = 1_000
_ANSWER_SECONDS: Final = 30.0
Waiter = asyncio.Future[JobEnd | None]


class EndWatch:
    """Finds the ends that callers on one event loop wait for.

    Args:
        schema: the queue's schema.
        connect: makes the connection on which notifications of ends arrive; None if the client has no DSN, but a pool.
        lend: lends a connection of the client's, for a waiter's first look, and for all looks if `connect` is None.
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
        """Wait for the end of a job and return it; return None if the job is gone without an end."""
        waiter: Waiter = self.loop.create_future()
        # Register the waiter before its first look: an end that is written after that look is then notified, or found
        # by the next look.
        self._waiters[job_id].add(waiter)
        if self._task is None or self._task.done():
            with outside_jobs():  # the task serves other callers too, and outlives the job that asks first
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
            # Remove the waiter first, which needs no await: a second cancellation while the look ends then leaves none.
            waiters = self._waiters[job_id]
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[job_id]
            await end_all(look)

    async def close(self) -> None:
        """End the task and all first looks; callers that still wait get the error that `fail` has set."""
        task, self._task = self._task, None
        await end_all(*self._looks, *([] if task is None else [task]))

    def fail(self, error: Exception) -> None:
        """Raise an error in every call that waits."""
        for waiters in list(self._waiters.values()):
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)

    async def _first_look(self, job_id: int) -> None:
        try:
            async with self._lend() as connection:
                await self._look(connection, [job_id])
        except (DatabaseConnectionError, psycopg.OperationalError, TimeoutError, OSError) as error:
            self._say(error)  # the shared task looks again, as soon as it can

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
            except Exception as error:  # noqa: BLE001 - callers must not wait for ever
                self.fail(error)
                await asyncio.sleep(self._backoff.pause())

    async def _is_wanted(self) -> bool:
        """Tell whether somebody waits now, or begins to wait within the next `LINGER_SECONDS`."""
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
            async with self._lend() as connection:  # only for one look: others need the client's connections too
                yield connection
            return
        async with await self._connected(self._connect) as connection:
            if is_pooled(connection):
                self._connect = None  # no notification comes through a pooler: from now on the task only polls
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
            # The callable that gives the connection string is the caller's: it may succeed later, and may itself have
            # been cancelled. Only the error's class is shown, because its text may contain a secret.
            reason = type(error).__name__
            raise DatabaseConnectionError(f"the dsn's callable gave no connection string: {reason}") from error

    async def _listen(self, connection: Connection) -> bool:
        """Wait until the next look is due; tell whether a notification of an awaited end came before that."""
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
        """Tell whether somebody waits for one of the notified ends; a notification without ids may mean any job."""
        try:
            ids = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return True
        if not ids or not isinstance(ids, list):
            return True
        return any(isinstance(number, int) and number in self._waiters for number in ids)

    async def _look(self, connection: Connection, ids: list[int], *, polled: bool = False) -> None:
        """Look for the ends of some jobs; `polled` says that no notification of any of them came."""
        for start in range(0, len(ids), _BATCH):
            some = ids[start : start + _BATCH]
            async with asyncio.timeout(_ANSWER_SECONDS):
                found = await carry_out(connection, self._schema, find_ends(some))
            for job in found:
                if job.end is None and job.waits:
                    continue
                self._resolve(job.id, job.end)
                # The end was found without a notification, as happens behind a pooler: look more often.
                self._deaf = self._deaf or (polled and job.end is not None)

    def _resolve(self, number: int, how: JobEnd | None) -> None:
        self._ration.earn(1)
        for waiter in self._waiters.get(number, ()):
            if not waiter.done():
                waiter.set_result(how)

    def _say(self, error: BaseException) -> None:
        logger.log(self._backoff.level(), "ends could not be looked for and are again: %s", why(error))


def _is_cancelled() -> bool:
    """Tell whether the current task was cancelled, and not something that it awaited.

    This is a function so that the caller has no local variable for the task: an error keeps its frame, and the frame
    would keep the task.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
