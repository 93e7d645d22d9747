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
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Self

from backfill.cli.supervise.policies import Policies
from backfill.cli.supervise.report import REPORT_SECONDS, Report
from backfill.worker import WorkerRunner

logger = logging.getLogger("backfill.cli.supervise")

VARIABLE: Final = "BACKFILL_SUPERVISED_BY"
"""Holds the number of the socket's descriptor and the process's number in its fleet, such as `5:2`."""
_ROOM: Final = 2**20


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

    def tell(self) -> None:
        """Report now; the last time this is done, the supervisor learns how the worker ended."""
        with self._lock:
            try:
                # What is left of older lines goes first. Where the supervisor does not read, nothing is added to it.
                if len(self._unsent) < _ROOM:
                    self._unsent += self._report()
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

    def _serve(self) -> None:
        while not self._is_gone():
            self.tell()
        if self._is_stopping():
            return
        logger.warning("the supervisor is gone, so this worker stops")
        os.kill(os.getpid(), signal.SIGTERM)

    def _is_gone(self) -> bool:
        """Wait until it is time for the next report, and return whether the supervisor is gone."""
        looking = select.poll()
        looking.register(self._socket, select.POLLIN)
        if not looking.poll(REPORT_SECONDS * 1000):
            return False
        try:
            return not self._socket.recv(1024)
        except BlockingIOError:
            return False
        except OSError:
            return True
