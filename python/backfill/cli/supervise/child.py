"""One worker process, as its supervisor sees it: its start, its reports, its output, its signals and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from backfill.cli.signals import GAP_SECONDS
from backfill.cli.supervise.link import ASK, VARIABLE
from backfill.cli.supervise.output import Relay, to_stderr, to_stdout
from backfill.cli.supervise.policies import Policies
from backfill.cli.supervise.report import Report
from backfill.metrics.snapshot import Snapshot
from backfill.worker.liveness.places import Place

LAST_LINES_SECONDS: Final = 0.2
"""How long the output of a process that has ended may take to come to its end.

What the process has written is in the pipes, and is read at once. Only a program that it has started, and that still
runs, can hold them open. The dead process's jobs and its successor do not wait for that program.
"""
BETWEEN_SIGNALS: Final = 1.2 * GAP_SECONDS
"""How many seconds lie between two signals, so that the worker counts both."""


def own_command(arguments: Sequence[str]) -> list[str]:
    """A command line that runs this program anew, by the same interpreter with the same options.

    Args:
        arguments: what follows the program's name, such as `worker app.jobs:tasks`.
    """
    given = len(sys.argv) - 1
    program = sys.orig_argv[1 : len(sys.orig_argv) - given]
    if not program or sys.orig_argv[len(sys.orig_argv) - given :] != sys.argv[1:]:
        program = ["-m", "backfill"]
    return [sys.executable, *program, *arguments]


class WorkerChild:
    """A worker process.

    It gets neither this process's input nor its signals from a terminal: it is in a session of its own.

    Args:
        number: its number in the fleet, from 1 on.
        command: its command line; that of a `backfill worker`.
        changed: called after each report, and when the process has ended.
        prefix: stands before each line of its output.
        environment: its environment; this process's if not given.

    Attributes:
        number: its number in the fleet.
        pid: its process id, once it is started.
        began: when it was started, in monotonic seconds.
        report: its last report.
        reported: when that came, in monotonic seconds.
        told: called with its metrics when it has told them.
        policies: what its tasks say of jobs that are cut off, once it has told; None before.
        place: where it runs, by which others can tell for certain that it is gone; None where that cannot be told.
        ended: a future that gets its exit code, or the negative number of the signal that has killed it.
        stops: how often it was told to stop.
    """

    def __init__(
        self,
        number: int,
        command: Sequence[str],
        *,
        changed: Callable[[], None],
        prefix: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.number = number
        self.pid = 0
        self.began = self.reported = time.monotonic()
        self.report = Report()
        self.told: Callable[[Snapshot], None] = lambda _: None
        self._series: list[list[Any]] = []
        self.policies: Policies | None = None
        self.place: Place | None = None
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.stops = 0
        self._started = False
        self._command = command
        self._changed = changed
        self._environment = os.environ if environment is None else environment
        self._relays = [Relay(to_stdout, prefix), Relay(to_stderr, prefix)]
        self._reports = Relay(self._read)
        self._told = float("-inf")
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it.

        Raises:
            OSError: the system has no room for one more process, or for its descriptors.
        """
        loop = asyncio.get_running_loop()
        self.began = self.reported = time.monotonic()
        with contextlib.ExitStack() as stack:
            try:
                theirs = await self._socket(stack)
                ends = [await self._pipe(relay, stack) for relay in self._relays]
                # This waits until the new program runs, which takes some milliseconds.
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603 (see above; the command is our own)
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=ends[0],
                    stderr=ends[1],
                    env={**self._environment, VARIABLE: f"{theirs}:{self.number}"},
                    pass_fds=(theirs,),
                    start_new_session=True,
                )
            except BaseException:
                self._close()
                raise
        self.pid = self._process.pid
        self.place = Place.of(self.pid)  # before it is waited for, since its pid may be another's afterwards
        threading.Thread(
            target=self._wait, args=[self._process, loop], name=f"backfill-process-{self.number}", daemon=True
        ).start()

    @property
    def began_work(self) -> bool:
        """Whether its program is imported, and a worker begins; before that it can have no job."""
        return self.policies is not None

    @property
    def started(self) -> bool:
        """Whether its worker has said that it has started."""
        return self._started

    @property
    def seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self.began

    def stop(self) -> None:
        """Tell it to stop in good order, unless it was told so."""
        if self.stops < 1:
            self._tell(1)

    def hurry(self) -> None:
        """Tell it to interrupt what runs, unless it was told so."""
        if self.stops == 0:
            self._tell(1)
        if self.stops == 1:
            self.stops = 2
            pause = self._told + BETWEEN_SIGNALS - time.monotonic()
            asyncio.get_running_loop().call_later(max(pause, 0.0), self._tell, 2)

    def ask(self) -> None:
        """Ask for its metrics now."""
        if not self.ended.done():
            self._reports.send(ASK)

    def kill(self) -> None:
        """End it on the spot."""
        self._send(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait until it has ended and its last lines are passed on; return its exit code."""
        code = await asyncio.shield(self.ended)
        waiting = [asyncio.ensure_future(relay.ended.wait()) for relay in [*self._relays, self._reports]]
        try:
            await asyncio.wait(waiting, timeout=LAST_LINES_SECONDS)
        finally:
            for one in waiting:
                one.cancel()
            self._close()
        return code

    async def _socket(self, stack: contextlib.ExitStack) -> int:
        """Make the socket for the reports; the process's end of it is closed with the stack."""
        ours, theirs = socket.socketpair()
        stack.callback(theirs.close)
        try:
            ours.setblocking(False)
            await asyncio.get_running_loop().create_unix_connection(lambda: self._reports, sock=ours)
        except BaseException:
            ours.close()
            raise
        return theirs.fileno()

    async def _pipe(self, relay: Relay, stack: contextlib.ExitStack) -> int:
        """Make a pipe whose lines the relay passes on; its other end is closed with the stack."""
        reading, writing = os.pipe()
        stack.callback(os.close, writing)
        stream = os.fdopen(reading, "rb", buffering=0)
        try:
            await asyncio.get_running_loop().connect_read_pipe(lambda: relay, stream)
        except BaseException:
            stream.close()
            raise
        return writing

    def _close(self) -> None:
        for relay in [*self._relays, self._reports]:
            relay.close()

    def _wait(self, process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the end of the process, in a thread: this knows its exit code on every platform and event loop."""
        code = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            loop.call_soon_threadsafe(self._end, code)

    def _end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)
        self._changed()

    def _read(self, lines: bytes) -> None:
        for line in lines.splitlines():
            # The process may be killed while it writes a line, or be of another version, which says it otherwise.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                if "retry" in said:
                    self.policies = Policies.read(said)
                elif "series" in said:
                    self._read_metrics(said)
                else:
                    self.report = Report.read(said)
                    self._started = self._started or self.report.started
        self.reported = time.monotonic()
        self._changed()

    def _read_metrics(self, said: Mapping[str, Any]) -> None:
        """Take in a part of its metrics; they count once all parts are there."""
        if said["first"]:
            self._series = []
        self._series.append(said["series"])
        if said["last"]:
            series, self._series = self._series, []
            self.told(Snapshot.read(series))

    def _tell(self, count: int) -> None:
        self.stops = max(self.stops, count)
        self._told = time.monotonic()
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and not self.ended.done():
            self._process.send_signal(number)
