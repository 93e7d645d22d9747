"""PgBouncer in transaction mode before a server that faults strike: on a Unix socket, and restarted where it was."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import Process
from pathlib import Path
from typing import Final, Self

from plugins.periods import let_pass
from plugins.pooler import pooler_program, pooler_user
from plugins.waiting import wait_until

_SETTINGS: Final = """
[databases]
* = host='{host}' port=5432 user='postgres'

[pgbouncer]
unix_socket_dir = {folder}
listen_port = 5432
pidfile = {folder}/pid
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
server_round_robin = 1
server_login_retry = 1
log_connections = 0
log_disconnections = 0
"""
"""It looks for the server again after a second, not after 15: faults come faster than that."""


class Bouncer:
    """One pooler, for the time of a block.

    Args:
        folder: for its socket, settings and log.
        server: the folder of the server's socket.
        size: how many sessions of the server it lends out.

    Attributes:
        socket: on which it listens.
    """

    def __init__(self, folder: Path, server: Path, *, size: int) -> None:
        folder.mkdir(mode=0o755)
        self._folder = folder
        self._settings = folder / "pgbouncer.ini"
        self._settings.write_text(_SETTINGS.format(host=server, folder=folder, size=size))
        self._user = pooler_user(str(server / ".s.PGSQL.5432"))
        if self._user is not None:
            os.chown(folder, self._user, -1)
            os.chown(self._settings, self._user, -1)
        self.socket = str(folder / ".s.PGSQL.5432")
        self._process: Process | None = None
        self._changing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Start it."""
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill it."""
        await self._stop(kill=True)

    @property
    def is_changing(self) -> bool:
        """Whether it is being restarted just now."""
        return self._changing.locked()

    @property
    def log(self) -> str:
        """What it has said."""
        return (self._folder / "log").read_text()

    async def restart(self, *, kill: bool, away: float) -> None:
        """End it, at once or by a crash, and start it again.

        Args:
            kill: whether it is killed (SIGKILL); else it is told to end, which drops its connections too.
            away: for so many seconds.
        """
        async with self._changing:
            await self._stop(kill=kill)
            await let_pass(away)
            await self._start()

    async def _start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            process = self._process = await asyncio.create_subprocess_exec(
                pooler_program(),
                str(self._settings),
                stdout=log,
                stderr=log,
                user=self._user,
                extra_groups=None if self._user is None else [],
            )
        await wait_until(self._answers, timeout=20)
        assert process.returncode is None, self.log

    async def _stop(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill() if kill else process.terminate()
            await process.wait()

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(self.socket)
            writer.close()
            return True
        return False
