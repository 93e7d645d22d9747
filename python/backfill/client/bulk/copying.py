"""One COPY BINARY stream: a chunk of rows is packed natively and sent, off the loop, while the next one is being made.

Used by `writing`, within one transaction. No chunk waits for an answer of the server: a task of its own packs it in a
thread and hands it from libpq to the socket, and at most one chunk is on its way while the next one is read and
encoded. The driver's own COPY is not used: where it waits to write, it does not read, and a server full of notices then
waits for it for ever.
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
from backfill.client.execute import answer, checked, flushed
from backfill.storage.statements import render
from backfill.storage.types import Connection

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

PIECE_BYTES: Final = 1_000_000
UNDO_SECONDS: Final = 5.0
"""How long a stream that is undone waits for the server, before it asks that the statement be ended."""
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
        self._text = render(statement, schema).encode()
        self._open = False
        self._lock = AsyncExitStack()
        self._sending: asyncio.Task[None] | None = None
        # Of its own: the loop's threads may all be waiting for this very call.
        self._packer = ThreadPoolExecutor(1, "backfill-copy")

    async def write(self, prefixes: Sequence[bytes], payloads: Sequence[bytes], ids: Sequence[int] | None) -> None:
        """Send rows of jobs, as `send` does."""
        await self.send(partial(copy_rows, prefixes, payloads, ids), len(payloads))

    async def send(self, pack: Callable[..., bytes], rows: int) -> None:
        """Send rows, as soon as those before them are with the server or its socket.

        It returns while these are on their way.

        Args:
            pack: gives them in COPY's binary format; `begin` says whether the stream's header comes first.
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

    async def _begin(self) -> None:
        await self._lock.enter_async_context(self._connection.lock)  # nobody else's statement may come between
        self._connection.pgconn.send_query(self._text)
        self._open = True  # even if nobody waits for the answer to its end
        checked(self._connection, await self._connection.wait(answer(self._connection.pgconn)))

    async def _undo(self, error: BaseException) -> None:
        sending, self._sending = self._sending, None
        try:
            if sending is not None:
                # A cancellation waits for no server. An error may, for what is on its way, but not for long.
                patience = UNDO_SECONDS if isinstance(error, Exception) else 0.0
                await asyncio.wait([sending], timeout=patience)
                sending.cancel()  # the driver then asks the server to end it, and gives the connection up in the end
                await asyncio.wait([sending])
                if not sending.cancelled():
                    sending.exception()  # looked at, since the first error is the one to tell
            if self._open:
                # The server's word that it is undone, or that there was nothing to undo.
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


def _put(pgconn: PGconn, piece: memoryview) -> PQGen[None]:
    while pgconn.put_copy_data(piece) == 0:
        yield from flushed(pgconn)
    # libpq would take any amount into its own memory: what it holds is handed on before the next piece
    yield from flushed(pgconn)


def _ended(pgconn: PGconn, error: bytes | None) -> PQGen[PGresult]:
    while pgconn.put_copy_end(error) == 0:
        yield from flushed(pgconn)
    return (yield from answer(pgconn))
