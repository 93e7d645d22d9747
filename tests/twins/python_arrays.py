"""Arrays of numbers in PostgreSQL's binary format, in plain Python: the twin of native/src/arrays.rs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

_KINDS: Final = {
    "int2": (21, "h", 2**15),
    "int4": (23, "i", 2**31),
    "int8": (20, "q", 2**63),
    "timestamptz": (1184, "q", 2**63),
}


def pack_array(values: Sequence[int | None], kind: str) -> bytes:
    """See `backfill._native.pack_array`."""
    if kind == "bool":
        oid, code = 16, "?"
        allowed = range(2)
    elif kind in _KINDS:
        oid, code, limit = _KINDS[kind]
        allowed = range(-limit, limit)
    else:
        raise ValueError(kind)
    packed = struct.pack("!iiI", bool(values), None in values, oid)
    if values:
        packed += struct.pack("!ii", len(values), 1)
    for value in values:
        if value is None:
            packed += struct.pack("!i", -1)
        elif value in allowed:
            packed += struct.pack(f"!i{code}", struct.calcsize(code), value)
        else:
            raise ValueError(value)
    return packed
