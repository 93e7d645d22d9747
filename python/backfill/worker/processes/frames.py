"""How frames stand in the pipes between a worker and a child: a header of fixed size, then the bytes it announces.

The header begins with two bytes that other writers would hardly send, so that rubbish in a pipe is told at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

READY: Final = 1
"""Child to worker: the child takes calls."""
NOT_READY: Final = 2
"""Child to worker: the child cannot take calls, and ends; the data says why."""
CALL: Final = 3
"""Worker to child: run this."""
MESSAGE: Final = 4
"""Child to worker: a message of the call; its kind stands before its data."""
RETURNED: Final = 5
"""Child to worker: the call has returned the data."""
RAISED: Final = 6
"""Child to worker: the call raised; the data is three texts, see `pack_texts`."""
SETUP: Final = 7
"""Worker to child: the first frame; the data is what the handler's factory is given."""
END: Final = 8
"""Worker to child: no call comes any more. The pipe's end says the same, unless somebody else holds a copy of it."""

STOP: Final = 1
"""On the control pipe: the call should stop; the text says why."""
TERMINATE: Final = 2
"""On the control pipe: raise `Terminated` in the call."""

LARGEST: Final = 1 << 30
"""The largest data of a frame, in bytes."""
_MAGIC: Final = b"\xbf\x42"
_HEADER: Final = struct.Struct("!2sBBIIQ")
HEADER_SIZE: Final = _HEADER.size
_SMALL: Final = 1 << 14
_CONTROL: Final = struct.Struct("!BIH")
_LONGEST_REASON: Final = 1000


class RubbishError(Exception):
    """What was read is no frame."""


class Frame(NamedTuple):
    """One frame that was read."""

    kind: int
    number: int
    """The number of the call that it is about."""
    name: str
    """The kind of a message; empty in other frames."""
    data: bytes
    rss: int
    """The child's memory in bytes; 0 where it is not said."""


def header(kind: int, number: int, data_length: int, name: bytes = b"", rss: int = 0) -> bytes:
    """The bytes that stand before a frame's data: the header and the name.

    Raises:
        ValueError: the name or the data is too long.
    """
    if data_length > LARGEST or len(name) > 255:
        raise ValueError(f"{data_length} bytes: at most {LARGEST} bytes cross between a worker and its child at once")
    return _HEADER.pack(_MAGIC, kind, len(name), number, data_length, rss) + name


class Reader:
    """Puts frames together from the pieces in which they are read."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._whole = 0

    @property
    def missing(self) -> int:
        """How many bytes of the frame that has begun are not there yet; 0 where that is not known."""
        return max(self._whole - len(self._buffer), 0)

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that are whole with this piece.

        Raises:
            RubbishError: what was read is no frame.
        """
        if not self._buffer:
            found: list[Frame] = []
            at = self._take(piece, found)
            if at < len(piece):
                self._buffer += piece[at:] if at else piece
            return found
        self._buffer += piece
        if self.missing:
            return []
        found = []
        at = self._take(self._buffer, found)
        del self._buffer[:at]
        return found

    def _take(self, data: bytes | bytearray, found: list[Frame]) -> int:
        """Append the whole frames that stand in the data; where the rest of the data begins."""
        at, length = 0, len(data)
        while length - at >= HEADER_SIZE:
            magic, kind, name_length, number, data_length, rss = _HEADER.unpack_from(data, at)
            if magic != _MAGIC or data_length > LARGEST:
                raise RubbishError
            start = at + HEADER_SIZE + name_length
            end = start + data_length
            if end > length:
                self._whole = end - at
                return at
            name = bytes(data[at + HEADER_SIZE : start]).decode(errors="replace") if name_length else ""
            if data_length < _SMALL:
                found.append(Frame(kind, number, name, bytes(data[start:end]), rss))
            else:  # copied once only
                with memoryview(data) as view:
                    found.append(Frame(kind, number, name, bytes(view[start:end]), rss))
            at = end
        self._whole = 0
        return at


def pack_control(kind: int, number: int, text: str = "") -> bytes:
    """A frame of the control pipe; short enough to be written whole or not at all. A long text is cut."""
    data = text.encode(errors="replace")[:_LONGEST_REASON]
    return _CONTROL.pack(kind, number, len(data)) + data


def read_controls(buffer: bytearray) -> Iterator[tuple[int, int, str]]:
    """Take the whole frames of the control pipe out of a buffer: kind, number of the call, text."""
    while len(buffer) >= _CONTROL.size:
        kind, number, length = _CONTROL.unpack_from(buffer)
        end = _CONTROL.size + length
        if len(buffer) < end:
            return
        text = buffer[_CONTROL.size : end].decode(errors="replace")
        del buffer[:end]
        yield kind, number, text


def pack_texts(*texts: str) -> bytes:
    """Texts as bytes, in order; `unpack_texts` reads them."""
    return b"".join(
        len(data).to_bytes(4, "big") + data for data in (text.encode(errors="backslashreplace") for text in texts)
    )


def unpack_texts(data: bytes) -> list[str]:
    """The texts that `pack_texts` was given."""
    texts = []
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        texts.append(data[at + 4 : end].decode(errors="replace"))
        at = end
    return texts
