"""A worker process's side of the socket to its supervisor: it reports there, and notices when the supervisor is gone.

The supervisor names the socket by a variable of the environment, which is taken out of the environment at once, so that
no program that a handler starts inherits it.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Self

import orjson

from backfill.cli.supervise.policies import Policies
from backfill.cli.supervise.report import REPORT_SECONDS, Report
from backfill.metrics.books import process_metrics
from backfill.worker import WorkerRunner

logger = logging.getLogger("backfill.cli.supervise")

VARIABLE: Final = "BACKFILL_SUPERVISED_BY"
"""Holds the number of the socket's descriptor and the process's number in its fleet, such as `5:2`."""
ASK: Final = b"m"
"""Asks a worker process for its metrics."""
METRICS_SECONDS: Final = 2.0
"""How often a worker process tells its metrics unasked, where they are wanted."""
LAST_SECONDS: Final = 1.0
"""How long the last words of a worker process may take to be taken."""
_ROOM: Final = 2**20
_SERIES_A_LINE: Final = 40
"""The supervisor cuts lines of over 64 kB."""


class Link:
    """The socket to the supervisor.

    Args:
        ours: the socket.
        number: this process's number in its fleet, from 1 on.

    Attributes:
        number: this process's number in its fleet.
    """

    def __init__(self, ours: socket.socket, number: int) -> None:
        self.number = number
        self._watch: Callable[[], Report] = Report
        self._is_stopping: Callable[[], bool] = lambda: False
        self._socket = ours
        self._unsent = b""
        self._asked = False
        self._told_metrics = float("-inf")
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="backfill-supervised", daemon=True)

    @classmethod
    def found(cls) -> Self | None:
        """The link to the supervisor that has started this process; None where none has."""
        text = os.environ.pop(VARIABLE, "")
        if not text or sys.platform == "win32":
            return None
        descriptor, _, number = text.partition(":")
        os.set_inheritable(int(descriptor), False)
        ours = socket.socket(fileno=int(descriptor))
        ours.setblocking(False)
        return cls(ours, int(number))

    def start(self) -> None:
        """Report from now on."""
        self._thread.start()

    def attend(self, runner: WorkerRunner, *, is_stopping: Callable[[], bool]) -> None:
        """Report how a worker fares, and tell first what its tasks say of jobs that are cut off.

        Args:
            runner: the worker.
            is_stopping: returns whether it was told to stop; called in a thread.
        """
        self._is_stopping = is_stopping
        self._watch = lambda: Report(runner.health(), runner.tally, runner.left)
        with self._lock:
            self._unsent += Policies.of(runner.registry).line()
        self.tell()

    def tell_last(self) -> None:
        """Report how the worker ended, with all that it has counted; blocks for a moment."""
        self._asked = True
        self.tell()
        until, looking = time.monotonic() + LAST_SECONDS, select.poll()
        looking.register(self._socket, select.POLLOUT)
        while self._unsent and (left := until - time.monotonic()) > 0 and looking.poll(left * 1000):
            self._send()

    def tell(self) -> None:
        """Report now."""
        self._send(said=True)

    def _send(self, *, said: bool = False) -> None:
        with self._lock:
            try:
                # What is left of older lines goes first. Where the supervisor does not read, nothing is added to it.
                if said and len(self._unsent) < _ROOM:
                    self._unsent += self._report() + self._metrics()
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            except BlockingIOError:
                pass
            except OSError:
                self._unsent = b""  # the supervisor is gone, which the thread notices
            except Exception:
                logger.exception("the supervisor cannot be told how this worker fares")
                self._unsent = b""

    def _report(self) -> bytes:
        # Imported here, since it needs a module that Windows lacks, where there is no link.
        from backfill.worker.processes.resident import resident_bytes

        return replace(self._watch(), rss=resident_bytes()).line()

    def _metrics(self) -> bytes:
        """The metrics as lines, where they are wanted and it is time to tell them."""
        books, now = process_metrics(), time.monotonic()
        if not books.wanted or not (self._asked or now >= self._told_metrics + METRICS_SECONDS):
            return b""
        asked, self._asked, self._told_metrics = self._asked, False, now
        parts = list(books.snapshot(asked=asked).parts(_SERIES_A_LINE))
        lines = [
            orjson.dumps({"series": part, "first": place == 0, "last": place == len(parts) - 1}) + b"\n"
            for place, part in enumerate(parts)
        ]
        return b"".join(lines)

    def _serve(self) -> None:
        while not self._is_gone():
            self.tell()
        if self._is_stopping():
            return
        logger.warning("the supervisor is gone, so this worker stops")
        os.kill(os.getpid(), signal.SIGTERM)

    def _is_gone(self) -> bool:
        """Wait until it is time for the next report, and return whether the supervisor is gone.

        What is left of older lines is sent meanwhile, as soon as there is room: metrics may be larger than what the
        socket holds, and somebody waits for them.
        """
        until, looking = time.monotonic() + REPORT_SECONDS, select.poll()
        while True:
            looking.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            if not (found := looking.poll(max(until - time.monotonic(), 0.0) * 1000)):
                return False
            if found[0][1] != select.POLLOUT:
                break
            self._send()
        try:
            said = self._socket.recv(1024)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self._asked = self._asked or ASK in said
        return not said
