"""A server that may be restarted, gently or not, where it was.

It does not call fsync, and yet no restart loses what was committed: only a crash of the machine could.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from plugins.away import OwnServer


class Server(OwnServer):
    """PostgreSQL from the embedded wheel, of which one restart is under way at a time.

    Args:
        folder: where it is.
        max_connections: how many connections it takes.
    """

    def __init__(self, folder: Path, *, max_connections: int) -> None:
        super().__init__(folder, max_connections=max_connections)
        self._changing = asyncio.Lock()

    @property
    def is_changing(self) -> bool:
        """Whether it is being restarted just now."""
        return self._changing.locked()

    async def restart(self, *, immediate: bool) -> None:
        """Stop it, as a shutdown or as a crash would, and start it again."""
        async with self._changing:
            await (self.kill() if immediate else self.stop())
            await self.start()
