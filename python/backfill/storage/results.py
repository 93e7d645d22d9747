"""Rows of results, whose values are read by the names of their columns.

Results are read as libpq gives them, and not through the driver's loaders. So a value that Python cannot hold, or a
loader that a caller registered on its connection, can do no harm. Jobs, claims and settlements have readers of their
own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import orjson

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DOUBLE: Final = struct.Struct("!d")


def time_of(micros: int | None) -> datetime | None:
    """A time from Unix microseconds; None for None and for a time that no datetime can hold."""
    try:
        return None if micros is None else _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return None


class Result(Protocol):
    """What a statement gave, as readers use it: libpq's result, or what another driver's rows were read into."""

    @property
    def ntuples(self) -> int:
        """How many rows there are."""
        ...

    @property
    def nfields(self) -> int:
        """How many columns each row has."""
        ...

    def fname(self, column_number: int, /) -> bytes | None:
        """The name of a column."""

    def get_value(self, row_number: int, column_number: int, /) -> bytes | None:
        """A value as the server wrote it; None for null."""


class _Columns:
    """A row of a result, and where each column stands.

    Args:
        result: the result.
        columns: the numbers of its columns by their names.
        number: the number of the row.
    """

    __slots__ = ("_columns", "_number", "_result")

    def __init__(self, result: Result, columns: dict[str, int], number: int) -> None:
        self._result = result
        self._columns = columns
        self._number = number

    def raw(self, name: str) -> bytes | None:
        """A value as it came, or None for null.

        Raises:
            KeyError: the statement gives no column of that name.
        """
        return self._result.get_value(self._number, self._columns[name])


class Row(_Columns):
    """One row of a result in text format."""

    __slots__ = ()

    def text(self, name: str) -> str | None:
        """A text, or None for null."""
        raw = self.raw(name)
        return None if raw is None else raw.decode("utf-8", "replace")

    def word(self, name: str) -> str:
        """A text; an empty one for null."""
        return self.text(name) or ""

    def number(self, name: str) -> int | None:
        """An integer, or None for null."""
        raw = self.raw(name)
        return None if raw is None else int(raw)

    def whole(self, name: str) -> int:
        """An integer; 0 for null."""
        return self.number(name) or 0

    def fraction(self, name: str) -> float:
        """A number with a fraction; 0 for null."""
        return float(self.raw(name) or 0)

    def flag(self, name: str) -> bool:
        """A boolean; False for null."""
        return self.raw(name) == b"t"

    def time(self, name: str) -> datetime | None:
        """A time, from Unix microseconds; None for null and for a time that no datetime can hold."""
        return time_of(self.number(name))

    def items(self, name: str) -> Any:
        """A JSON array; an empty one for null."""
        return orjson.loads(self.raw(name) or b"[]")


class BinaryRow(_Columns):
    """One row of a result in binary format."""

    __slots__ = ()

    def text(self, name: str) -> str:
        """A text; an empty one for null."""
        return (self.raw(name) or b"").decode("utf-8", "replace")

    def integer(self, name: str) -> int:
        """An integer of any size, or a time in PostgreSQL's microseconds; 0 for null."""
        return int.from_bytes(self.raw(name) or b"", "big", signed=True)

    def double(self, name: str) -> float | None:
        """A double precision number, or None for null."""
        raw = self.raw(name)
        return None if raw is None else float(_DOUBLE.unpack(raw)[0])

    def flag(self, name: str) -> bool:
        """A boolean; False for null."""
        return self.raw(name) == b"\x01"


def rows(result: Result) -> Iterator[Row]:
    """The rows of a result in text format."""
    columns = _columns(result)
    for number in range(result.ntuples):
        yield Row(result, columns, number)


def first(result: Result) -> Row:
    """The first row of a result in text format; the statement must always give one."""
    return Row(result, _columns(result), 0)


def binary_rows(result: Result) -> Iterator[BinaryRow]:
    """The rows of a result in binary format."""
    columns = _columns(result)
    for number in range(result.ntuples):
        yield BinaryRow(result, columns, number)


def integers(result: Result, name: str) -> list[int]:
    """The integers in a column of a result in text format; fast for many rows."""
    column = _columns(result)[name]
    return [int(result.get_value(row, column) or 0) for row in range(result.ntuples)]


def integers_by_text(result: Result, name: str, by: str) -> Iterator[tuple[str, int]]:
    """Pairs from a column of texts (`by`) and a column of integers (`name`) of a result in text format."""
    columns = _columns(result)
    column, texts = columns[name], columns[by]
    for row in range(result.ntuples):
        known = result.get_value(row, texts)
        yield ("" if known is None else known.decode("utf-8", "replace")), int(result.get_value(row, column) or 0)


def count(result: Result) -> int:
    """How many rows a statement gave."""
    return result.ntuples


def nothing(_result: Result) -> None:
    """Read nothing: for a statement that is run only for its effect."""


def _columns(result: Result) -> dict[str, int]:
    return {(result.fname(number) or b"").decode(): number for number in range(result.nfields)}
