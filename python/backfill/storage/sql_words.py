"""Cuts a statement of ours into its words, and finds its parts: the clauses of `with`, and the columns that it gives.

Used by `carried`, which renders the statements once more, for drivers that do not give libpq's results. It reads only
the SQL of this package's own files, so it knows what stands there, and no more; a test runs it on each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from backfill.errors import ConfigurationError

_WORD: Final = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*)
    |(?P<dollar>\$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$)
    |(?P<parameter>\$\d+)
    |(?P<string>[eE]?'(?:[^'\\]|''|\\.)*')
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<word>[A-Za-z_]\w*|\d[\w.]*)
    |(?P<sign>::|.)
    """,
    re.DOTALL | re.VERBOSE,
)
_CHANGES: Final = frozenset({"insert", "update", "delete"})
_ENDS: Final = frozenset({"from", "where", "group", "order", "limit", "union", "for", "having", "window", "offset"})
_OPENING: Final = frozenset("([")
_CLOSING: Final = frozenset(")]")


class Word(NamedTuple):
    """One word, sign, string or parameter of a statement.

    Attributes:
        kind: what it is: `word`, `quoted` (a name), `string`, `dollar` (a string too), `parameter` or `sign`.
        text: as it stands in the statement.
        start: where it begins in the statement.
        depth: how many brackets are open around it; a bracket itself has the depth of what is around it.
    """

    kind: str
    text: str
    start: int
    depth: int

    @property
    def plain(self) -> str:
        """The word in small letters, or nothing where it is no bare word."""
        return self.text.lower() if self.kind == "word" else ""

    @property
    def name(self) -> str | None:
        """The name that the word is, without its quotes, or None where it is none."""
        if self.kind == "quoted":
            return self.text[1:-1].replace('""', '"')
        return self.text.lower() if self.kind == "word" else None


def words_of(text: str) -> list[Word]:
    """The words of a statement, without its comments."""
    found: list[Word] = []
    depth = 0
    for match in _WORD.finditer(text):
        kind = match.lastgroup or ""
        kind = "dollar" if kind == "tag" else kind
        if kind == "space":
            continue
        word = match[0]
        depth -= kind == "sign" and word in _CLOSING
        found.append(Word(kind, word, match.start(), depth))
        depth += kind == "sign" and word in _OPENING
    return found


class Parts(NamedTuple):
    """The parts of a statement.

    Attributes:
        clauses: the words of each query of its `with`, by the query's name.
        main: the words of the statement itself, after its `with`.
    """

    clauses: dict[str, Sequence[Word]]
    main: Sequence[Word]


def parts_of(words: Sequence[Word]) -> Parts:
    """Take a statement apart into the queries of its `with`, if it has one, and what follows them."""
    base = words[0].depth if words else 0
    if not words or words[0].plain != "with":
        return Parts({}, words)
    clauses: dict[str, Sequence[Word]] = {}
    place = 1 + (words[1].plain == "recursive")
    while True:
        name = words[place].name or ""
        opening = next(
            number
            for number in range(place, len(words))
            if words[number].text == "(" and words[number - 1].plain in ("as", "materialized")
        )
        closing = next(n for n in range(opening, len(words)) if words[n].text == ")" and words[n].depth == base)
        clauses[name] = words[opening + 1 : closing]
        place = closing + 2
        if words[closing + 1].text != ",":
            return Parts(clauses, words[closing + 1 :])


def gives_rows(main: Sequence[Word]) -> bool:
    """Whether a statement, without its `with`, gives rows."""
    first = main[0]
    if first.plain in _CHANGES:
        return any(word.plain == "returning" and word.depth == first.depth for word in main)
    return first.plain == "select"


def columns_of(parts: Parts) -> tuple[str, ...]:
    """The names of the columns that a statement gives, as the server would name them.

    Raises:
        ConfigurationError: a column's name cannot be known from the statement alone.
    """
    return tuple(_columns(parts.main, parts.clauses))


def _columns(main: Sequence[Word], clauses: dict[str, Sequence[Word]]) -> Iterator[str]:
    own = parts_of(main)
    clauses, main = {**clauses, **own.clauses}, own.main
    base = main[0].depth
    begin = 1
    if main[0].plain in _CHANGES:
        begin = 1 + next(n for n, word in enumerate(main) if word.plain == "returning" and word.depth == base)
    elif main[1].plain == "distinct":
        begin = 2
        if main[2].plain == "on":
            begin = 1 + next(n for n in range(3, len(main)) if main[n].text == ")" and main[n].depth == base)
    item: list[Word] = []
    end = next((n for n in range(begin, len(main)) if _ends(main, n) and main[n].depth == base), len(main))
    for word in [*main[begin:end], Word("sign", ",", 0, base)]:
        if word.text != "," or word.depth != base:
            item.append(word)
            continue
        if item[-1].text == "*" and len(item) in (1, 3):
            yield from _all_columns(item, main[end:], clauses)
        else:
            yield _name(item, clauses)
        item = []


def _ends(main: Sequence[Word], place: int) -> bool:
    """Whether a word ends the columns: `from` does, unless it belongs to `is distinct from`."""
    return main[place].plain in _ENDS and main[place - 1].plain != "distinct"


def _ends_columns(main: Sequence[Word], number: int) -> bool:
    """Whether a word begins what follows a statement's columns; the one in `is distinct from` does not."""
    word = main[number]
    return word.plain in _ENDS and word.depth == main[0].depth and main[number - 1].plain != "distinct"


def _all_columns(item: Sequence[Word], source: Sequence[Word], clauses: dict[str, Sequence[Word]]) -> Iterator[str]:
    """The columns of `*`, or of a name and `.*`, where they are those of one query of the statement's `with`."""
    wanted = item[0].name
    if wanted is None and len(source) > 1 and source[0].plain == "from":
        wanted = source[1].name
    if wanted not in clauses:
        raise ConfigurationError(f"statement: the columns of {''.join(word.text for word in item)} cannot be known")
    yield from _columns(clauses[wanted], clauses)


def _name(item: Sequence[Word], clauses: dict[str, Sequence[Word]]) -> str:
    """The name that the server gives a column: its alias, else one that it takes from the expression."""
    base = item[0].depth
    last = item[-1].name
    if len(item) > 1 and item[-2].plain == "as" and last is not None:
        return last
    cast = next((n for n in range(len(item)) if item[n].text == "::" and item[n].depth == base), None)
    if cast is not None:
        inner = _inner(item[:cast], clauses)
        return inner or item[cast + 1].name or ""
    named = _inner(item, clauses)
    if named is None:
        raise ConfigurationError(
            f"statement: the name of column {' '.join(word.text for word in item)} cannot be known"
        )
    return named


def _inner(item: Sequence[Word], clauses: dict[str, Sequence[Word]]) -> str | None:
    """The name that an expression without a cast gives its column, or None where it gives none."""
    base = item[0].depth
    if item[0].plain == "case":
        return "case"
    if item[0].text == "(" and item[1].plain in ("select", "with"):
        return next(_columns(item[1:-1], clauses))
    path = 0  # a name, or names with dots between them
    while path + 2 < len(item) and item[path + 1].text == "." and item[path].name is not None:
        path += 2
    name = item[path].name
    if name is None or item[path].text[:1].isdigit():
        return None
    outside = [word for word in item[path + 1 :] if word.depth == base]
    if not outside or (outside[0].text == "(" and outside[-1].text == ")" and len(outside) == 2):
        return name
    return None
