"""Statements by name: each is a `.sql` file with a header that tests read, and is rendered once for a schema.

Used by client, worker and shell; nothing else in the package holds SQL. A statement names its schema by the token
:"schema", which psql understands too, so a file can be tried by hand with `psql -v schema=graphile_worker`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Final, LiteralString, cast

from psycopg import sql

from backfill.errors import ConfigurationError
from backfill.storage.headers import header
from backfill.storage.texts import PARTS, STATEMENTS

DEFAULT_SCHEMA: Final = "graphile_worker"
SCHEMA_TOKEN: Final = ':"schema"'  # noqa: S105 - a place for a name, no password
_IDENTIFIER_BYTES: Final = 63
_HEADER_LINE: Final = re.compile(r"-- (?P<field>does|locks|index|params): (?P<text>.*)|--   (?P<more>.*)")
_PARAM: Final = re.compile(r"\$(\d+) (\w+) ([a-z0-9_ ]+(?:\[\])?)")
_PART: Final = re.compile(r"^ *-- part: (\w+)\n", re.MULTILINE)
"""Marks where a statement takes in lines that it shares with others, from a file in storage/sql/parts."""
_DOLLAR_QUOTE: Final = re.compile(r"\$([a-z]*)\$")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, as its file holds it.

    Attributes:
        name: the file's name without its ending.
        text: the whole file, with its header and shared parts; the schema in it is still the token.
        does: what it does.
        locks: which rows it locks, and how.
        indexes: the indexes that serve it; empty where the header says why there is none.
        params: the name and type of $1, $2 ..., in order.
    """

    name: str
    text: str
    does: str
    locks: str
    index: str
    params: tuple[tuple[str, str], ...]

    @property
    def indexes(self) -> tuple[str, ...]:
        """The names that the header's index line lists, or none."""
        return () if self.index.startswith("none") else tuple(name.strip() for name in self.index.split(","))


@cache
def load(name: str) -> Statement:
    """The statement of that name, its header parsed.

    Raises:
        ConfigurationError: there is no such file, or its header is not complete.
    """
    text = STATEMENTS.get(name)
    if text is None:
        raise ConfigurationError(f"statement = {name!r}: no such file in storage/sql")
    while _PART.search(text):  # a part may have parts of its own
        text = _PART.sub(lambda part: PARTS[part[1]], text)
    fields = header(text, _HEADER_LINE)
    missing = {"does", "locks", "index", "params"} - fields.keys()
    if missing:
        raise ConfigurationError(f"statement = {name!r}: its header lacks {', '.join(sorted(missing))}")
    params = tuple((word, kind.strip()) for _, word, kind in _PARAM.findall(fields["params"]))
    return Statement(name, text, fields["does"], fields["locks"], fields["index"], params)


@cache
def render(name: str, schema: str = DEFAULT_SCHEMA) -> LiteralString:
    """The text of that statement for one schema, ready to be executed."""
    return render_text(load(name).text, schema)


def render_text(text: str, schema: str) -> LiteralString:
    """Any SQL text of ours, with the schema's quoted name in place of the token.

    Where the name itself holds a dollar quote of the text, such as `$$` or `$body$`, that quote is replaced by another,
    so that the name cannot end it.
    """
    for word in sorted(set(_DOLLAR_QUOTE.findall(text))):
        if f"${word}$" in schema:
            free = (f"${word or 'body'}{number}$" for number in count(1))
            text = text.replace(f"${word}$", next(quote for quote in free if quote not in schema and quote not in text))
    return trusted(text.replace(SCHEMA_TOKEN, quoted_schema(schema)))


def trusted(text: str) -> LiteralString:
    """Mark a text as a LiteralString: it is made of our own files and of names that the driver quoted."""
    return cast("LiteralString", text)  # type: ignore[redundant-cast]


def quoted_schema(schema: str) -> str:
    """The schema's name as an identifier, quoted by the driver.

    Raises:
        ConfigurationError: the name is empty, is longer than PostgreSQL's 63 bytes (it would be cut off), or holds NUL
            or a lone surrogate.
    """
    try:
        size = len(schema.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(f"schema = {schema!r}: a name without lone surrogates") from None
    if not 1 <= size <= _IDENTIFIER_BYTES or "\0" in schema:
        raise ConfigurationError(f"schema = {schema!r}: a name of 1 to {_IDENTIFIER_BYTES} bytes without NUL")
    return sql.Identifier(schema).as_string(None)
