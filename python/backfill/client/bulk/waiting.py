"""Rows of a bulk call that wait in a temporary table until the caller's stream is read to its end.

Used by `writing` and `producers`. To write a job with a key, or one whose task or queue is new, a transaction must hold
a row that other calls wait for: that of the key or that of the name. While the stream is read, the caller's code runs,
and may itself make such a call. So these jobs are sent by COPY to a table of the transaction that nobody else sees, and
are written from there when the stream is at its end.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from enum import IntEnum
from functools import partial
from typing import Final, NamedTuple

from backfill.client.bulk.copying import stream_of
from backfill.client.carrier import AnyConnection
from backfill.client.execute import run
from backfill.client.prepare import JobShape, flags_json
from backfill.jobs import JobKeyMode
from backfill.storage.arrays import text_array

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_NULL: Final = struct.pack("!i", -1)
_COLUMNS: Final = 11
_FIXED: Final = struct.Struct("!hiiiqihiqih")
"""The number of columns, then batch, place, priority, run_at and max_attempts, each preceded by its length."""
_LENGTH: Final = struct.Struct("!i")
_INTERVAL: Final = struct.Struct("!iqii")
"""The length of an interval, then its microseconds, days and months."""
_MICROSECOND: Final = timedelta(microseconds=1)


class Kind(IntEnum):
    """How a batch of waiting rows is written."""

    KEYLESS = 0
    REPLACE = 1
    PRESERVE_RUN_AT = 2
    UNSAFE_DEDUPE = 3
    UNIQUE = 4
    """With `unique_for`, in any mode."""


KIND_OF: Final = {
    JobKeyMode.REPLACE: Kind.REPLACE,
    JobKeyMode.PRESERVE_RUN_AT: Kind.PRESERVE_RUN_AT,
    JobKeyMode.UNSAFE_DEDUPE: Kind.UNSAFE_DEDUPE,
}


class WaitingRow(NamedTuple):
    """A row that waits.

    Attributes:
        place: the place of the row's id among the ids that are returned; for a row without a key, the id itself, which
            was drawn before.
        run_at: when the job is due, in PostgreSQL's microseconds.
        shape: all settings of the job except its payload.
        payload: the payload's JSON.
    """

    place: int
    run_at: int
    shape: JobShape
    payload: bytes


class WaitingRows:
    """The waiting rows of one transaction; their table is made with the first of them.

    Args:
        connection: the connection, in a transaction.
        schema: the queue's schema.
    """

    def __init__(self, connection: AnyConnection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self._stream = stream_of(connection, "copy_waiting", schema)
        self._kinds = array("b")

    def __len__(self) -> int:
        """How many batches wait, so that the next one has this number."""
        return len(self._kinds)

    def batches(self) -> Iterator[tuple[int, Kind]]:
        """Yield the batches in the order in which they came, and the kind of each."""
        for batch, kind in enumerate(self._kinds):
            yield batch, Kind(kind)

    async def add(self, batches: Iterable[tuple[Kind, Sequence[WaitingRow]]]) -> None:
        """Send batches of rows to the table; no batch has a key twice.

        The rows may still be on their way when the call returns.
        """
        if not self._kinds:
            await run(self._connection, "make_waiting", self._schema)
        for kind, rows in batches:
            await self._stream.send(partial(packed, len(self._kinds), kind, rows), len(rows))
            self._kinds.append(kind)

    async def pause(self) -> None:
        """Wait until the table has all rows, so that the connection is free for other statements."""
        await self._stream.end()

    async def drop(self) -> None:
        """Drop the table after its rows have been written."""
        await run(self._connection, "drop_waiting", self._schema)
        self._kinds = array("b")

    async def close(self, error: BaseException | None) -> None:
        """End the COPY of rows on their way, or have the server undo it if there is an error."""
        await self._stream.close(error)


def packed(batch: int, kind: Kind, rows: Sequence[WaitingRow], *, begin: bool) -> bytes:
    """Pack a batch of rows in the format of COPY BINARY; with `begin`, the stream's header comes first."""
    named: dict[tuple[str, str | None, tuple[str, ...]], bytes] = {}
    parts = [_HEADER] if begin else []
    for place, run_at, shape, payload in rows:
        names = shape.task, shape.queue, shape.flags
        middle = named.get(names)
        if middle is None:
            middle = named[names] = b"".join(map(_text, (shape.task, shape.queue, _flags(kind, shape.flags))))
        fixed = _FIXED.pack(_COLUMNS, 4, batch, 8, place, 2, shape.priority, 8, run_at, 2, shape.max_attempts)
        parts += (fixed, middle, _text(shape.key), _LENGTH.pack(len(payload)), payload, _span(shape.unique_for))
    return b"".join(parts)


def _flags(kind: Kind, flags: tuple[str, ...]) -> str | None:
    """Return flags as the text that the batch's statement reads.

    The text is an array for the functions that take one, and the column's JSON for other statements.
    """
    if kind in (Kind.REPLACE, Kind.PRESERVE_RUN_AT, Kind.UNIQUE):
        return text_array(flags) if flags else None
    return flags_json(flags)


def _span(value: timedelta | None) -> bytes:
    return _NULL if value is None else _INTERVAL.pack(_INTERVAL.size - _LENGTH.size, value // _MICROSECOND, 0, 0)


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded
