"""The Python twin of native/src/copy.rs."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_WIDTHS = ((4, False), (4, True), (2, False), (8, False), (2, False), (None, True))
_LIMIT = 2**30 - 1024


def copy_prefix(
    task_id: int, job_queue_id: int | None, priority: int, run_at: int, max_attempts: int, flags: bytes | None
) -> bytes:
    """The columns that jobs of one shape share, each behind its length."""
    try:
        values = [
            struct.pack("!i", task_id),
            None if job_queue_id is None else struct.pack("!i", job_queue_id),
            struct.pack("!h", priority),
            struct.pack("!q", run_at),
            struct.pack("!h", max_attempts),
            None if flags is None else b"\1" + flags,
        ]
    except struct.error as error:
        raise ValueError("a number beyond its column") from error
    return b"".join([_NULL if value is None else _column(value) for value in values])


def copy_rows(
    prefixes: Sequence[bytes],
    payloads: Sequence[bytes],
    ids: Sequence[int] | None = None,
    *,
    begin: bool = False,
    end: bool = False,
) -> bytes:
    """A part of one COPY BINARY stream: a row for each payload."""
    if len(prefixes) != len(payloads) or (ids is not None and len(ids) != len(payloads)):
        raise ValueError("lists of different lengths")
    stream = b"PGCOPY\n\xff\r\n\0" + bytes(8) if begin else b""
    for row, (prefix, payload) in enumerate(zip(prefixes, payloads, strict=True)):
        if not _is_prefix(prefix):
            raise ValueError("no prefix")
        if len(prefix) + len(payload) > _LIMIT:
            raise ValueError("oversized")
        if ids is None:
            stream += struct.pack("!h", 7)
        else:
            try:
                stream += struct.pack("!hiq", 8, 8, ids[row])
            except struct.error as error:
                raise ValueError("an id beyond 64 bits") from error
        stream += prefix + _column(payload)
    return stream + (b"\xff\xff" if end else b"")


_NULL = struct.pack("!i", -1)


def _column(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


def _is_prefix(data: bytes) -> bool:
    for width, nullable in _WIDTHS:
        if len(data) < 4:
            return False
        (length,) = struct.unpack("!i", data[:4])
        data = data[4:]
        if length == -1 and nullable:
            continue
        if length < 0 or width not in (None, length) or len(data) < length:
            return False
        data = data[length:]
    return not data
