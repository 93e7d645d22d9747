"""One COPY BINARY stream: a chunk of rows is packed natively and sent, off the loop, while the next one is being made.

Used by `writing`, within one transaction. No chunk waits for an answer of the server: a task of its own packs it in a thread
and hands it from libpq to the socket, and at most one chunk is on its way while the next one is read and encoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg.rows import tuple_row
from psycopg.waiting import Ready, Wait

from backfill._native import copy_rows
from backfill.storage.connection import Connection
from backfill.storage.statements import render

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn

PIECE_BYTES: Final = 1_000_000
_PACKED_IN_PLACE: Final = 64
"""So few rows are packed in a few microseconds, less than the way to a thread and back."""


class CopyStream:
    """The rows of one transaction on their way to the server; begun by the first of them, and again after an end.

    Args:
        connection: in a transaction.
        statement: the COPY, by its name.
        schema: the queue's.
    """

    def __init__(self, connection: Connection, statement: str, schema: str) -> None:
        self._connection = connection
        self._statement = statement, schema
        self._cursor = psycopg.AsyncRawCursor(connection, row_factory=tuple_row)
        self._copying = AsyncExitStack()
        self._copy: psycopg.AsyncCopy | None = None
        self._sending: asyncio.Task[None] | None = None
        # Of its own: the loop's threads may all be waiting for this very call.
        self._packer = ThreadPoolExecutor(1, "backfill-copy")

    async def write(self, prefixes: Sequence[bytes], payloads: Sequence[bytes], ids: Sequence[int] | None) -> None:
        """Send rows, as soon as those before them are with the server or its socket; returns while these are on their way."""
        await self._sent()
        begin = self._copy is None
        if self._copy is None:
            self._copy = await self._copying.enter_async_context(self._cursor.copy(render(*self._statement)))
        pack = partial(copy_rows, prefixes, payloads, ids, begin=begin)
        self._sending = asyncio.create_task(self._send(self._copy, pack, len(payloads)))

    async def end(self) -> None:
        """Wait until the server has taken everything, so that the connection is free for other statements."""
        await self._sent()
        if self._copy is not None:
            await self._copy.write(copy_rows([], [], end=True))
            self._copy = None
            await self._copying.aclose()

    async def close(self, error: BaseException | None) -> None:
        """End it, or have the server undo it where there is an error; the connection is free for others either way."""
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

    async def _undo(self, error: BaseException) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            if not isinstance(error, Exception):
                sending.cancel()  # a cancellation waits for no server; an error may, for what is on its way
            await asyncio.wait([sending])
            if not sending.cancelled():
                sending.exception()  # looked at, since the first error is the one to tell
        self._copy = None
        await self._copying.__aexit__(type(error), error, error.__traceback__)

    async def _sent(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            await sending

    async def _send(self, copy: psycopg.AsyncCopy, pack: Callable[[], bytes], rows: int) -> None:
        if rows <= _PACKED_IN_PLACE:
            block = memoryview(pack())
        else:
            block = memoryview(await asyncio.get_running_loop().run_in_executor(self._packer, pack))
        for start in range(0, len(block), PIECE_BYTES):
            await copy.write(block[start : start + PIECE_BYTES])
            # libpq would take any amount into its own memory: what it holds is handed on before the next piece
            await self._connection.wait(_flushed(self._connection.pgconn))


def _flushed(pgconn: PGconn) -> PQGen[None]:
    while pgconn.flush():
        # Reads too: a server that is not rid of its notices takes no more rows.
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
