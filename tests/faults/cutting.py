"""A way to the server that is cut after a number of bytes, once a connection has begun its first window."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_CHUNK = 65536
_FIRST_WINDOW = b"begin isolation level"


class CuttingProxy:
    """A port of 127.0.0.1 that forwards to the server, and cuts a connection in the middle of what it forwards.

    Args:
        dsn: of the server.

    Attributes:
        dsn: by which the server is reached through it.
        cuts: how many connections it has cut.
    """

    def __init__(self, dsn: str) -> None:
        self._target = conninfo_to_dict(dsn)
        self._given = dsn
        self._left: dict[str, int] = {}
        self._tasks = set[asyncio.Task[Any]]()
        self.dsn = ""
        self.cuts = 0

    def cut_after(self, count: int, *, of: str) -> None:
        """Cut after so many more bytes of the `client` or the `server`."""
        self._left = {of: count}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[CuttingProxy]:
        """Forward until the block ends."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.dsn = make_conninfo(self._given, host="127.0.0.1", port=port, hostaddr=None, sslmode="disable")
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            host, port = str(self._target["host"]), int(self._target.get("port") or 5432)
            if host.startswith("/"):
                far_reader, far_writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            else:
                far_reader, far_writer = await asyncio.open_connection(host, port)
            writers.append(far_writer)
            begun = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward("client", reader, far_writer, begun))
                group.create_task(self._forward("server", far_reader, writer, begun))
        except* (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for one in writers:
                one.transport.abort()

    async def _forward(
        self, of: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begun: asyncio.Event
    ) -> None:
        while data := await reader.read(_CHUNK):
            if of == "client" and _FIRST_WINDOW in data:
                begun.set()
            left = self._left.get(of)
            if left is not None and begun.is_set():
                if len(data) > left:
                    self._left = {}
                    self.cuts += 1
                    writer.write(data[:left])
                    with contextlib.suppress(ConnectionError):
                        await writer.drain()
                    raise ConnectionAbortedError("cut")
                self._left[of] = left - len(data)
            writer.write(data)
            await writer.drain()
        raise ConnectionAbortedError("one side has closed")
