"""Statements in a second form, for drivers that do not give libpq's results.

Used by the carriers of other libraries' connections (SQLAlchemy, asyncpg, Django, psycopg2). A program may have told
its driver how to read and to write JSON, times or arrays, and the queue's rows must not depend on that. So every
parameter is bound as a text, which the statement casts to its type, and every row comes back as one text. That text
holds the values exactly as libpq would have given them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from backfill.errors import BackfillError
from backfill.storage.sql_words import Word, columns_of, gives_rows, parts_of, words_of
from backfill.storage.statements import load, render

Style = Literal["numeric", "format"]
"""How a driver writes parameters: `$1`, `$2` ("numeric"), or `%s` for each in the order of the text ("format")."""
ROW: Final = "backfill_row"
_INT: Final = struct.Struct("!i")
_OID: Final = 4
_FIELD: Final = re.compile(r'"((?:[^"\\]|""|\\.)*)"|([^,]*)', re.DOTALL)
_ESCAPED: Final = re.compile(r'""|\\(.)', re.DOTALL)
Values = list[bytes | None]


@dataclass(frozen=True, slots=True)
class Carried:
    """One statement for one schema, in the form for a driver that binds texts and gives back one text a row.

    Attributes:
        name: the statement's name.
        text: the statement, which gives one column of text, or no rows at all.
        columns: the names of the columns whose values a row's text holds, in order; none if it gives no rows.
        binary: whether the values are in PostgreSQL's binary format, else in its text format.
        order: the number of the parameter at each place of the text, from 0; None where the text numbers them itself.
    """

    name: str
    text: str
    columns: tuple[str, ...]
    binary: bool
    order: tuple[int, ...] | None

    @property
    def gives_rows(self) -> bool:
        """Whether the statement gives rows at all, so that the driver can be asked for them."""
        return bool(self.columns)

    def bind(self, parameters: Sequence[str | bytes | None]) -> tuple[str | None, ...]:
        """The statement's parameters as texts, in the order in which the driver takes them.

        Args:
            parameters: texts, encoded texts (UTF-8), or None for null, in the order of $1, $2 ...

        Raises:
            BackfillError: a text holds NUL, which PostgreSQL's texts cannot hold.
        """
        texts = tuple(value.decode() if isinstance(value, bytes) else value for value in parameters)
        for number, text in enumerate(texts, 1):
            if text is not None and "\0" in text:
                raise BackfillError(f"statement {self.name!r}: parameter ${number} holds NUL, which no text may hold")
        return texts if self.order is None else tuple(texts[number] for number in self.order)


class TextRows:
    """A result made from the text of each row; it is read as a result of libpq is.

    Args:
        columns: the names of the columns.
        rows: the values of each row, in the order of the columns.
    """

    __slots__ = ("_names", "_rows", "nfields", "ntuples")

    def __init__(self, columns: Sequence[str], rows: list[Values]) -> None:
        self._names = [name.encode() for name in columns]
        self._rows = rows
        self.nfields = len(self._names)
        self.ntuples = len(rows)

    def fname(self, column_number: int) -> bytes | None:
        """The name of a column, or None where there is no such column."""
        return self._names[column_number] if 0 <= column_number < self.nfields else None

    def get_value(self, row_number: int, column_number: int) -> bytes | None:
        """The value of a column in a row, or None for null."""
        return self._rows[row_number][column_number]


@cache
def carried(name: str, schema: str, style: Style, *, binary: bool = False) -> Carried:
    """The statement of that name for one schema, in the form for other drivers; each is made once.

    Args:
        name: the statement's name; a COPY has no such form, since a driver needs its own call for it.
        schema: the queue's schema.
        style: how the driver writes parameters.
        binary: whether the values of its rows are wanted in PostgreSQL's binary format.
    """
    rendered = render(name, schema)
    words = words_of(rendered)
    parts = parts_of(words)
    columns = columns_of(parts) if gives_rows(parts.main) else ()
    pieces = _Pieces(rendered, words, style, names=len(load(name).params))
    if not columns:
        return Carried(name, pieces.between(0, None), (), binary, pieces.order)
    start = parts.main[0].start
    form = f"encode(record_send({ROW}), 'hex')" if binary else f"{ROW}::text"
    before = f"{pieces.between(0, start)}, " if parts.clauses else "with "
    text = f"{before}{ROW} as (\n{pieces.between(start, None)}\n)\nselect {form} as {ROW} from {ROW}"
    return Carried(name, text, columns, binary, pieces.order)


def result_of(statement: Carried, texts: Sequence[str | bytes | None]) -> TextRows:
    """The result of a statement, from the text of each of its rows, as the driver gave them.

    Raises:
        BackfillError: a text does not hold as many values as the statement has columns.
    """
    read: Callable[[str], Values] = _binary_values if statement.binary else _text_values
    rows = [read(text.decode() if isinstance(text, bytes) else text) for text in texts if text is not None]
    for row in rows:
        if len(row) != len(statement.columns):
            raise BackfillError(
                f"statement {statement.name!r}: a row of {len(row)} values came for {len(statement.columns)} columns"
            )
    return TextRows(statement.columns, rows)


class _Pieces:
    """Renders pieces of a statement without its comments, with the driver's own places for parameters."""

    def __init__(self, text: str, words: Sequence[Word], style: Style, *, names: int) -> None:
        self._text = text
        self._words = words
        self._formats = style == "format"
        found = [int(word.text[1:]) - 1 for word in words if word.kind == "parameter"]
        if set(found) != set(range(names)):
            raise BackfillError(f"the statement names {names} parameters and uses {sorted(set(found))}")
        self.order: tuple[int, ...] | None = tuple(found) if self._formats else None

    def between(self, start: int, end: int | None) -> str:
        pieces: list[str] = []
        last = start
        for word in self._words:
            if word.start < start or (end is not None and word.start >= end):
                continue
            gap = self._text[last : word.start]
            if gap:
                pieces.append("\n" if "\n" in gap else " ")  # what stands between words is space and comments
            pieces.append(self._piece(word))
            last = word.start + len(word.text)
        return "".join(pieces).strip()

    def _piece(self, word: Word) -> str:
        if word.kind == "parameter":
            return "(%s::text)" if self._formats else f"({word.text}::text)"
        return word.text.replace("%", "%%") if self._formats else word.text


def _binary_values(text: str) -> Values:
    """The values of a row that `record_send` wrote: how many, and for each its type, its size and itself."""
    data = bytes.fromhex(text)
    values: Values = []
    place = _INT.size
    for _ in range(_INT.unpack_from(data)[0]):
        (size,) = _INT.unpack_from(data, place + _OID)
        place += _OID + _INT.size
        if size < 0:
            values.append(None)
            continue
        values.append(data[place : place + size])
        place += size
    return values


def _text_values(text: str) -> Values:
    """The values of a row in the text form of records: in round brackets, with commas between them."""
    values: Values = []
    place, end = 1, len(text) - 1
    while True:
        field = _FIELD.match(text, place, end)
        assert field is not None  # the pattern matches nothing too  # noqa: S101
        quoted = field[1]
        if quoted is not None:
            values.append(_ESCAPED.sub(lambda found: found[1] or '"', quoted).encode())
        else:
            values.append(field[2].encode() or None)
        place = field.end() + 1
        if field.end() >= end:
            return values
