"""A strict reader of JSON5 on one line: the payload of a crontab item, and names in quotes.

The grammar is small, so it is read here and no package is needed: errors name the character at fault, deep nesting is
refused without recursion, and the time grows with the length alone. What JSON5 allows but JSON cannot hold (NaN,
infinity, NUL, lone surrogates) is refused, and so is a key that occurs twice.
"""

from __future__ import annotations

import re
from typing import Any, Final, NoReturn

from backfill.cron.pieces import Piece

DEEPEST: Final = 254
"""How many objects and arrays may stand in each other: as many as the encoder of payloads writes."""
_WHOLE: Final = range(-(2**63), 2**64)
_LONGEST_NUMBER: Final = 400
_SPACE: Final = re.compile(
    r"[\t\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]+"
    r"|//[^\r\u2028\u2029]*"
    r"|/\*.*?\*/"
)
_PLAIN: Final = {quote: re.compile(rf"[^{quote}\\\r\0\ud800-\udfff]*") for quote in "'\""}
_ESCAPE: Final = re.compile(r"x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[^1-9xu\0\r\ud800-\udfff]")
_LOW_HALF: Final = re.compile(r"\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})")
_ESCAPED: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\u2028": "", "\u2029": ""}
_NUMBER: Final = re.compile(
    r"[+-]?(?:(0[xX][0-9A-Fa-f]+)|((?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?))(?![\w$.])"
)
_WORD: Final = re.compile(r"(?:[$\w\u200c\u200d]+|\\u[0-9A-Fa-f]{4})+")
_IN_WORD: Final = re.compile(r"\\u([0-9A-Fa-f]{4})")
_LITERALS: Final = {"true": True, "false": False, "null": None}


def read_object(piece: Piece) -> dict[str, Any]:
    """Read an object; the piece begins with its brace, and only spaces and comments may follow it.

    Raises:
        CrontabParseError: the text is not JSON5, or JSON could not hold the value.
    """
    return _Reader(piece).document()


def read_text(piece: Piece) -> tuple[str, int]:
    """Read the text in quotes with which a piece begins.

    Returns:
        The text, and the position after the closing quote.

    Raises:
        CrontabParseError: the text does not end, or JSON could not hold it.
    """
    reader = _Reader(piece)
    return reader.quoted(), reader.at


class _Reader:
    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self.text = piece.text
        self.at = 0

    def document(self) -> dict[str, Any]:
        """The object that is the whole text."""
        root: dict[str, Any] = {}
        around: list[dict[str, Any] | list[Any]] = [root]
        self.at = 1
        while around:
            inside = around[-1]
            closing = "}" if isinstance(inside, dict) else "]"
            if self.next() == closing:
                self.at += 1
                around.pop()
                if around:
                    self.comma(around[-1])
                continue
            if isinstance(inside, dict):
                key = self.key(inside)
                value = inside[key] = self.value()
            else:
                value = self.value()
                inside.append(value)
            if isinstance(value, (dict, list)):
                if len(around) == DEEPEST:
                    self.refuse(f"at most {DEEPEST} objects and arrays in each other", self.at - 1)
                around.append(value)
            else:
                self.comma(inside)
        if self.next():
            self.refuse("the end of the line, or a comment, after the payload")
        return root

    def next(self) -> str:
        """The next character after spaces and comments; an empty text at the end."""
        while (space := _SPACE.match(self.text, self.at)) is not None:
            self.at = space.end()
        if self.text.startswith("/*", self.at):
            self.refuse("a comment that ends with */")
        return self.text[self.at : self.at + 1]

    def comma(self, inside: dict[str, Any] | list[Any]) -> None:
        """Pass the comma after a value; what closes the object or array is left in place."""
        closing = "}" if isinstance(inside, dict) else "]"
        following = self.next()
        if following == ",":
            self.at += 1
        elif following != closing:
            self.refuse(f"a comma or {closing}")

    def key(self, inside: dict[str, Any]) -> str:
        """A key, and the colon after it."""
        first, start = self.next(), self.at
        key = self.quoted() if first in {"'", '"'} else self.name()
        if key in inside:
            self.refuse("a key that this object does not have yet", start)
        if self.next() != ":":
            self.refuse("a colon after the key")
        self.at += 1
        return key

    def name(self) -> str:
        """A key without quotes, as JavaScript allows names of variables."""
        word = _WORD.match(self.text, self.at)
        name = "" if word is None else _IN_WORD.sub(lambda escape: chr(int(escape[1], 16)), word[0])
        plain = name.replace("$", "_").replace("\u200c", "").replace("\u200d", "")
        if word is None or not plain.isidentifier() or name[0] in "\u200c\u200d":
            self.refuse("a key: a name, or a text in quotes")
        self.at = word.end()
        return name

    def value(self) -> Any:
        """A value; of an object or an array only its opening is read, and it is empty still."""
        first = self.next()
        if first in {"{", "["}:
            self.at += 1
            return {} if first == "{" else []
        if first in {"'", '"'}:
            return self.quoted()
        number = _NUMBER.match(self.text, self.at)
        if number is not None:
            return self.number(number)
        word = _WORD.match(self.text, self.at)
        if word is None or word[0] not in _LITERALS:
            self.refuse("a value of JSON5: a text in quotes, a finite number, true, false, null, an object or an array")
        self.at = word.end()
        return _LITERALS[word[0]]

    def number(self, match: re.Match[str]) -> int | float:
        """A number that JSON can hold: whole ones stay whole."""
        text = match[0]
        if len(text) > _LONGEST_NUMBER:
            self.refuse(f"a number of at most {_LONGEST_NUMBER} characters")
        value: int | float
        if match[1] or not re.search(r"[.eE]", text):
            value = int(text, 16 if match[1] else 10)
            if value not in _WHOLE:
                self.refuse("a whole number from -2**63 to 2**64 - 1; a larger one as text, in quotes")
        else:
            value = float(text)
            if value in {float("inf"), float("-inf")}:
                self.refuse("a number that a float can hold")
        self.at = match.end()
        return value

    def quoted(self) -> str:
        """A text in quotes of either kind."""
        quote, plain = self.text[self.at], _PLAIN[self.text[self.at]]
        self.at += 1
        parts: list[str] = []
        while True:
            match = plain.match(self.text, self.at)
            if match is not None:
                parts.append(match[0])
                self.at = match.end()
            following = self.text[self.at : self.at + 1]
            if following == quote:
                self.at += 1
                return "".join(parts)
            if following != "\\":
                self.refuse(f"text without NUL and lone surrogates, and {quote} at its end")
            parts.append(self.escape())

    def escape(self) -> str:
        """What a backslash and the characters after it mean."""
        start = self.at
        escape = _ESCAPE.match(self.text, start + 1)
        if escape is None:
            self.refuse("an escape such as \\n, \\x41 or \\u0041")
        self.at = escape.end()
        kind = escape[0][0]
        if kind not in {"x", "u", "0"}:
            return _ESCAPED.get(kind, kind)
        code = int(escape[0][1:] or "0", 16)
        if 0xD800 <= code < 0xDC00 and (low := _LOW_HALF.match(self.text, self.at)) is not None:
            self.at = low.end()
            return chr(0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00)
        if code == 0 or 0xD800 <= code < 0xE000:
            self.refuse("text without NUL and lone surrogates, which PostgreSQL cannot hold", start)
        return chr(code)

    def refuse(self, expected: str, at: int | None = None) -> NoReturn:
        """Raise the error of a position, with one character of the text: a payload may hold secrets."""
        start = self.at if at is None else at
        raise self.piece.refusal(expected, start, start + 1)
