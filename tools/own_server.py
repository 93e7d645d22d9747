"""PostgreSQL as this machine has it installed, started in a temporary folder for as long as a test run needs it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

SETTINGS = ("fsync=off", "max_connections=300", "listen_addresses=127.0.0.1", "unix_socket_directories=")


def binaries() -> Path | None:
    """The folder of the newest installed server's programs, or None where there is no server."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if debian:
        return debian[-1].parent
    for program in ("initdb", "pg_ctl"):
        found = shutil.which(program)
        if found:
            return Path(found).resolve().parent
    return None


@contextlib.contextmanager
def own_server(*settings: str) -> Iterator[str]:
    """Start the machine's own server, with these settings too, and give its DSN; stopped and removed at the end."""
    folder = binaries()
    if folder is None:
        raise SystemExit("no PostgreSQL server is installed (looked in /usr/lib/postgresql and on PATH)")
    with tempfile.TemporaryDirectory(prefix="backfill-server-") as temporary:
        data = Path(temporary) / "data"
        user = _server_user(Path(temporary))
        port = _free_port()
        _run(user, folder / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = " ".join(f"-c {setting}" for setting in (*SETTINGS, *settings, f"port={port}"))
        _run(user, folder / "pg_ctl", "-D", data, "-l", data / "log", "-o", options, "-w", "start")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            _run(user, folder / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def _server_user(folder: Path) -> str | None:
    """The account that the server runs as: PostgreSQL refuses root."""
    if os.name != "posix" or os.geteuid() != 0:
        return None
    account = pwd.getpwnam("postgres")
    os.chown(folder, account.pw_uid, account.pw_gid)
    return "postgres"


def _run(user: str | None, *command: object) -> None:
    done = subprocess.run(
        [str(part) for part in command], user=user, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {done.returncode}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
