"""One COPY BINARY stream: native code packs a chunk of rows and sends it while the next chunk is being made.

Used by `writing` and `waiting`, within one transaction. No chunk waits for an answer of the server: a separate task
packs the chunk in a thread and passes it from libpq to the socket. At most one chunk is on its way while the next one
is read and encoded. The driver's own COPY is not used, because it does not read while it waits to write: a server that
has many notices to send would then wait for the driver for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import psycopg

from backfill._native import copy_rows
from backfill.client.carrier import AnyConnection, Carrier, is_piped
from backfill.client.execute import answer, checked, flushed
from backfill.storage.statements import render
from backfill.storage.types import Connection

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

PIECE_BYTES: Final = 1_000_000
UNDO_SECONDS: Final = 5.0
"""Seconds for which a stream that is undone waits for the server, before it asks for the statement's cancellation."""
_PACKED_IN_PLACE: Final = 64
"""Up to this many rows are packed without a thread: it takes a few microseconds, less than the way to a thread."""
_TRAILER: Final = copy_rows([], [], end=True)


class CopyStream:
    """Sends the rows of one transaction to the server by COPY; the first rows, also those after an `end`, begin it.

    Args:
        connection: the connection, in a transaction.
        statement: the name of the COPY statement.
        schema: the queue's schema.
    """

    def __init__(self, connection: Connection, statement: str, schema: str) -> None:
        self._connection = connection
        self._text = render(statement, schema).encode()
        self._open = False
        self._lock = AsyncExitStack()
        self._sending: asyncio.Task[None] | None = None
        # A thread of its own, since all threads of the loop's executor may be waiting for this very call.
        self._packer = ThreadPoolExecutor(1, "backfill-copy")

    async def write(self, prefixes: Sequence[bytes], payloads: Sequence[bytes], ids: Sequence[int] | None) -> None:
        """Send rows of jobs, as `send` sends any rows."""
        await self.send(partial(copy_rows, prefixes, payloads, ids), len(payloads))

    async def send(self, pack: Callable[..., bytes], rows: int) -> None:
        """Send rows, as soon as the rows before them have been passed to the socket.

        The call returns while these rows are still on their way.

        Args:
            pack: packs the rows in COPY's binary format; its argument `begin` says whether the stream's header comes
                first.
            rows: how many there are.
        """
        await self._sent()
        pack = partial(pack, begin=not self._open)
        if not self._open:
            await self._begin()
        self._sending = asyncio.create_task(self._send(pack, rows))

    async def end(self) -> None:
        """Wait until the server has taken everything, so that the connection is free for other statements."""
        await self._sent()
        if self._open:
            await self._put(copy_rows([], [], end=True))
            await self._finish(None)

    async def close(self, error: BaseException | None) -> None:
        """End the COPY, or have the server undo it if there is an error; either way the connection is then free."""
        try:
            if error is not None:
                await self._undo(error)
                return
            try:
                await self.end()
            except BaseException as late:
                await self._undo(late)
                raise
        finally:
            self._packer.shutdown(wait=False)

    async def _begin(self) -> None:
        await self._lock.enter_async_context(self._connection.lock)  # no other statement may come between
        self._connection.pgconn.send_query(self._text)
        self._open = True  # set now, since the wait for the answer may be cancelled
        checked(self._connection, await self._connection.wait(answer(self._connection.pgconn)))

    async def _undo(self, error: BaseException) -> None:
        sending, self._sending = self._sending, None
        try:
            if sending is not None:
                # A cancellation must not wait for the server. An error may wait briefly for the rows on their way.
                patience = UNDO_SECONDS if isinstance(error, Exception) else 0.0
                await asyncio.wait([sending], timeout=patience)
                sending.cancel()  # the driver then cancels the statement, and closes the connection if that fails
                await asyncio.wait([sending])
                if not sending.cancelled():
                    sending.exception()  # retrieved, so that asyncio logs nothing; the first error is raised
            if self._open:
                # Wait for the server to confirm that the COPY is undone, or that there was nothing to undo.
                with suppress(psycopg.Error, TimeoutError):
                    async with asyncio.timeout(UNDO_SECONDS):
                        await self._finish(f"stopped by {type(error).__name__}".encode())
        finally:
            await self._lock.aclose()

    async def _finish(self, error: bytes | None) -> None:
        self._open = False
        checked(self._connection, await self._connection.wait(_ended(self._connection.pgconn, error)))
        await self._lock.aclose()

    async def _sent(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            await sending

    async def _send(self, pack: Callable[[], bytes], rows: int) -> None:
        if rows <= _PACKED_IN_PLACE:
            block = pack()
        else:
            block = await asyncio.get_running_loop().run_in_executor(self._packer, pack)
        await self._put(block)

    async def _put(self, block: bytes) -> None:
        view = memoryview(block)
        for start in range(0, len(view), PIECE_BYTES):
            await self._connection.wait(_put(self._connection.pgconn, view[start : start + PIECE_BYTES]))


class CarriedStream:
    """The same on a carrier: each call sends one COPY, of which the server has all rows when the call returns.

    Args:
        carrier: the carrier of a connection, in a transaction.
        statement: the name of the COPY statement.
        schema: the queue's schema.
    """

    def __init__(self, carrier: Carrier, statement: str, schema: str) -> None:
        self._carrier = carrier
        self._statement = statement
        self._schema = schema

    async def write(self, prefixes: Sequence[bytes], payloads: Sequence[bytes], ids: Sequence[int] | None) -> None:
        """Send rows of jobs."""
        data = copy_rows(prefixes, payloads, ids, begin=True, end=True)
        await self._carrier.copy(self._statement, self._schema, data)

    async def send(self, pack: Callable[..., bytes], _rows: int) -> None:
        """Send rows that a function packs."""
        await self._carrier.copy(self._statement, self._schema, pack(begin=True) + _TRAILER)

    async def end(self) -> None:
        """Do nothing: the server has taken everything."""

    async def close(self, error: BaseException | None) -> None:
        """Do nothing: no COPY is open."""


def stream_of(connection: AnyConnection, statement: str, schema: str) -> CopyStream | CarriedStream:
    """Make the stream by which rows are sent on a connection."""
    if isinstance(connection, Carrier):
        return CarriedStream(connection, statement, schema)
    return CopyStream(connection, statement, schema)


def may_copy(connection: AnyConnection) -> bool:
    """Tell whether a COPY can be sent on a connection."""
    return connection.copies if isinstance(connection, Carrier) else not is_piped(connection)


def _put(pgconn: PGconn, piece: memoryview) -> PQGen[None]:
    while pgconn.put_copy_data(piece) == 0:
        yield from flushed(pgconn)
    # libpq would take any amount into its own memory, so pass on what it holds before the next piece
    yield from flushed(pgconn)


def _ended(pgconn: PGconn, error: bytes | None) -> PQGen[PGresult]:
    while pgconn.put_copy_end(error) == 0:
        yield from flushed(pgconn)
    return (yield from answer(pgconn))
