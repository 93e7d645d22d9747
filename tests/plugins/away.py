"""A server of a test's own, that can be stopped, killed and started again where it was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from backfill.embedded import EmbeddedPostgres, _install_folder

from programs import own_temp_folder

MakeServer = Callable[..., "OwnServer"]


class OwnServer:
    """PostgreSQL from the embedded wheel.

    Args:
        folder: where it is.
        settings: of the server.
        max_connections: how many connections it takes.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None, max_connections: int = 100) -> None:
        self._server = EmbeddedPostgres(folder, settings=settings, max_connections=max_connections)
        self._server.start()
        self.dsn = self._server.dsn
        self.folder = folder
        self.socket_folder = str(folder / "run")
        self.socket = f"{self.socket_folder}/.s.PGSQL.5432"

    async def stop(self) -> None:
        """End it as an operator would: connections are ended, and told why."""
        await asyncio.to_thread(self._server.stop)

    async def kill(self) -> None:
        """End it as a crash would."""
        lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        process = psutil.Process(int(lines[0]))
        process.send_signal(signal.SIGQUIT)
        await asyncio.to_thread(_wait_for, process)
        await self.stop()

    async def start(self) -> None:
        """Start it again."""
        await asyncio.to_thread(self._server.start)
        assert self._server.dsn == self.dsn

    def end(self) -> None:
        """Stop it for good."""
        self._server.stop()


def copy_as_standby(primary: OwnServer, folder: Path) -> None:
    """Make the data of a standby by the name of `standby`, owned as the primary's are."""
    data = folder / "data"
    folder.mkdir()
    where = f"host={primary.socket_folder} port=5432 user=postgres application_name=standby"
    program = _install_folder() / "bin" / "pg_basebackup"
    subprocess.run([program, "-d", where, "-D", data, "-R", "-c", "fast"], check=True, timeout=60)
    owner = (primary.folder / "data").stat()
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)


def _wait_for(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        while process.status() != psutil.STATUS_ZOMBIE:  # its parent is the server's keeper, which does not look
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(0.02)


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """Makes servers that are gone after the test."""
    with ExitStack() as stack:
        folder = stack.enter_context(own_temp_folder())
        made: list[OwnServer] = []

        def make(**settings: object) -> OwnServer:
            made.append(OwnServer(folder / f"server{len(made)}", **settings))  # type: ignore[arg-type]
            stack.callback(made[-1].end)
            return made[-1]

        yield make


@pytest.fixture
def own_server(make_server: MakeServer) -> OwnServer:
    """One such server, as it is by default."""
    return make_server()
