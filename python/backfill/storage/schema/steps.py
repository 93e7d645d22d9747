"""The migrations by number, read from their files and headers.

Used by `migrate`, which carries them out, and by `state`, which asks whether a database has them. A migration of the
*foundation* makes what the contract describes; on a database that another program set up, such migrations are skipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Final, LiteralString

from backfill.errors import ConfigurationError
from backfill.storage.headers import header
from backfill.storage.statements import render_text
from backfill.storage.texts import MIGRATIONS

_NAME: Final = re.compile(r"(\d{4})_(\w+)")
_HEADER_LINE: Final = re.compile(
    r"-- (?P<field>does|foundation|transaction|index|breaking): (?P<text>.*)|--   (?P<more>.*)"
)
_FLAG: Final = {"yes": True, "no": False}


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration.

    Attributes:
        number: its place in the order, from 1.
        name: the file's name without number and ending.
        text: the whole file; the schema in it is still the token.
        does: what it does.
        foundation: whether it makes what the contract describes; then it is skipped on another program's database.
        transaction: whether it can run in a transaction; an index made concurrently cannot.
        index: the index that it makes concurrently; None where it makes none so.
        breaking: whether older versions of backfill must not work with the schema afterwards.
    """

    number: int
    name: str
    text: str
    does: str
    foundation: bool
    transaction: bool
    index: str | None
    breaking: bool

    def sql(self, schema: str, *, concurrently: bool = True) -> LiteralString:
        """The migration's SQL for a schema; `concurrently=False` makes its index under a lock, in a transaction."""
        text = self.text if concurrently else self.text.replace("create index concurrently", "create index")
        return render_text(text, schema)


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations that this version knows, in order.

    Raises:
        ConfigurationError: a file's header is not complete, or a number is missing or there twice.
    """
    found = []
    for name, text in MIGRATIONS.items():
        match = _NAME.fullmatch(name)
        if match is not None:
            found.append(_parse(int(match[1]), match[2], text))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ConfigurationError(f"migrations: numbers that leave a gap: {[migration.number for migration in found]}")
    return tuple(found)


def newest() -> int:
    """The number of the newest migration that this version knows."""
    return len(migrations())


def _parse(number: int, name: str, text: str) -> Migration:
    fields = header(text, _HEADER_LINE)
    try:
        return Migration(
            number,
            name,
            text,
            fields["does"],
            _FLAG[fields["foundation"]],
            _FLAG[fields["transaction"]],
            fields.get("index"),
            _FLAG[fields["breaking"]],
        )
    except KeyError as error:
        raise ConfigurationError(f"migration {number} ({name}): its header lacks {error}") from None
