"""The demo's worker processes: starts ordinary `backfill worker` commands, reads their reports and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, cast

from backfill.cli.demo.board import Board
from backfill.cli.demo.tasks import REPORT_VARIABLE
from backfill.cli.options import VARIABLES
from backfill.cli.settings import without
from backfill.errors import BackfillError

_DRAIN_SECONDS: Final = 5
_KILL_SECONDS: Final = _DRAIN_SECONDS + 10.0
_LINE_LIMIT: Final = 1 << 20


class Fleet:
    """Worker processes in sessions of their own, so that Ctrl-C in the terminal reaches the demo alone.

    Args:
        dsn: the database.
        board: the board to which their reports are added.
        size: how many processes to start.
        concurrency: how many jobs each process runs at once.
        folder: the folder in which each process writes its log.
    """

    def __init__(self, dsn: str, board: Board, *, size: int, concurrency: int, folder: Path) -> None:
        self._dsn = dsn
        self._board = board
        self._size = size
        self._concurrency = concurrency
        self._folder = folder
        self._processes: list[asyncio.subprocess.Process] = []
        self._readers: list[asyncio.Task[None]] = []
        self._stopping = False
        self.changed = asyncio.Event()
        """This event is set at each report, and when a process ends."""
        self.failure: BackfillError | None = None
        """Why a process ended that should not have ended; None while all is well."""

    async def __aenter__(self) -> Self:
        """Start the processes."""
        try:
            for number in range(1, self._size + 1):
                await self._start(number)
        except BaseException:
            self._kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the processes drain; after an error, end them at once."""
        self._stopping = True
        try:
            if error is None:
                await self._drain()
        finally:
            self._kill()
            await asyncio.gather(*(process.wait() for process in self._processes), return_exceptions=True)

    async def _start(self, number: int) -> None:
        log = self._folder / f"worker-{number}.log"
        arguments = ["-P", "-m", "backfill", "worker", "backfill.cli.demo.tasks:tasks"]
        arguments += ["--concurrency", str(self._concurrency), "--shutdown-timeout", f"{_DRAIN_SECONDS}s"]
        with _opened(log) as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                "--log-level=error",  # failures on purpose are logged as warnings
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                cwd=self._folder,
                env={**without(os.environ, VARIABLES), "DATABASE_URL": self._dsn, REPORT_VARIABLE: "1"},
                start_new_session=True,
                limit=_LINE_LIMIT,
            )
        self._processes.append(process)
        self._readers.append(asyncio.ensure_future(self._read(number, process, log)))

    async def _read(self, number: int, process: asyncio.subprocess.Process, log: Path) -> None:
        async for line in cast("asyncio.StreamReader", process.stdout):  # a pipe, as _start asked for
            report: dict[str, Any] | None = json.loads(line) if line.strip() else None
            if report is not None:
                self._board.add(report)
            self.changed.set()
        code = await process.wait()
        if not self._stopping:
            self.failure = BackfillError(f"worker process {number} ended with exit code {code}: {_last_line(log)}")
        self.changed.set()

    async def _drain(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        if self._readers:
            await asyncio.wait(self._readers, timeout=_KILL_SECONDS)

    def _kill(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for reader in self._readers:
            reader.cancel()


def _opened(log: Path) -> IO[bytes]:
    return open(log, "wb")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"
