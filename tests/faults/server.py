"""A server that may be restarted, gently or not, where it was.

It does not call fsync, and yet no restart loses what was committed: only a crash of the machine could.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import psutil

from backfill.embedded import EmbeddedPostgres


class Server:
    """PostgreSQL from the embedded wheel.

    Args:
        folder: where it is.
        max_connections: how many connections it takes.
    """

    def __init__(self, folder: Path, *, max_connections: int) -> None:
        self._server = EmbeddedPostgres(folder, max_connections=max_connections)
        self._server.start()
        self.folder = folder
        self.dsn = self._server.dsn
        self.socket = str(folder / "run" / ".s.PGSQL.5432")
        self._changing = asyncio.Lock()

    @property
    def is_changing(self) -> bool:
        """Whether it is being restarted just now."""
        return self._changing.locked()

    async def restart(self, *, immediate: bool) -> None:
        """Stop it, as a shutdown or as a crash would, and start it again."""
        async with self._changing:
            if immediate:
                await asyncio.to_thread(self._crash)
            await asyncio.to_thread(self._server.stop)
            await asyncio.to_thread(self._server.start)
            assert self._server.dsn == self.dsn

    def stop(self) -> None:
        """Stop it for good."""
        self._server.stop()

    def _crash(self) -> None:
        lines = (self._server.folder / "data" / "postmaster.pid").read_text().splitlines()
        process = psutil.Process(int(lines[0]))
        process.send_signal(signal.SIGQUIT)
        with contextlib.suppress(psutil.Error):
            while process.status() != psutil.STATUS_ZOMBIE:  # its parent is the server's keeper, which does not look
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(0.02)
