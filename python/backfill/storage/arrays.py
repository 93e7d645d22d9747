"""Arrays in PostgreSQL's text format, for parameters that are not packed in binary format, or cannot be sent so."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from backfill.records import PG_EPOCH

_INT: Final = struct.Struct("!i")
_ARRAY_HEADER: Final = 20
_BOOL, _TIMESTAMPTZ, _BEFORE_ALL, _AFTER_ALL = 16, 1184, -(2**63), 2**63 - 1
_OTHER_TIMES: Final = {_BEFORE_ALL: "-infinity", _AFTER_ALL: "infinity"}


def text_array(values: Iterable[str | None]) -> str:
    """The text of an array of texts."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def encoded_array(values: Iterable[bytes]) -> bytes:
    """The text of an array of texts, where these are encoded already; the array is in the same encoding."""
    quoted = [value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for value in values]
    return b'{"' + b'","'.join(quoted) + b'"}' if quoted else b"{}"


def number_array(values: Iterable[float | None]) -> str:
    """The text of an array of numbers."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def array_text(packed: bytes) -> str:
    """The text of an array that `pack_array` has packed in binary format."""
    (oid,) = _INT.unpack_from(packed, 2 * _INT.size)
    place, texts = _ARRAY_HEADER, list[str]()
    while place < len(packed):
        (size,) = _INT.unpack_from(packed, place)
        place += _INT.size
        if size < 0:
            texts.append("NULL")
            continue
        texts.append(_element(oid, int.from_bytes(packed[place : place + size], "big", signed=True)))
        place += size
    return "{" + ",".join(texts) + "}"


def _element(oid: int, value: int) -> str:
    if oid == _BOOL:
        return "t" if value else "f"
    if oid == _TIMESTAMPTZ:
        return _OTHER_TIMES.get(value) or f'"{(PG_EPOCH + timedelta(microseconds=value)).isoformat()}"'
    return str(value)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
