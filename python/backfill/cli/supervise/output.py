"""The standard output and error of worker processes, which a supervisor passes on line by line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

LONGEST: Final = 2**16
"""A longer line is passed on in parts, so that one without an end does not fill the memory."""

Write = Callable[[bytes], object]


class Relay(asyncio.Protocol):
    """Passes on what comes from one stream of one process: whole lines only, so that no two processes mix theirs.

    All lines that come together are passed on together, so that a traceback stays in one piece.

    Args:
        write: takes the lines.
        prefix: stands before each line.

    Attributes:
        ended: set when the stream has ended and all of it is passed on.
    """

    def __init__(self, write: Write, prefix: bytes = b"") -> None:
        self.ended = asyncio.Event()
        self._write = write
        self._prefix = prefix
        self._rest = b""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the stream, so that it can be closed."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass on all lines that are whole now."""
        lines, end, rest = (self._rest + data).rpartition(b"\n")
        if len(rest) > LONGEST:
            lines, end, rest = lines + end + rest, b"\n", b""
        self._rest = rest
        if end:
            self._pass_on(lines)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio gives it)
        """Pass on what is left, which has no end of line."""
        rest, self._rest = self._rest, b""
        if rest:
            self._pass_on(rest)
        self.ended.set()

    def send(self, content: bytes) -> None:
        """Write to the other end, where the stream goes both ways and is open."""
        if isinstance(self._transport, asyncio.WriteTransport) and not self._transport.is_closing():
            self._transport.write(content)

    def close(self) -> None:
        """Read no more, since the process has ended; a program that it has started may still hold the stream."""
        if self._transport is not None:
            self._transport.close()

    def _pass_on(self, lines: bytes) -> None:
        self._write(b"".join(self._prefix + line + b"\n" for line in lines.split(b"\n")))


def to_stdout(content: bytes) -> None:
    """Write to this process's standard output."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def to_stderr(content: bytes) -> None:
    """Write to this process's standard error."""
    sys.stderr.buffer.write(content)
    sys.stderr.buffer.flush()
