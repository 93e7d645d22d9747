"""A network that can be paused and cut.

A port of 127.0.0.1 that forwards to the server's socket, in this process's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK = 65536


class Proxy:
    """One way to the server.

    Args:
        target: the server's Unix socket.

    Attributes:
        port: on which it listens.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._is_listening = False
        self._pairs: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self.port = 0

    @property
    def dsn(self) -> str:
        """By which the database is reached through it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def pause(self) -> None:
        """Forward nothing; what is sent meanwhile waits, and new connections are taken and wait too."""
        self._flowing.clear()

    def go_on(self) -> None:
        """Forward again."""
        self._flowing.set()

    def cut(self) -> int:
        """Cut all connections, as a reset does: neither side is told why; how many they were."""
        pairs = list(self._pairs.values())
        for pair in pairs:
            for writer in pair:
                writer.transport.abort()
        return len(pairs)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Proxy]:
        """Forward until the block ends."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._is_listening = True
        try:
            yield self
        finally:
            self.go_on()
            server.close()
            self._is_listening = False
            tasks = list(self._pairs)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs[task] = (writer,)
        try:
            if not self._is_listening:  # accepted in the moment in which the block ended
                return
            await self._flowing.wait()
            other_reader, other_writer = await asyncio.open_unix_connection(self._target)
            self._pairs[task] = (writer, other_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, other_writer))
                group.create_task(self._forward(other_reader, writer))
        except OSError:
            pass  # the server is away
        except asyncio.CancelledError:
            pass  # the end of the test
        finally:
            for one in self._pairs.pop(task):
                one.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        # Either side's end ends the other; PostgreSQL knows no half-closed connection.
        writer.transport.abort() if writer.transport.is_closing() else writer.close()
