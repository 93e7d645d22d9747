"""Standard streams that nobody reads: a worker neither waits for their readers nor ends by them.

A pipe whose reader has stopped reading blocks whoever prints, and on the event loop that is the whole worker. One whose reader
is gone makes each print an error. So a worker's prints and logs go out at once where there is room, wait in memory where there
is none, and are dropped, and counted, where too much waits or nobody is there to read.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from typing import Any, Final, TextIO, cast

logger = logging.getLogger("backfill.cli.streams")

ROOM: Final = 2**20
"""Bytes that may wait for a reader; what comes beyond is dropped."""
LAST_SECONDS: Final = 1.0
"""How long the end of the process waits for readers of what is left."""
_CHUNK: Final = 512
"""A pipe that is ready to be written to takes so many bytes at once everywhere."""
_LOOK_SECONDS: Final = 0.05


def open_missing() -> None:
    """Open what is closed of the three standard streams, as the null device.

    Else the next sockets and files would get the numbers 0 to 2, and what prints to a number would write into them.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                _open_null(number)
        if getattr(sys, name) is None:  # Python has found it closed
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (held until the end)


def never_wait_for_readers() -> None:
    """Have what is printed and logged from now on go out without ever waiting for its readers, or failing by them."""
    if sys.platform == "win32":
        return
    for name in ("stdout", "stderr"):
        stream = cast("TextIO", getattr(sys, name))
        # One that is no stream of this process's, such as a test's, stays as it is.
        with contextlib.suppress(Exception):
            stream.flush()
        with contextlib.suppress(Exception):
            patient = Patient(stream.fileno(), name)
            setattr(sys, name, _as_text(patient, stream))
            os.register_at_fork(after_in_child=patient.begin_anew)
            _streams.append(patient)
    # Called after what the program itself registers later.
    atexit.register(finish)


def finish() -> None:
    """The process ends: give the readers of both streams a second to take what waits."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    enough = time.monotonic() + LAST_SECONDS
    for patient in _streams:
        patient.finish(max(enough - time.monotonic(), 0.0))


class Patient(io.RawIOBase):
    """A descriptor that is written to as far as its reader lets it; the rest waits in memory, within bounds.

    Args:
        number: the descriptor, which stays open.
        name: of the stream, for the log.
    """

    def __init__(self, number: int, name: str) -> None:
        self._number = number
        self.name = name
        self._out = _own_description(number)
        self._ended = False
        self._pause = threading.Event()
        self._reset()
        self._in_child = False

    def begin_anew(self) -> None:
        """In a forked child: what waits is the parent's to write, and so is the thread that would. The child waits itself."""
        self._reset()
        self._in_child = True

    def _reset(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may print while a print is under way
        self._waiting: deque[memoryview] = deque()
        self._size = 0
        self._dropped = 0
        self._writer: threading.Thread | None = None

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)

    def write(self, data: Any, /) -> int:
        """Write what there is room for, and keep the rest; never waits, never fails."""
        content = memoryview(bytes(data))
        with self._lock:
            rest = content if self._waiting else self._put(content)
            while rest and self._in_child:
                self._is_ready(_LOOK_SECONDS)
                rest = self._put(rest)
            if rest and self._size >= ROOM:
                self._dropped += len(rest)
            elif rest:
                self._waiting.append(rest)
                self._size += len(rest)
                if self._writer is None and not self._ended:
                    self._writer = threading.Thread(target=self._go_on, name=f"backfill-{self.name}", daemon=True)
                    self._writer.start()
        return len(content)

    def finish(self, seconds: float) -> None:
        """Give the readers so long to take what waits, and drop the rest. No thread writes afterwards."""
        with self._lock:
            writer, self._ended = self._writer, True
        if writer is not None:
            writer.join(seconds)
        with self._lock:
            self._waiting.clear()
            self._size = 0
        if writer is not None:
            writer.join(4 * _LOOK_SECONDS)

    def close(self) -> None:
        """Close what was opened here; the descriptor that was given stays open."""
        if not self.closed and self._out != self._number:
            os.close(self._out)
        super().close()

    def _put(self, content: memoryview) -> memoryview:
        """Write as much as goes without waiting; what is left."""
        while content and self._is_ready(0):
            try:
                written = os.write(self._out, content[:_CHUNK] if self._out == self._number else content)
            except BlockingIOError:
                return content
            except OSError:  # nobody can read it any more
                self._dropped += len(content)
                return memoryview(b"")
            content = content[written:]
        return content

    def _is_ready(self, seconds: float) -> bool:
        looking = select.poll()
        looking.register(self._out, select.POLLOUT)
        return bool(looking.poll(seconds * 1000))

    def _go_on(self) -> None:
        """Write what waits, as its reader lets it, until nothing does."""
        ready = True
        while True:
            if not ready:
                self._pause.wait(_LOOK_SECONDS / 10)  # a descriptor may be called ready and take nothing
            ready = self._is_ready(_LOOK_SECONDS)
            with self._lock:
                while ready and self._waiting:
                    content = self._waiting.popleft()
                    rest = self._put(content)
                    self._size -= len(content) - len(rest)
                    if rest:
                        self._waiting.appendleft(rest)
                        ready = False
                if not self._waiting:
                    self._writer = None
                    dropped, self._dropped = self._dropped, 0
                    break
        if dropped and not self._ended:
            what = "standard output" if self.name == "stdout" else "standard error"
            logger.warning("%d bytes of %s were dropped: nobody had read them", dropped, what)


_streams: Final[list[Patient]] = []


def _own_description(number: int) -> int:
    """A descriptor of the same pipe or terminal that never waits; those who share the one we were given see no change."""
    mode = os.fstat(number).st_mode
    if stat.S_ISFIFO(mode) or os.isatty(number):
        with contextlib.suppress(
            OSError
        ):  # where /proc is not there, it is asked before each write whether it would wait
            return os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return number


def _as_text(patient: Patient, stream: TextIO) -> TextIO:
    """A text stream that writes to it in the way that this one did."""
    unbuffered = isinstance(getattr(stream, "buffer", None), io.RawIOBase)
    buffer = cast("Any", patient) if unbuffered else io.BufferedWriter(patient)
    return io.TextIOWrapper(
        buffer, encoding=stream.encoding, errors=stream.errors, line_buffering=getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False),
    )  # fmt: skip


def _open_null(number: int) -> None:
    """Open the null device under this number."""
    opened = os.open(os.devnull, os.O_RDWR)
    if opened == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(opened, number)
        os.close(opened)
