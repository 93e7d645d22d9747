"""The keeper of one embedded PostgreSQL: a small process that starts the server and ends it in every case.

embedded.py runs this file as a script in a session of its own, with only the standard library. Its standard input is a
pipe from the program that wants the server. A byte on the pipe, or the end of the pipe (when that program was killed),
makes the keeper stop the server and remove what was temporary. Its standard output carries one line of JSON:
`{"ready": ...}` or `{"error": ...}`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypedDict

WINDOWS: Final = sys.platform == "win32"
SOCKET_PATH_LIMIT: Final = 103
PORT: Final = 5432
INITDB_SECONDS: Final = 120.0
READY_SECONDS: Final = 60.0
LOCK_SECONDS: Final = 20.0
GLANCE_SECONDS: Final = 0.02
REMOVE_SECONDS: Final = 20.0
LOG_TAIL_LINES: Final = 8
_PR_SET_PDEATHSIG: Final = 1


class KeeperError(Exception):
    """The server could not be set up, started or stopped; the text says why."""


class NotWantedError(Exception):
    """The program that wanted the server has ended, or has asked the keeper to end."""


class _Identity(TypedDict, total=False):
    """How a child process starts: keyword arguments of `subprocess.Popen`."""

    process_group: int
    preexec_fn: Callable[[], None] | None
    user: int
    group: int | None
    extra_groups: list[int]


class ServerProcess:
    """One server: its folders, its processes, and their end.

    Args:
        config: what embedded.py decided, under the keys install, uid, gid, folder, temp, settings and durable.
        stop: set when the server is no longer wanted.
    """

    def __init__(self, config: dict[str, Any], stop: threading.Event) -> None:
        self.install = Path(config["install"])
        self.uid: int | None = config["uid"]
        self.gid: int | None = config["gid"]
        self.settings: dict[str, str] = config["settings"]
        self.durable: bool = config["durable"]
        self.folder = Path(config["folder"]) if config["folder"] else None
        self.temp_base: str = config["temp"]
        self.temp: Path | None = None
        self.stop = stop
        self.children: list[subprocess.Popen[bytes]] = []
        self.server: subprocess.Popen[bytes] | None = None
        self.exclusive: Any = None

    def prepare(self) -> None:
        """Make the folders, lock a given one, and make sure that the server's user can reach the binaries."""
        if self.folder is None:
            self.folder = self._temporary()
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take(self.folder)
        if not self._reachable(self.folder):
            raise KeeperError(
                f"folder {str(self.folder)!r}: the user that PostgreSQL runs as (uid {self.uid}) cannot reach it"
            )
        if not self._reachable(self.install / "bin" / "postgres"):
            self.install = self._copied_install()
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.run = self.folder / "run"
        if len(os.fsencode(self.run / f".s.PGSQL.{PORT}")) > SOCKET_PATH_LIMIT:
            self.run = self._temporary() / "run"
        self._own(self.run)

    def initialise(self) -> None:
        """Make the cluster if there is none; its folder gets its final name only when it is complete."""
        if (self.data / "PG_VERSION").exists():
            return
        fresh = self.data.with_name("data.new")
        shutil.rmtree(fresh, ignore_errors=True)
        self._own(fresh)
        command = [self._binary("initdb"), "-D", str(fresh), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
        command += ["--locale=C", "--no-instructions"] + ([] if self.durable else ["--no-sync"])
        initdb = self._spawn(command)
        if self._finished(initdb, INITDB_SECONDS) != 0:
            raise KeeperError(f"initdb failed: {self._log_tail()}")
        fresh.rename(self.data)

    def start(self) -> dict[str, Any]:
        """Start the server, wait until it takes connections, and return where it can be reached."""
        if (self.data / "postmaster.pid").exists():  # end a server whose keeper was killed, before we take its place
            self._finished(self._spawn([self._binary("pg_ctl"), "stop", "-D", str(self.data), "-m", "fast"]), 60.0)
        port = _free_port() if WINDOWS else PORT
        where = {"listen_addresses": "127.0.0.1" if WINDOWS else "", "port": str(port)}
        if not WINDOWS:
            where["unix_socket_directories"] = str(self.run).replace("'", "''")
        command = [self._binary("postgres"), "-D", str(self.data)]
        for name, value in {**self.settings, **where}.items():
            command += ["-c", f"{name}={value}"]
        self.server = self._spawn(command)
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready(self.server.pid):
            if self.server.poll() is not None:
                raise KeeperError(f"PostgreSQL ended at its start: {self._log_tail()}")
            if time.monotonic() > deadline:
                raise KeeperError(f"PostgreSQL was not ready after {READY_SECONDS:.0f} s: {self._log_tail()}")
            self._glance()
        return {"host": "127.0.0.1" if WINDOWS else str(self.run), "port": port, "folder": str(self.folder)}

    def end(self) -> None:
        """Stop all processes that run and remove what is temporary."""
        for child in self.children:
            if child is not self.server and child.poll() is None:
                _kill_group(child)
        if self.server is not None and self.server.poll() is None:
            self._end_server(self.server)
        if self.temp is not None:
            _remove(self.temp)
        if self.exclusive is not None:
            self.exclusive.close()

    def _end_server(self, server: subprocess.Popen[bytes]) -> None:
        if WINDOWS:
            self._finished(self._spawn([self._binary("pg_ctl"), "stop", "-D", str(self.data), "-m", "fast"]), None)
            return
        throwaway = self.temp is not None and self.temp in self.data.parents
        first = signal.SIGQUIT if throwaway else signal.SIGINT  # a folder that is deleted next needs no checkpoint
        for number, patience in ((first, 20.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
            server.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(patience)
                return

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
        with open(self.log, "ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.run,
                env={**environment, "LC_ALL": "C"},
                **self._identity(),
            )
        self.children.append(child)
        return child

    def _identity(self) -> _Identity:
        """How a child starts: in its own process group, as the server's user, and so that it ends if we are killed."""
        if WINDOWS:
            return {}
        options: _Identity = {"process_group": 0, "preexec_fn": _end_with_parent()}
        if self.uid is not None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def _finished(self, child: subprocess.Popen[bytes], seconds: float | None) -> int:
        deadline = time.monotonic() + (seconds or READY_SECONDS)
        while child.poll() is None:
            if time.monotonic() > deadline:
                program = Path(str(child.args[0])).name  # type: ignore[index]
                raise KeeperError(f"{program} took longer than {seconds} s")
            if seconds is None:
                time.sleep(GLANCE_SECONDS)
            else:
                self._glance()
        return child.returncode

    def _glance(self) -> None:
        if self.stop.wait(GLANCE_SECONDS):
            raise NotWantedError

    def _take(self, folder: Path) -> None:
        if WINDOWS:
            return
        import fcntl

        self.exclusive = open(folder / "lock", "a")  # noqa: SIM115 (held until the end)
        deadline = time.monotonic() + LOCK_SECONDS  # the last owner may still be shutting down
        while True:
            try:
                fcntl.flock(self.exclusive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise KeeperError(f"folder {str(folder)!r} is in use by another embedded PostgreSQL") from None
            self._glance()

    def _temporary(self) -> Path:
        if self.temp is None:
            base = self.temp_base if self._reachable(Path(self.temp_base) / "x") else "/tmp"
            self.temp = Path(tempfile.mkdtemp(prefix="backfill-", dir=base)).resolve()
            if self.uid is not None:
                os.chown(self.temp, self.uid, self.gid or 0)
        return self.temp

    def _own(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.uid is not None:
            os.chown(folder, self.uid, self.gid or 0)

    def _copied_install(self) -> Path:
        """Copy the binaries to where the server's user can read them, so that no folder needs wider permissions."""
        site = self._temporary() / "site"
        package = self.install.parent
        copy = site / package.name / self.install.name
        shutil.copytree(self.install, copy, symlinks=True, ignore=_not_needed)
        shared = package.with_name(f"{package.name}.libs")  # where wheels keep the libraries that they bring along
        if shared.exists():
            shutil.copytree(shared, site / shared.name)
        return copy

    def _reachable(self, path: Path) -> bool:
        """Whether the server's user may go through all folders above the path."""
        return self.uid is None or all(_passable(parent, self.uid, self.gid) for parent in path.absolute().parents)

    def _binary(self, name: str) -> str:
        return str(self.install / "bin" / (f"{name}.exe" if WINDOWS else name))

    def _log_tail(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "it wrote no log"
        return " / ".join(line.strip() for line in lines[-LOG_TAIL_LINES:] if line.strip()) or "its log is empty"


def _not_needed(folder: str, names: list[str]) -> list[str]:
    """The files in one folder of the installation that a running server does not need."""
    if Path(folder).name == "bin":
        return [name for name in names if name.split(".")[0] not in ("postgres", "initdb", "pg_ctl")]
    return [name for name in names if name in ("include", "pkgconfig") or name.endswith(".a")]


def _passable(folder: Path, uid: int, gid: int | None) -> bool:
    status = folder.stat()
    if status.st_uid == uid:
        return bool(status.st_mode & 0o100)
    return bool(status.st_mode & (0o010 if status.st_gid == gid else 0o001))


def _end_with_parent() -> Callable[[], None] | None:
    """A function that makes Linux end the child when we are killed; None on other systems.

    There the next start in the same folder ends the child.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    quit_signal = int(signal.SIGQUIT)

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, quit_signal, 0, 0, 0)

    return ask


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if WINDOWS:
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _remove(folder: Path) -> None:
    """Remove a folder with all that is in it.

    A killed process may still end a write that it had begun, and so put a file into the folder while we empty it. On a
    machine with a slow disk that takes seconds, so we try again until the folder is gone, but not for ever.
    """
    deadline = time.monotonic() + REMOVE_SECONDS
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists() or time.monotonic() > deadline:
            return
        time.sleep(GLANCE_SECONDS)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _wanted() -> Iterator[threading.Event]:
    """An event that is set when standard input ends or carries a byte, or at SIGTERM; other signals are ignored."""
    stop = threading.Event()

    def watch() -> None:
        os.read(0, 1)
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    # Handlers, not SIG_IGN, which children would inherit: an early SIGINT must end a server that is just starting.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if not WINDOWS:
        signal.signal(signal.SIGHUP, lambda *_: None)
    yield stop


def _tell(answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # nobody reads it any more; then standard input has ended too
        os.write(1, json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Keep one server until it is no longer wanted."""
    with _wanted() as stop:
        keeper = ServerProcess(json.loads(sys.argv[1]), stop)
        try:
            keeper.prepare()
            keeper.initialise()
            _tell({"ready": keeper.start()})
            stop.wait()
        except NotWantedError:
            pass
        except KeeperError as error:
            _tell({"error": str(error)})
        except Exception as error:  # noqa: BLE001 (whoever waits for our line must learn of any error)
            _tell({"error": f"{type(error).__name__}: {error}"})
        finally:
            keeper.end()


if __name__ == "__main__":
    main()
