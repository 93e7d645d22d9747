"""Standard output and error that never block a worker, and never end it, if nobody reads them.

A pipe whose reader has stopped reading blocks every print, and a print on the event loop blocks the whole worker. A
pipe whose reader is gone makes every print fail. So a worker's prints and logs are written at once if there is room,
and wait in memory if there is none. If too much waits, or nobody is left to read, they are dropped and counted.
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
"""The number of bytes that may wait for a reader; further bytes are dropped."""
LAST_SECONDS: Final = 1.0
"""How long the process waits at its end for the readers to take what is left."""
_CHUNK: Final = 512
"""The number of bytes that a pipe takes at once, on every system, if it is ready to be written to."""
_LOOK_SECONDS: Final = 0.05


def open_missing() -> None:
    """Open those of the three standard streams that are closed, as the null device.

    Otherwise the next sockets and files would get the numbers 0 to 2, and code that prints to these numbers would write
    into them.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                _open_null(number)
        if getattr(sys, name) is None:  # Python found it closed at its start
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (held until the end)


def write_whole() -> None:
    """Make sure that all of a long print is written where Python does not buffer the standard streams.

    With PYTHONUNBUFFERED a print is one call of the system's `write`. On a pipe a signal may interrupt it, such as the
    SIGCONT of a job that goes on, and Python then drops the rest without an error.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        raw = getattr(stream, "buffer", None)
        if isinstance(stream, io.TextIOWrapper) and isinstance(raw, io.RawIOBase):
            whole = io.TextIOWrapper(
                cast("Any", Whole(raw)), encoding=stream.encoding, errors=stream.errors,
                line_buffering=stream.line_buffering, write_through=stream.write_through,
            )  # fmt: skip
            setattr(sys, name, whole)


class Whole(io.RawIOBase):
    """An unbuffered stream whose `write` goes on until all is written.

    Args:
        raw: the stream that is written to; it stays open.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def writable(self) -> bool:
        """Always True."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._raw.fileno()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._raw.isatty()

    def write(self, data: Any, /) -> int:
        """Write all, and return how many bytes that were; wait for a reader where there is no room."""
        content = memoryview(data).cast("B")
        rest = content
        while rest:
            written = self._raw.write(rest)
            if written is None:  # a descriptor that never waits has no room
                select.select([], [self._raw], [])
            else:
                rest = rest[written:]
        return len(content)


def never_wait_for_readers(*, by_line: bool = False) -> None:
    """Make sure that prints and logs from now on never wait for their readers and never fail because of them.

    Args:
        by_line: whether each line is written at once, also where a pipe is written to.
    """
    if sys.platform == "win32":
        return
    for name in ("stdout", "stderr"):
        stream = cast("TextIO", getattr(sys, name))
        # A stream without a descriptor of this process, such as a test's, stays as it is.
        with contextlib.suppress(Exception):
            stream.flush()
        with contextlib.suppress(Exception):
            patient = Patient(stream.fileno(), name)
            setattr(sys, name, _as_text(patient, stream, by_line=by_line))
            os.register_at_fork(after_in_child=patient.begin_anew)
            _streams.append(patient)
    # Functions that the program registers later are called before this one.
    atexit.register(finish)


def finish() -> None:
    """Give the readers of both streams a second to take what waits, since the process ends."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    enough = time.monotonic() + LAST_SECONDS
    for patient in _streams:
        patient.finish(max(enough - time.monotonic(), 0.0))


class Patient(io.RawIOBase):
    """A stream that writes as much as its reader takes; the rest waits in memory, within bounds.

    Args:
        number: the descriptor that is written to; it stays open.
        name: the stream's name, for the log.
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
        """Start empty in a forked child: the parent writes what waits, and the child's own writes may block."""
        self._reset()
        self._in_child = True

    def _reset(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may print while a print is under way
        self._waiting: deque[memoryview] = deque()
        self._size = 0
        self._dropped = 0
        self._writer: threading.Thread | None = None

    def writable(self) -> bool:
        """Always True."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)

    def write(self, data: Any, /) -> int:
        """Write as much as there is room for and keep the rest; never wait (except in a forked child), never fail."""
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
        """Give the readers this many seconds to take what waits, then drop the rest; no thread writes afterwards."""
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
        """Close the descriptor that was opened here; the given one stays open."""
        if not self.closed and self._out != self._number:
            os.close(self._out)
        super().close()

    def _put(self, content: memoryview) -> memoryview:
        """Write as much as is possible without waiting, and return what is left."""
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
        """Write what waits, as fast as its reader takes it, until nothing waits."""
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
    """A descriptor of the same pipe or terminal that never waits; the given one does not change for who shares it."""
    mode = os.fstat(number).st_mode
    if stat.S_ISFIFO(mode) or os.isatty(number):
        with contextlib.suppress(OSError):  # without /proc, each write first checks whether it would wait
            return os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return number


def _as_text(patient: Patient, stream: TextIO, *, by_line: bool) -> TextIO:
    """A text stream with the encoding and buffering of `stream` that writes to `patient`."""
    unbuffered = isinstance(getattr(stream, "buffer", None), io.RawIOBase)
    buffer = cast("Any", patient) if unbuffered else io.BufferedWriter(patient)
    return io.TextIOWrapper(
        buffer, encoding=stream.encoding, errors=stream.errors,
        line_buffering=by_line or getattr(stream, "line_buffering", False),
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
