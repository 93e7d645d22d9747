"""The demo's course: PostgreSQL, schema, backlog, workers, stream and summary; it can end at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backfill.cli.common import ExitCode
from backfill.cli.demo.board import Board
from backfill.cli.demo.fleet import Fleet
from backfill.cli.demo.producer import fill, stream
from backfill.cli.demo.view import View
from backfill.client import BackfillClient
from backfill.embedded import EmbeddedPostgres

_CONNECTIONS_A_WORKER: Final = 15
_CONNECTIONS_BESIDE: Final = 40
_REFRESH_SECONDS: Final = 0.2
_TAIL_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Options:
    """The options of the demo's command.

    Attributes:
        seconds: how long the stream lasts; None means until Ctrl-C.
        jobs: how many jobs of one priority the backlog has.
        each: how many further jobs of each priority the backlog has.
        workers: how many worker processes there are.
        concurrency: how many jobs each process runs at once.
        rate: how many new jobs the stream has per second.
    """

    seconds: float | None
    jobs: int
    each: int
    workers: int
    concurrency: int
    rate: float


class Show:
    """One performance of the demo."""

    def __init__(self, options: Options, board: Board, view: View) -> None:
        self._options = options
        self._board = board
        self._view = view
        self._stop = asyncio.Event()
        self._working = False
        self._signals = 0

    async def run(self) -> ExitCode:
        """Run the demo; Ctrl-C ends it, with the summary if workers have begun on the backlog, else at once."""
        performance = asyncio.ensure_future(self._perform())
        self._install(performance)
        refreshing = asyncio.ensure_future(self._refresh())
        try:
            with self._view:
                await performance
        except asyncio.CancelledError:
            if not self._signals:
                raise
            self._view.say("Interrupted: everything is stopped and removed.")
            return ExitCode.INTERRUPTED
        finally:
            refreshing.cancel()
        self._view.summary()
        return ExitCode.OK

    async def _perform(self) -> None:
        options, board = self._options, self._board
        board.step = "starting a PostgreSQL of its own"
        self._view.step()
        server = EmbeddedPostgres(max_connections=options.workers * _CONNECTIONS_A_WORKER + _CONNECTIONS_BESIDE)
        async with server:
            board.step = "migrating the schema"
            self._view.step()
            async with BackfillClient(server.dsn, migrate=True) as client:
                self._tell_where(server.dsn)
                board.step = f"enqueuing {board.expected:,} jobs in bulk"
                self._view.step()
                await fill(client, board, jobs=options.jobs, each=options.each)
                board.enqueued = board.expected
                await self._work(client, server)
            board.step = "stopping PostgreSQL and removing its folder"
            self._view.step()

    async def _work(self, client: BackfillClient, server: EmbeddedPostgres) -> None:
        options, board = self._options, self._board
        board.step = f"running the backlog in {options.workers} worker processes"
        self._view.step()
        self._working = True
        if self._stop.is_set():
            return
        fleet = Fleet(
            server.dsn, board, size=options.workers, concurrency=options.concurrency, folder=_scratch(server.folder)
        )
        async with fleet:
            await self._until(fleet, lambda: board.finished_backlog)
            if not self._stop.is_set() and options.seconds != 0:
                await self._stream(client, fleet)
            board.step = "stopping the workers"
            self._view.step()

    async def _stream(self, client: BackfillClient, fleet: Fleet) -> None:
        options, board = self._options, self._board
        ends = "until Ctrl-C" if options.seconds is None else f"for {options.seconds:g} s"
        board.step = f"streaming {options.rate:g} new jobs a second, {ends}"
        self._view.step()
        feeding = asyncio.ensure_future(stream(client, board, rate=options.rate, until=self._stop))
        try:
            async with _at_most(options.seconds):
                await self._until(fleet, feeding.done)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        if not feeding.cancelled():
            feeding.result()
        if not self._stop.is_set():
            async with _at_most(_TAIL_SECONDS):  # the stream's last retries
                await self._until(fleet, lambda: board.finished_stream)

    async def _until(self, fleet: Fleet, reached: Any) -> None:
        """Wait until `reached` is true or a signal has come; raise an error if a worker process ends by itself."""
        while not reached() and not self._stop.is_set():
            if fleet.failure is not None:
                raise fleet.failure
            changes = [asyncio.ensure_future(event.wait()) for event in (fleet.changed, self._stop)]
            try:
                await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for change in changes:
                    change.cancel()
            fleet.changed.clear()

    async def _refresh(self) -> None:
        while True:
            self._view.refresh()
            await asyncio.sleep(_REFRESH_SECONDS)

    def _install(self, performance: asyncio.Task[None]) -> None:
        def on_signal() -> None:
            self._signals += 1
            self._stop.set()
            if self._signals > 1 or not self._working:
                performance.cancel()

        loop = asyncio.get_running_loop()
        if sys.platform == "win32":
            signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(on_signal))
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, on_signal)

    def _tell_where(self, dsn: str) -> None:
        self._view.say("PostgreSQL runs for this demo alone:")
        self._view.say(f"  {dsn}")
        self._view.say("Enqueue a job from another terminal:")
        payload = '{"name": "you"}'
        words = [*_this_command(), "enqueue", "demo.hello", payload, "--priority", "-20", "--dsn", dsn]
        self._view.say(f"  {shlex.join(words)}")


@contextlib.asynccontextmanager
async def _at_most(seconds: float | None) -> AsyncIterator[None]:
    """End the block inside without an error when the time is up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            yield


def _scratch(folder: Path) -> Path:
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    return logs


def _this_command() -> list[str]:
    """The command that runs this shell from any folder."""
    script = Path(sys.executable).with_name("backfill")
    return [str(script)] if script.exists() else [sys.executable, "-m", "backfill"]
