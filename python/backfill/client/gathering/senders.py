"""When calls that add one job go to the server, and who is told what came of it.

Used by `adding` and `enqueue`. A call that finds no other on its way goes at once, by itself, and costs no more than it
would without this. Calls that come meanwhile wait, and go together in one statement as soon as that one has returned.
No call waits for a timer, with one exception: a statement that takes long, perhaps because of a lock, does not hold up
the calls that came after it for more than a moment. They then go on another connection.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import get_running_loop
from collections.abc import Iterable, Sequence
from contextvars import Context
from os import getpid
from typing import TYPE_CHECKING, Final

import psycopg

from backfill.client.execute import run_own
from backfill.client.gathering.refusals import is_about_rows, is_refusal, own_copy
from backfill.client.gathering.rows import PATIENCE, Row, gathered, in_order
from backfill.client.gathering.waiting import Waiter, WaitingList
from backfill.client.metering import count_jobs
from backfill.client.naming import REMEMBERED, make_names, names_of
from backfill.client.prepare import status_of
from backfill.client.ways import goes_by_functions
from backfill.errors import ClientClosedError, CommitUnknownError
from backfill.storage.rows import decode_jobs
from backfill.storage.types import Connection

if TYPE_CHECKING:
    from backfill.client.connect import ClientLife
    from backfill.client.gathering.notices import Notices
    from backfill.client.prepare import JobShape
    from backfill.records import Job

LONG_SECONDS: Final = 0.1
"""A call that has waited for so long goes on another connection."""
CLOSING_SECONDS: Final = 5.0
"""How long the closing of a client waits for the calls that were made before it."""
_CLOSED: Final = "this client was closed before the job was sent; nothing was written"


class _NamesMissingError(Exception):
    """A task or a queue of some jobs could not be made at once, so nothing was written."""


class Senders:
    """The calls of one client, on one event loop of one process, that add one job each.

    Args:
        client: the client.
        notices: says when workers are notified; None for each time.
    """

    def __init__(self, client: ClientLife, notices: Notices | None) -> None:
        self._loop = get_running_loop()
        self._pid = getpid()
        self._client = client
        self._schema = client.schema
        self._known = client._known  # noqa: SLF001 - a class of the same package
        self._notices = notices
        self._under_way = 0
        self._waiting = WaitingList()
        self._sent: set[asyncio.Future[Job | None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.TimerHandle | None = None

    @property
    def is_here(self) -> bool:
        """Whether this object belongs to the running event loop and to this process."""
        return self._loop is get_running_loop() and self._pid == getpid()

    def begin(self) -> bool:
        """Tell whether a call may go at once by itself, because no other is on its way; if so, it must call `end`."""
        if self._under_way:
            return False
        self._under_way = 1
        return True

    def end(self) -> None:
        """Let those go that have waited for a call which went by itself."""
        self._under_way -= 1
        if self._waiting and not self._under_way:
            self._start()

    async def wait(self, shape: JobShape, payload: bytes, *, tell: bool) -> Job | None:
        """Wait until a job is written together with others, and return its row.

        Returns:
            The job's row; None if nothing was written and the call is to write its job by itself, so that it gets its
            own error, or waits for a lock without keeping others waiting.

        Raises:
            CommitUnknownError: the connection was lost while the server worked, or the event loop ended meanwhile.
            DatabaseConnectionError: there was no connection, or it was lost before anything was done.
            ClientClosedError: the client was closed before the job was sent.
        """
        now = self._loop.time()
        waiter = Waiter(shape, payload, tell, now, self._loop.create_future())
        self._waiting.add(waiter)
        if self._watch is None:
            self._watch = self._loop.call_at(now + LONG_SECONDS, self._look)
        return await waiter.answer

    async def finish(self) -> None:
        """Wait for the calls that were made before, but not for long."""
        if self._waiting:
            self._start()
        under_way = {*self._sent, *(waiter.answer for waiter in self._waiting)}
        if under_way:
            await asyncio.wait(under_way, timeout=CLOSING_SECONDS)

    def refuse(self) -> None:
        """Tell the calls that still wait that the client is closed; those on their way finish."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        _fail(self._waiting.empty(), ClientClosedError(_CLOSED))

    def _look(self) -> None:
        """Send the calls that have waited for too long."""
        self._watch = None
        if not self._waiting:
            return
        due = self._waiting.first.since + LONG_SECONDS
        now = self._loop.time()
        if now >= due:
            self._start()
            due = now + LONG_SECONDS
        self._watch = self._loop.call_at(due, self._look)

    def _start(self) -> None:
        self._under_way += 1
        # The task outlives the call that starts it, whose context, such as the job that it runs in, is not the task's.
        task = self._loop.create_task(self._send(), name="backfill enqueues", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self) -> None:
        """Send calls as long as any wait."""
        ended = False
        try:
            while True:
                await asyncio.sleep(0)  # callers that have just got their answers may make their next calls
                batch = self._waiting.take()
                if not batch:
                    break
                answers = {waiter.answer for waiter in batch}
                self._sent |= answers
                try:
                    await self._write(batch)
                finally:
                    self._sent -= answers
                    _fail(batch, ClientClosedError(_CLOSED))  # those that have no answer yet: the event loop ends
            ended = True
        finally:
            self._under_way -= 1
            if not ended:  # the event loop ends
                self.refuse()

    async def _write(self, batch: Sequence[Waiter]) -> None:
        """Write the jobs of some calls, and answer each of them."""
        try:
            await self._write_together(batch)
        except _NamesMissingError:
            await self._without(batch, [waiter for waiter in batch if not self._are_known(waiter.shape)])
        except psycopg.Error as error:
            if is_about_rows(error):
                await self._write_apart(batch)
            elif isinstance(error, psycopg.errors.LockNotAvailable):
                await self._without(batch, [waiter for waiter in batch if waiter.shape.key is not None])
            elif is_refusal(error):
                await self._without(batch, batch)
            else:
                _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - each call gets it
            _fail(batch, error)
        except BaseException:
            doubt = "the event loop ended while the job was being written; it may or may not be there"
            _fail(batch, CommitUnknownError(doubt))
            raise

    async def _write_apart(self, batch: Sequence[Waiter]) -> None:
        """Write the halves of some calls one after the other; a single call writes its job by itself."""
        if len(batch) == 1:
            _answer(batch, [None])
            return
        middle = len(batch) // 2
        await self._write(batch[:middle])
        await self._write(batch[middle:])

    async def _without(self, batch: Sequence[Waiter], some: Sequence[Waiter]) -> None:
        """Have some calls write their jobs by themselves, and write the others; if nothing is known, each by itself."""
        left = set(batch).difference(some)
        if len(left) == len(batch):
            some, left = batch, set()
        _answer(some, [None] * len(some))
        if left:
            await self._write([waiter for waiter in batch if waiter in left])

    async def _write_together(self, batch: Sequence[Waiter]) -> None:
        began = time.monotonic()
        tell = any(waiter.tell for waiter in batch) and (self._notices is None or self._notices.may_tell())
        sent: list[Waiter] = []
        rows: list[Row] = []

        async def add(connection: Connection) -> list[Job]:
            # Those that were cancelled while there was no connection are left out: their callers may try again.
            sent[:] = [waiter for waiter in batch if not waiter.answer.done()]
            rows[:] = [(waiter.shape, waiter.payload) for waiter in sent]
            return await self._add(connection, rows, tell=tell and any(waiter.tell for waiter in sent)) if rows else []

        written = await self._client._retrying(add)  # noqa: SLF001 - see above
        told = sum([waiter.tell for waiter in sent])
        if told and not tell and self._notices is not None:
            self._notices.add(told)
        answers = in_order(rows, written)
        ends = ((shape, status_of(job, shape.mode)) for (shape, _), job in zip(rows, answers, strict=True))
        count_jobs(ends, began)
        _answer(sent, answers)

    async def _add(self, connection: Connection, rows: list[Row], *, tell: bool) -> list[Job]:
        names = names_of([shape for shape, _ in rows])
        by_functions = await goes_by_functions(connection, self._schema)
        keyed = any(shape.key is not None for shape, _ in rows)
        statement, parameters = gathered(
            rows, tell=tell, by_functions=by_functions, patience=PATIENCE if keyed else None
        )
        new = names[0] - self._known[0], names[1] - self._known[1]
        for missing in (new, names):
            if any(missing):
                await make_names(connection, self._schema, *missing, briefly=True)
            written = decode_jobs(await run_own(connection, statement, self._schema, parameters))
            if written:
                self._remember(names)
                return written
        raise _NamesMissingError

    def _are_known(self, shape: JobShape) -> bool:
        tasks, queues = self._known
        return shape.task in tasks and (shape.queue is None or shape.queue in queues)

    def _remember(self, names: Iterable[set[str]]) -> None:
        for known, seen in zip(self._known, names, strict=True):
            if len(known) >= REMEMBERED:
                known.clear()
            known.update(seen)


def _answer(batch: Sequence[Waiter], rows: Sequence[Job | None]) -> None:
    for waiter, row in zip(batch, rows, strict=True):
        if not waiter.answer.done():
            waiter.answer.set_result(row)


def _fail(batch: Iterable[Waiter], error: Exception) -> None:
    for waiter in batch:
        if not waiter.answer.done():
            waiter.answer.set_exception(own_copy(error))
